"""What all training tests share: filled stores, and a small pretrained model."""

from pathlib import Path

import pytest

from tests.models.backbones.tiny_vlms import save_model
from tests.train.runs import fill_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_store(tmp_path_factory.mktemp("data") / "demos.zarr")


@pytest.fixture(scope="session")
def named_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose frames say what is where."""
    return fill_store(
        tmp_path_factory.mktemp("data") / "named.zarr", things=("red cube", "blue cube", "red drawer")
    )


@pytest.fixture(scope="session")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a SmolVLM of a few thousand random weights."""
    return save_model("smolvlm", tmp_path_factory.mktemp("smolvlm"))
