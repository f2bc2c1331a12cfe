"""A Python that has lerobot 0.6.1 in it, apart from this package's own: for comparisons with the real thing.

usage: python scripts/lerobot_peer.py        makes it once (5.4 GB, 4 to 20 minutes) and prints its path

lerobot needs Python 3.12 and releases of torch and numpy that this package does not run with, so it gets a
virtual environment of its own, .venv-lerobot. PYTHON312 names an interpreter (3.12 or newer) where none is
on PATH; pip's own settings (PIP_FIND_LINKS ...) may name a CPU build of torch below 2.12, which saves 4 GB.
Its torchcodec needs FFmpeg's shared libraries (Debian: apt-get install ffmpeg); its PyAV brings its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-lerobot"
REQUIREMENT = "lerobot[dataset]==0.6.1"  # loads data sets and trains ACT
#: Without what they depend on: lerobot has the rest.
METAWORLD = ("metaworld==3.0.0", "mujoco==3.3.0", "gymnasium==1.4.0", "scipy==1.18.1", "imageio==2.38.1")
_STAMP = FOLDER / "peer-stamp"


def lerobot_python() -> Path:
    """The interpreter; made first where it is not there yet."""
    python = FOLDER / "bin/python"
    if _made():
        return python
    with (ROOT / ".venv-lerobot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second script waits for the first
        if not _made():
            shutil.rmtree(FOLDER, ignore_errors=True)
            print(f"installing {REQUIREMENT} into {FOLDER} (once; minutes)", file=sys.stderr)
            subprocess.run([_find_python(), "-m", "venv", str(FOLDER)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", REQUIREMENT], check=True)
            _STAMP.write_text(REQUIREMENT)
    return python


def add_extras(extras: Sequence[str]) -> None:
    """Install lerobot's optional parts (smolvla, pi) that are not there yet."""
    missing = [extra for extra in extras if not (FOLDER / f"peer-extra-{extra}").is_file()]
    if missing:
        requirement = f"lerobot[{','.join(missing)}]=={REQUIREMENT.partition('==')[2]}"
        print(f"installing {requirement} into {FOLDER} (once)", file=sys.stderr)
        pip = [str(lerobot_python()), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, requirement], check=True)
        for extra in missing:
            (FOLDER / f"peer-extra-{extra}").touch()


def metaworld_folder() -> Path:
    """Meta-World as lerobot 0.6.1 pins it, with the MuJoCo that it works with, in a folder of its own.

    lerobot's extra takes the newest MuJoCo (4.0.0), on which metaworld 3.0.0 fails; to be put before
    lerobot's packages in PYTHONPATH. Made first where it is not there yet.
    """
    folder = FOLDER / "metaworld"
    stamp = folder / "stamp"
    if not stamp.is_file() or stamp.read_text() != str(METAWORLD):
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing {METAWORLD[0]} into {folder} (once)", file=sys.stderr)
        pip = [str(lerobot_python()), "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, *METAWORLD], check=True)
        stamp.write_text(str(METAWORLD))
    return folder


def peer_environment(threads: int = 1) -> dict[str, str]:
    """Variables for a process there: offline, ``threads`` threads at most."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment.pop("PYTHONPATH", None)
    return environment


def run_in_peer(
    script: Path, arguments: Sequence[str], *, timeout_s: float, extras: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a script there, offline and on one thread; the JSON object on its last line."""
    add_extras(extras)
    environment = peer_environment()
    command = [str(lerobot_python()), str(script), *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{script.name} failed in lerobot's Python:\n{done.stderr[-4000:]}")
    return json.loads(lines[-1])


def _made() -> bool:
    return _STAMP.is_file() and _STAMP.read_text() == REQUIREMENT


def _find_python() -> str:
    for candidate in (os.environ.get("PYTHON312"), "python3.12", "python3.13", "python3"):
        if candidate is None:
            continue
        try:
            test = [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 12))"]
            if subprocess.run(test, check=False, capture_output=True).returncode == 0:
                return candidate
        except FileNotFoundError:
            continue
    raise SystemExit("lerobot needs Python 3.12 or newer: set PYTHON312=/path/to/python3.12.")


if __name__ == "__main__":
    print(lerobot_python())
