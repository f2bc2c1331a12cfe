"""Kills a writer at random moments and looks at what is left, while a reader looks on.

usage: python scripts/study_kill.py [--kills 200] [--out docs/results/kill.json]

A process appends episodes to one store and says which it has committed; it gets SIGKILL at a random moment,
and the next one goes on. After every kill the store is opened: each episode that was promised must be there,
whole and in order. All the while another process opens the store again and again and reads every byte of the
latest episodes; it must never meet half of one. Prints one JSON line; exits with 1 where anything was lost.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.data.worlds import make_arm
from vla.data.store import EpisodeStore
from vla.errors import StoreError

WRITER = ROOT / "tests/data/killed_writer.py"
LATEST = 5


@dataclass(frozen=True, kw_only=True)
class Study:
    """Kill a writer at random moments and look at what is left.

    Args:
        kills: how often.
        longest_s: a writer lives at most this long after its first commit, seconds.
        seed: of the moments.
        out: JSON file to write besides.
    """

    kills: int = 200
    longest_s: float = 0.4
    seed: int = 0
    out: Path | None = None


def write_until_killed(store: Path, number: int, delay_s: float) -> int:
    """Episodes that the writer said it had committed."""
    command = [sys.executable, str(WRITER), str(store), str(number)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.kill()
        return 1 + len(process.stdout.read().splitlines())


def look_on(path: str, stop: Any, looks: Any, faults: Any) -> None:
    """Open the store until told to stop; count looks and what was wrong."""
    while not stop.is_set():
        try:
            with EpisodeStore.open(path) as store:
                for info in store.episodes[-LATEST:]:
                    for name in store.columns(info.index):
                        store.column(info.index, name)
                    for camera in store.cameras(info.index):
                        store.frames(info.index, camera, range(info.length))
        except StoreError as error:
            faults.append(str(error))
        with looks.get_lock():
            looks.value += 1


def main() -> int:
    flags = tyro.cli(Study, description=__doc__)
    rng, promised, lost = random.Random(flags.seed), {}, []
    with tempfile.TemporaryDirectory(prefix="study_kill_") as temporary, mp.Manager() as manager:
        path = Path(temporary) / "s.zarr"
        EpisodeStore.create(path, embodiments=[make_arm()]).close()
        stop, looks, faults = mp.Event(), mp.Value("i", 0), manager.list()
        reader = mp.Process(target=look_on, args=(str(path), stop, looks, faults), daemon=True)
        reader.start()
        for number in range(flags.kills):
            promised[str(number)] = write_until_killed(path, number, rng.uniform(0, flags.longest_s))
            with EpisodeStore.open(path) as store:
                kept = [i.provenance["i"] for i in store.episodes if i.provenance["writer"] == str(number)]
            if kept != list(range(len(kept))) or not promised[str(number)] <= len(kept):
                lost.append({"writer": number, "promised": promised[str(number)], "kept": len(kept)})
        stop.set()
        reader.join()
        with EpisodeStore.open(path) as store:
            counts = dict.fromkeys(promised, 0)
            for info in store.episodes:
                counts[info.provenance["writer"]] += 1
            damages, total = store.verify(), len(store)
        lost += [
            {"writer": w, "promised": n, "kept": counts[w]} for w, n in promised.items() if counts[w] < n
        ]
        faults_seen = len(lost) + len(damages) + len(faults)
        result = {
            "claim": "a writer killed at random moments after its first commit, and a reader that looks on",
            "target": "no committed episode lost, no half of one ever seen",
            "measured": f"{flags.kills} kills, {sum(promised.values())} episodes committed, "
            f"{len(lost)} lost; {looks.value} looks of the reader; {faults_seen} faults in all",
            "command": f"python scripts/study_kill.py --kills {flags.kills} --longest-s {flags.longest_s} "
            "--out docs/results/kill.json",
            "kills": flags.kills,
            "episodes_promised": sum(promised.values()),
            "episodes_in_store": total,
            "lost": lost,
            "damages": [str(damage) for damage in damages],
            "reader_looks": looks.value,
            "reader_faults": list(faults),
        }
    line = json.dumps(result)
    if flags.out is not None:
        flags.out.write_text(line + "\n")
    print(line)
    return int(bool(lost or damages or result["reader_faults"]))


if __name__ == "__main__":
    sys.exit(main())
