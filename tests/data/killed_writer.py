"""A writer that is killed: appends episodes, saying on standard output which ones are committed.

Run as a program it makes the store if there is none, and goes on until it is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.data.worlds import make_arm, make_episode
from vla.data.store import EpisodeStore

ROOT = Path(__file__).parents[2]
READY = "ready"


def write_until_killed(store: Path, number: int, delay_s: float, *, from_first_commit: bool = False) -> int:
    """Number of episodes that a writer said it had committed before it was killed.

    Args:
        store: made by the writer where it is missing.
        number: of the writer; stored with its episodes.
        delay_s: from when it is about to open or make the store to SIGKILL.
        from_first_commit: count the delay from there instead.
    """
    command = [sys.executable, __file__, str(store), str(number)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip()]
        if said != [READY]:
            raise RuntimeError(f"Writer {number} said {said[0]!r}, expected {READY!r}: it could not begin.")
        if from_first_commit:
            said.append(process.stdout.readline())
        time.sleep(delay_s)
        if process.poll() is not None:
            raise RuntimeError(f"Writer {number} ended by itself with {process.returncode}.")
        process.kill()
        return len(said) - 1 + len(process.stdout.read().splitlines())


def write(path: Path, writer: str) -> None:
    rng = np.random.default_rng(int(writer))
    print(READY, flush=True)
    if not (path / "zarr.json").exists():
        EpisodeStore.create(path, embodiments=[make_arm()]).close()
    with EpisodeStore.open(path) as store:
        for i in range(10_000):
            facts = {"writer": writer, "i": i}
            store.append(make_episode(rng, make_arm(), length=3 + i % 5, provenance=facts))
            print(i, flush=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
