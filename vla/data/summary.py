"""What is in a store, as rows of text: for ``vla data`` and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vla.data.mixture import source_format
from vla.data.remote import RemoteFiles, is_url
from vla.data.source import EpisodeInfo, EpisodeSource
from vla.data.store import EpisodeStore
from vla.data.undescribed import UNKNOWN, UndescribedSource

Row = tuple[str, str]


def describe(store: EpisodeSource) -> list[Row]:
    """(what, value) rows: totals, then each (task, embodiment) cell, cameras, columns without meaning.

    Of a task, a variant, a codec it speaks where the data do.
    """
    episodes = store.episodes
    steps = sum(info.length for info in episodes)
    pictures = sum(info.length * len(store.cameras(info.index)) for info in episodes)
    rows: list[Row] = [
        ("store", str(store.path)),
        ("format", source_format(store)),
        ("episodes", f"{len(episodes)} ({outcomes(episodes)})"),
        ("steps", str(steps)),
        ("pictures", str(pictures)),
        ("size", _size(_total_bytes(store), pictures)),
        ("instructions", f"{len({info.instruction for info in episodes})} different"),
    ]
    if isinstance(store, EpisodeStore):
        rows.append(("frames kept as", str(store.codec)))
    cells: dict[tuple[str, str], list[EpisodeInfo]] = {}
    for info in episodes:
        cells.setdefault((str(info.provenance.get("task", "")), info.embodiment), []).append(info)
    for (task, embodiment), members in sorted(cells.items()):
        mean = sum(info.length for info in members) / len(members)
        said = [f"{len(members)} episodes, {mean:.1f} steps each"]
        variants = Counter(str(i.provenance["variant"]) for i in members if "variant" in i.provenance)
        said += [f"{count} {variant}" for variant, count in sorted(variants.items()) if variant != "base"]
        rows.append((f"{task} / {embodiment}" if task else embodiment, ", ".join(said)))
    for name, embodiment in store.embodiments.items():
        cameras = ", ".join(f"{c.name}{_role(c.role)} {c.height}x{c.width}" for c in embodiment.cameras)
        rows.append((f"cameras of {name}", cameras or "none"))
        if isinstance(store, UndescribedSource):
            rows += [("column", f"{f.name} [{f.size}]") for f in (*embodiment.state, *embodiment.action)]
    notices = store.notices if isinstance(store, EpisodeStore) else ()
    return rows + [("note", notice) for notice in notices]


def _role(role: str) -> str:
    return "" if role == UNKNOWN else f" ({role})"


def outcomes(episodes: Sequence[EpisodeInfo]) -> str:
    """``3 successful, 1 failed, 2 of unknown success``; what there is none of is left out."""
    names = {True: "successful", False: "failed", None: "of unknown success"}
    counts = Counter(info.success for info in episodes)
    return ", ".join(f"{counts[key]} {name}" for key, name in names.items() if counts[key]) or "none"


def store_bytes(path: Path) -> int:
    """Bytes of its files; a shard's unwritten tail, which takes no room on disk, is not counted."""
    found = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum(min(size.st_size, size.st_blocks * 512) for size in found)


def _total_bytes(source: EpisodeSource) -> int | None:
    """Of the files of a source, wherever they are; None where nobody says."""
    if is_url(source.path):
        return RemoteFiles(str(source.path)).total_bytes()
    path = Path(source.path)
    return path.stat().st_size if path.is_file() else store_bytes(path)


def _size(size: int | None, pictures: int) -> str:
    if size is None:
        return "unknown: the server does not list its files"
    return f"{size / 1e6:.1f} MB" + (f" ({size / pictures / 1e3:.2f} kB a picture)" if pictures else "")
