"""Where the Pythons of benchmarks are: ``<folder>/<benchmark>``, each made by ``scripts/setup_benchmark``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vla.errors import EnvError

#: Environment variable naming the folder.
FOLDER = "VLA_BENCHMARKS"


class BenchmarkMissingError(EnvError):
    """The benchmark's own Python is not there."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(
            f"The benchmark {name!r} runs in a Python of its own, and there is none at {path}. Make it with "
            f"'scripts/setup_benchmark {name}', or name the folder that has it in {FOLDER}."
        )


def benchmarks_folder() -> Path:
    """``$VLA_BENCHMARKS``, else ``~/.cache/vla/benchmarks``."""
    given = os.environ.get(FOLDER)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla/benchmarks"


def benchmark_python(name: str) -> str:
    """The interpreter of a benchmark; ``here`` is this one.

    Raises:
        BenchmarkMissingError: it has not been made.
    """
    if name == "here":
        return sys.executable
    path = benchmarks_folder() / name / "bin/python"
    if not path.exists():
        raise BenchmarkMissingError(name, path)
    return str(path)
