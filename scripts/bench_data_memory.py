"""Whether memory stays flat while training windows are drawn from a store.

usage: python scripts/bench_data_memory.py SOURCE... [--minutes 60] [--workers 2] [--batches-per-s 8]
           [--out docs/results/data_memory.json]

Draws shuffled batches of 32 windows from a mixture of the sources, in equal parts, whatever their formats, at
the training loader's own pace or slower where asked, and reads the resident size of the process and its
loader workers once a second. Growth is that of a line through the second half of the readings. Prints one
JSON line; exits with 1 where memory grew by more than 8 MB.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np
import psutil
import tyro

from vla.data.loader import BatchLoader
from vla.data.mixture import SourceConfig, open_sources
from vla.data.source import EpisodeSource
from vla.data.statistics import compute_statistics
from vla.data.windows import WindowConfig, WindowDataset

MAX_GROWTH_MB = 8.0
HORIZON, BATCH = 16, 32


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Whether memory stays flat while training windows are drawn from a store.

    Args:
        sources: of one mixture: stores, archives, data sets of any format that needs no description file.
        minutes: how long.
        workers: of the loader.
        batches_per_s: draw no faster than this; 0: as fast as it goes.
        out: JSON file to write besides.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    minutes: float = 60.0
    workers: int = 0
    batches_per_s: float = 0.0
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What was seen: sizes in MB, growth over the second half of the time."""

    growth_mb: float
    resident_mb: float
    batches: int


def watch_memory(batches: Iterator[Any], minutes: float, *, batches_per_s: float = 0.0) -> Memory:
    """Draw for ``minutes``; the readings' own room is taken before the first of them."""
    begin, count, taken = time.perf_counter(), 0, 0
    readings = np.zeros((int(60 * minutes) + 2, 2))  # seconds, MB
    while (now := time.perf_counter() - begin) < 60 * minutes:
        next(batches)
        count += 1
        if now >= taken:
            readings[taken] = now, resident_mb()
            taken += 1
        if batches_per_s:
            time.sleep(max(0.0, count / batches_per_s - (time.perf_counter() - begin)))
    late = readings[taken // 2 : taken]
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
    growth = slope * (late[-1, 0] - late[0, 0])
    return Memory(growth_mb=float(growth), resident_mb=float(late[-1, 1]), batches=count)


def resident_mb() -> float:
    """Of this process and its children."""
    process = psutil.Process()
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6


def mixture(sources: Sequence[EpisodeSource]) -> WindowDataset:
    """Windows of every source in equal parts, pictures at the size of the first source's."""
    cameras = [camera for arm in sources[0].embodiments.values() for camera in arm.cameras]
    roles, image_size = tuple(sorted({camera.role for camera in cameras})), cameras[0].height
    config = WindowConfig(horizon=HORIZON, camera_roles=roles, image_size=image_size, resize=True)
    return WindowDataset(sources, config, compute_statistics(sources), weights=[1.0] * len(sources))


def main() -> int:
    flags = tyro.cli(Watch, description=__doc__)
    sources = open_sources([SourceConfig(path=str(path)) for path in flags.sources])
    with BatchLoader(mixture(sources), batch_size=BATCH, seed=0, num_workers=flags.workers) as loader:
        seen = watch_memory(loader, flags.minutes, batches_per_s=flags.batches_per_s)
    episodes = sum(len(source) for source in sources)
    for source in sources:
        source.close()
    met = seen.growth_mb <= MAX_GROWTH_MB
    names = [path.name for path in flags.sources]
    command = f"python scripts/bench_data_memory.py {' '.join(names)} --minutes {flags.minutes:g}"
    if flags.workers:
        command += f" --workers {flags.workers}"
    if flags.batches_per_s:
        command += f" --batches-per-s {flags.batches_per_s:g}"
    pace = f", {flags.batches_per_s:g} batches a second" if flags.batches_per_s else ""
    result = {
        "claim": f"memory stays flat over {flags.minutes:g} min of drawing training windows from a mixture "
        f"of {len(names)} sources ({', '.join(names)}) with {flags.workers} workers{pace}",
        "target": f"growth over the second half of the time <= {MAX_GROWTH_MB:g} MB",
        "measured": f"{seen.batches * BATCH} windows of {episodes} episodes: {seen.growth_mb:+.2f} MB, "
        f"{seen.resident_mb:.0f} MB resident",
        "command": f"{command} --out docs/results/data_memory.json",
        "minutes": flags.minutes,
        "batches_per_s": flags.batches_per_s,
        "batch": BATCH,
        "workers": flags.workers,
        "sources": names,
        "episodes": episodes,
        "batches": seen.batches,
        "growth_mb": seen.growth_mb,
        "resident_mb": seen.resident_mb,
        "met": met,
    }
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
