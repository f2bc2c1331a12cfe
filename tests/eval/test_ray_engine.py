"""The same groups on a Ray cluster of two processes on this machine."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.eval.test_batches import CONFIG, run
from vla.errors import ConfigError, EnvError
from vla.eval.evaluate import evaluate
from vla.eval.intervals import Rate
from vla.eval.ray_engine import RayWorker

ray: Any = pytest.importorskip("ray", reason="Ray is optional: pip install 'vla[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, at start and end


@pytest.fixture
def cluster(point_suite: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two processes that find the fake suite."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_ray_gives_the_records_of_processes_goes_on_after_a_kill_and_survives_a_worker(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = run(tmp_path / "here", workers=0)
    assert run(tmp_path / "there", engine="ray", workers=2) == here
    path = tmp_path / "there/records.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    assert run(tmp_path / "there", engine="ray", workers=1) == here

    # the actors' environment is that of the cluster's start, so the scene dies each time
    one = replace(CONFIG, engine="ray", workers=1, embodiments=("point",), ablations=("none",))
    summary = evaluate(replace(one, tasks=("dies",), num_seeds=3), tmp_path / "run", progress=False)
    assert (summary.overall["base"].success, summary.overall["base"].errors) == (Rate(2, 3), 1)

    evaluate(replace(one, num_seeds=1, videos_per_cell=1), tmp_path / "films", progress=False)
    assert (tmp_path / "films/videos/reach-point-base-0.mp4").stat().st_size > 0


def test_a_worker_with_other_weights_says_so(point_suite: str) -> None:
    import json

    import msgpack

    worker = RayWorker(json.dumps(replace(CONFIG, execution_horizon=2).to_json()), "other")
    answer = msgpack.unpackb(worker.start())
    assert "weights 'abc', not 'other'" in answer["refused"]


def test_a_cluster_that_is_not_there_is_told(point_suite: str, tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="No Ray cluster at nonsense"):
        run(tmp_path, engine="ray", workers=1, cluster="nonsense")


def test_without_ray_the_engine_says_what_to_install(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'vla\[ray\]'"):
        run(tmp_path, engine="ray", workers=1)


def test_settings_that_ray_cannot_keep_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers >= 1, and no store"):
        replace(CONFIG, engine="ray", workers=0)
    with pytest.raises(ConfigError, match="engine must be 'ray'"):
        replace(CONFIG, cluster="auto")
