"""One filled store for all training tests."""

from pathlib import Path

import pytest

from tests.train.runs import fill_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_store(tmp_path_factory.mktemp("data") / "demos.zarr")
