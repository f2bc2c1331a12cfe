"""What is stored with a run: resolved configuration, versions, git state; and its metrics."""

from __future__ import annotations

import json
import math
import platform
import time
from pathlib import Path
from typing import Any

from vla.errors import CheckpointError, ConfigError
from vla.files import read_json, write_json
from vla.provenance import git_state, package_versions
from vla.train.checkpoint import list_checkpoints
from vla.train.config import TrainConfig

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
#: Parts of the configuration that a resumed run may change; the rest decides what its weights mean.
RESUMABLE = (
    "name",
    "budget",
    "num_processes",
    "device",
    "checkpoint_minutes",
    "keep_checkpoints",
    "log_every",
    "judge",
)
_PACKAGES = ("vla", "torch", "transformers", "numpy", "mujoco", "zarr")


def describe_run(config: TrainConfig) -> dict[str, Any]:
    """Configuration, versions, git state and machine, JSON-able."""
    return {
        "config": config.to_json(),
        "versions": {"python": platform.python_version(), **package_versions(_PACKAGES)},
        "git": git_state(),
        "machine": {"platform": platform.platform(), "processor": platform.processor() or platform.machine()},
        "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def read_begun(config: TrainConfig, out: Path, *, resume: bool) -> dict[str, Any] | None:
    """``run.json`` of the run to go on with, whose settings are checked; None where one is to be started.

    A run that took no step (its data were refused, say) is started anew, with whatever settings.
    """
    path = out / RUN_FILE
    if not _took_a_step(out):
        if resume and not path.is_file():
            raise CheckpointError(
                f"Nothing to resume in {out}: {RUN_FILE} is missing. Leave --resume out to start there."
            )
        return None
    if not resume:
        raise ConfigError(f"{out} already holds a run. Resume it, or choose another directory.")
    described = read_record(out)
    # as read now: settings that an older run did not know have the values that it had
    before, now = TrainConfig.from_json(described["config"]).to_json(), config.to_json()
    changed = sorted(key for key in now if key not in RESUMABLE and now[key] != before.get(key))
    if changed:
        raise CheckpointError(
            f"The run in {out} was started with other settings of {', '.join(changed)}; "
            f"a resumed run may only change {', '.join(RESUMABLE)}."
        )
    return described


def write_record(out: Path, described: dict[str, Any]) -> None:
    """Begin a run: from here on the directory is its."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RUN_FILE, described)


def _took_a_step(out: Path) -> bool:
    metrics = out / METRICS_FILE
    return (metrics.is_file() and metrics.stat().st_size > 0) or bool(list_checkpoints(out / "checkpoints"))


def record_stages(out: Path, stages: list[dict[str, Any]]) -> None:
    """Add to ``run.json`` what learns in each stage."""
    write_json(out / RUN_FILE, {**read_record(out), "stages": stages})


def read_record(out: Path) -> dict[str, Any]:
    """Content of ``run.json``; :class:`CheckpointError` where it is missing or damaged."""
    path, remedy = out / RUN_FILE, "Start a new run directory; a policy already in this one stays usable."
    described = read_json(path, CheckpointError, remedy)
    if not isinstance(described.get("config"), dict):
        raise CheckpointError(f"{path} is damaged: it has no configuration. {remedy}")
    return described


def load_run_config(out: Path) -> TrainConfig:
    """The configuration stored with a run."""
    return TrainConfig.from_json(read_record(out)["config"])


class MetricsLog:
    """Appends one JSON object a line; on resuming, lines after the checkpoint's step are dropped."""

    def __init__(self, out: Path, *, from_step: int) -> None:
        self.path = out / METRICS_FILE
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= from_step]
        self.path.write_text("".join(line + "\n" for line in kept))

    def write(self, values: dict[str, float]) -> None:
        # NaN (nobody in the batch knew) is not JSON
        row = {key: None if math.isnan(value) else value for key, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut off by a crash
