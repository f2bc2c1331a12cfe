"""Registers the fake suite and its policies the way a third party does: through entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

ENTRY_POINTS = """[vla.suites]
point_suite = tests.eval.fake_suite:PointSuite
[vla.policies]
seer = tests.eval.fake_suite:make_seer
crowd = tests.eval.fake_suite:make_crowd
"""


@pytest.fixture
def point_suite(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the suite, known to this process and, through ``sys.path``, to its workers."""
    folder = tmp_path_factory.mktemp("plugin")
    info = folder / "point_suite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: point-suite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    for path in (folder, Path(__file__).parents[2]):  # the second: workers import ``tests.eval``
        monkeypatch.syspath_prepend(str(path))
    return "point_suite"
