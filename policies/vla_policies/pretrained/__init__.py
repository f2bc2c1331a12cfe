"""Where the shipped weights lie; registered under ``vla.checkpoints``."""

from __future__ import annotations

from pathlib import Path


def tabletop() -> Path:
    """The policy for every task and arm of the tabletop suite."""
    return Path(__file__).parent / "tabletop"
