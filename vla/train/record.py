"""What is stored with a run: resolved configuration, versions, git state; and its metrics."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vla.errors import CheckpointError, ConfigError, VlaError
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
)
_PACKAGES = ("vla", "torch", "transformers", "numpy", "mujoco", "zarr")


def describe_run(config: TrainConfig) -> dict[str, Any]:
    """Configuration, versions, git state and machine, JSON-able."""
    return {
        "config": config.to_json(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "git": _git_state(),
        "machine": {"platform": platform.platform(), "processor": platform.processor() or platform.machine()},
        "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def start_record(config: TrainConfig, out: Path, *, resume: bool) -> dict[str, Any]:
    """Write ``run.json``, or on resuming check that the run there is this one; returns its content."""
    path = out / RUN_FILE
    if not path.is_file():
        if resume:
            raise CheckpointError(f"Nothing to resume in {out}: {RUN_FILE} is missing.")
        out.mkdir(parents=True, exist_ok=True)
        described = describe_run(config)
        path.write_text(json.dumps(described, indent=1) + "\n")
        return described
    if not resume:
        raise ConfigError(f"{out} already holds a run. Resume it, or choose another directory.")
    described = json.loads(path.read_text())
    before, now = described["config"], config.to_json()
    changed = sorted(key for key in now if key not in RESUMABLE and now[key] != before.get(key))
    if changed:
        raise CheckpointError(
            f"The run in {out} was started with other settings of {', '.join(changed)}; "
            f"a resumed run may only change {', '.join(RESUMABLE)}."
        )
    return described


def load_run_config(out: Path) -> TrainConfig:
    """The configuration stored with a run."""
    path = out / RUN_FILE
    try:
        return TrainConfig.from_json(json.loads(path.read_text())["config"])
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, VlaError):
            raise
        raise CheckpointError(f"No readable {RUN_FILE} in {out}: {error}.") from error


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


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _git_state() -> dict[str, Any]:
    def git(*args: str) -> str:
        root = Path(__file__).parent
        done = subprocess.run(
            ["git", *args], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None, "argv0": Path(sys.argv[0]).name}
