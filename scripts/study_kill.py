"""Kills a writer at random moments and looks at what is left, while a reader looks on.

usage: python scripts/study_kill.py [--kills 200] [--out docs/results/kill.json]

A process makes a store where there is none, appends episodes and says which it has committed; it gets SIGKILL
at a random moment from the making of the store on, and the next one goes on. Every few kills a new store is
begun. After every kill the store is opened: each episode that was promised must be there, whole and in order.
All the while another process opens the latest store again and again and reads every byte of its latest
episodes; it must never meet half of one. Prints one JSON line; exits with 1 where anything was lost, or
where no writer lived to commit anything.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.data.killed_writer import write_until_killed
from vla.data.store import EpisodeStore
from vla.errors import StoreError

LATEST = 5


@dataclass(frozen=True, kw_only=True)
class Study:
    """Kill a writer at random moments and look at what is left.

    Args:
        kills: how often.
        longest_s: a writer lives at most this long after it is about to open or make the store, seconds; the
            moments lie denser at the beginning.
        kills_per_store: so many writers, one after the other, work at one store.
        seed: of the moments.
        out: JSON file to write besides.
    """

    kills: int = 200
    longest_s: float = 0.4
    kills_per_store: int = 5
    seed: int = 0
    out: Path | None = None


def look_on(stores: Any, stop: Any, looks: Any, faults: Any) -> None:
    """Open the latest store, once it is there, until told to stop; count looks and what was wrong."""
    while not stop.is_set():
        path = Path(stores[-1]) if len(stores) else None
        if path is None or not (path / "zarr.json").exists():
            continue
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


def kept_by_writer(path: Path) -> dict[str, list[int]]:
    """Numbers of each writer's episodes, in the order of the store; none where there is no store yet."""
    kept: dict[str, list[int]] = {}
    if (path / "zarr.json").exists():
        with EpisodeStore.open(path) as store:
            for info in store.episodes:
                kept.setdefault(info.provenance["writer"], []).append(info.provenance["i"])
    return kept


def main() -> int:
    flags = tyro.cli(Study, description=__doc__)
    rng, promised, lost, unmade = random.Random(flags.seed), {}, [], 0
    with tempfile.TemporaryDirectory(prefix="study_kill_") as temporary, mp.Manager() as manager:
        stop, looks, faults, stores = mp.Event(), mp.Value("i", 0), manager.list(), manager.list()
        reader = mp.Process(target=look_on, args=(stores, stop, looks, faults), daemon=True)
        reader.start()
        for number in range(flags.kills):
            if number % flags.kills_per_store == 0:
                stores.append(str(Path(temporary) / f"s{len(stores)}.zarr"))
            path, writer = Path(stores[-1]), str(number)
            promised[writer] = write_until_killed(path, number, flags.longest_s * rng.random() ** 2)
            unmade += not (path / "zarr.json").exists()
            kept = kept_by_writer(path).get(writer, [])
            if kept != list(range(len(kept))) or not promised[writer] <= len(kept):
                lost.append({"writer": number, "promised": promised[writer], "kept": len(kept)})
        stop.set()
        reader.join()
        damages, kept_all = [], {}
        for path in (Path(text) for text in stores):
            if (path / "zarr.json").exists():
                with EpisodeStore.open(path) as store:
                    damages += store.verify()
            kept_all |= {writer: len(kept) for writer, kept in kept_by_writer(path).items()}
        lost += [
            {"writer": writer, "promised": count, "kept": kept_all.get(writer, 0)}
            for writer, count in promised.items()
            if kept_all.get(writer, 0) < count
        ]
        barren = sum(count == 0 for count in promised.values())
        faults_seen = len(lost) + len(damages) + len(faults)
        result = {
            "claim": "a writer killed at random moments, the making of the store included, and a reader that "
            "looks on",
            "target": "no committed episode lost, no half of one ever seen",
            "measured": f"{flags.kills} kills, {barren} of them before the writer's first commit ({unmade} "
            f"before there was a store); {sum(promised.values())} episodes committed, {len(lost)} lost; "
            f"{looks.value} looks of the reader; {faults_seen} faults in all",
            "command": f"python scripts/study_kill.py --kills {flags.kills} --longest-s {flags.longest_s} "
            "--out docs/results/kill.json",
            "kills": flags.kills,
            "kills_before_first_commit": barren,
            "kills_before_store": unmade,
            "stores": len(stores),
            "episodes_promised": sum(promised.values()),
            "episodes_in_store": sum(kept_all.values()),
            "lost": lost,
            "damages": [str(damage) for damage in damages],
            "reader_looks": looks.value,
            "reader_faults": list(faults),
        }
    line = json.dumps(result)
    if flags.out is not None:
        flags.out.write_text(line + "\n")
    print(line)
    return int(bool(lost or damages or result["reader_faults"]) or not result["episodes_promised"])


if __name__ == "__main__":
    sys.exit(main())
