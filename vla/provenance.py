"""Where results come from: versions, git state, and the cores there are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed version of each package, or ``absent``."""
    return {name: _version(name) for name in packages}


def git_state() -> dict[str, Any]:
    """``commit`` of the source tree and whether it was ``dirty``; None outside a repository."""
    try:
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None, "argv0": Path(sys.argv[0]).name}


def usable_cores() -> int:
    """Physical cores that this process may use: affinity and cgroup limits respected."""
    physical = psutil.cpu_count(logical=False) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed, _cgroup_cores()))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
    )
    return answer.stdout.strip()


def _cgroup_cores() -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        return sys.maxsize
    return sys.maxsize if quota == "max" else max(1, int(int(quota) / int(period) + 0.5))
