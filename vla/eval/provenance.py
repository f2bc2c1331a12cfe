"""What a result was made with: command, versions, commit and machine of every session of its making."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vla.errors import StoreError
from vla.files import read_json, write_json
from vla.provenance import git_state, package_versions

PACKAGES = ("vla", "mujoco", "torch", "transformers", "numpy", "gymnasium", "zarr")


def provenance() -> dict[str, Any]:
    """JSON-able facts about this process and machine."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": package_versions(PACKAGES),
        "commit": _commit(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "renderer": os.environ.get("MUJOCO_GL", "default"),
        },
    }


def remember_session(path: Path, records_before: int, policy: Mapping[str, Any] | None = None) -> None:
    """Append this process to the sessions in ``provenance.json``.

    Args:
        path: the file.
        records_before: episodes that earlier sessions had recorded; those after are this one's.
        policy: what the policy says of itself (``vla.control.policies.policy_facts``).
    """
    now = {**provenance(), "records_before": records_before, **({"policy": dict(policy)} if policy else {})}
    sessions = [*recall_sessions(path), now]
    write_json(path, {"sessions": sessions})


def recall_sessions(path: Path) -> list[dict[str, Any]]:
    """Every session in ``provenance.json``, in order; none where there is no file."""
    if not path.exists():
        return []
    remedy = "Remove it: what earlier sessions ran with is lost, their records are not."
    content = read_json(path, StoreError, remedy)
    sessions = content.get("sessions", [content])  # earlier versions knew one session, the last
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise StoreError(f"{path} is damaged: 'sessions' is not a list of objects. {remedy}")
    return sessions


def code_versions(sessions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Each distinct program among the sessions: its commit and package versions, in order."""
    named = []
    for session in sessions:
        packages = ", ".join(f"{name} {number}" for name, number in session.get("packages", {}).items())
        named.append(f"{session.get('commit') or 'no commit'} ({packages})")
    return tuple(dict.fromkeys(named))


def _commit() -> str:
    """The commit of the source tree, ``+changes`` where it differs; empty outside a repository."""
    state = git_state()
    return (state["commit"] or "")[:12] + ("+changes" if state["dirty"] else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
