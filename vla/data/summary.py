"""What is in a store, as rows of text: for ``vla data`` and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vla.data.source import EpisodeInfo, EpisodeSource
from vla.data.store import EpisodeStore

Row = tuple[str, str]


def describe(store: EpisodeSource) -> list[Row]:
    """(what, value) rows: totals, then each (task, embodiment) cell, then cameras."""
    episodes = store.episodes
    steps = sum(info.length for info in episodes)
    frames = sum(info.length * len(store.cameras(info.index)) for info in episodes)
    rows: list[Row] = [
        ("store", str(store.path)),
        ("episodes", f"{len(episodes)} ({outcomes(episodes)})"),
        ("steps", str(steps)),
        ("frames", str(frames)),
        ("size", _size(store_bytes(Path(store.path)), frames)),
        ("instructions", f"{len({info.instruction for info in episodes})} different"),
    ]
    if isinstance(store, EpisodeStore):
        rows.append(("pictures", str(store.codec)))
    cells = Counter((str(info.provenance.get("task", "?")), info.embodiment) for info in episodes)
    for (task, embodiment), count in sorted(cells.items()):
        members = [
            i for i in episodes if (str(i.provenance.get("task", "?")), i.embodiment) == (task, embodiment)
        ]
        mean = sum(i.length for i in members) / count
        swapped = sum(i.provenance.get("variant") == "swapped" for i in members)
        rows.append((f"{task} / {embodiment}", f"{count} episodes, {mean:.1f} steps each, {swapped} swapped"))
    for name, embodiment in store.embodiments.items():
        cameras = ", ".join(f"{c.name} ({c.role}) {c.height}x{c.width}" for c in embodiment.cameras)
        rows.append((f"cameras of {name}", cameras or "none"))
    notices = store.notices if isinstance(store, EpisodeStore) else ()
    return rows + [("note", notice) for notice in notices]


def outcomes(episodes: Sequence[EpisodeInfo]) -> str:
    """``3 successful, 1 failed, 2 of unknown success``; what there is none of is left out."""
    names = {True: "successful", False: "failed", None: "of unknown success"}
    counts = Counter(info.success for info in episodes)
    return ", ".join(f"{counts[key]} {name}" for key, name in names.items() if counts[key]) or "none"


def store_bytes(path: Path) -> int:
    """Bytes on disk (allocated blocks: a shard's unwritten tail takes no room)."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def _size(size: int, frames: int) -> str:
    return f"{size / 1e6:.1f} MB" + (f" ({size / frames / 1e3:.2f} kB a frame)" if frames else "")
