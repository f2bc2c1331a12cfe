"""What is in a store, as rows of text: for ``vla data`` and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vla.data.description import Ranges
from vla.data.mapped import MappedSource
from vla.data.mixture import innermost, source_format, stated_ranges
from vla.data.remote import RemoteFiles, is_url
from vla.data.source import EpisodeInfo, EpisodeSource, RawDataset
from vla.data.store import EpisodeStore
from vla.data.undescribed import UNKNOWN, UndescribedSource
from vla.text import counted

Row = tuple[str, str]

_RANGES: Mapping[Ranges, str] = {
    "declared": "declared by the robot or its controller",
    "measured": "measured: those of these data, widened; training uses quantiles unless told not to",
    "assumed": "assumed: round numbers that no document states; training uses quantiles unless told not to",
}


def describe(store: EpisodeSource) -> list[Row]:
    """(what, value) rows: totals, then each (task, embodiment) cell, cameras, columns without meaning.

    Of a task, a variant, a codec it speaks where the data do.
    """
    episodes = store.episodes
    steps = sum(info.length for info in episodes)
    pictures = _stored_pictures(store)
    rows: list[Row] = [
        ("path", str(store.path)),
        ("format", "our own store" if isinstance(innermost(store), EpisodeStore) else source_format(store)),
        *_origin(store),
        *meaning(store),
        ("episodes", f"{len(episodes)} ({outcomes(episodes)})"),
        ("steps", str(steps)),
        ("pictures stored", str(pictures)),
        ("size on disk", _size(_total_bytes(store), pictures)),
        ("instructions", _instructions(episodes)),
    ]
    if isinstance(store, EpisodeStore):
        rows.append(("frames kept as", str(store.codec)))
    cells: dict[tuple[str, str], list[EpisodeInfo]] = {}
    for info in episodes:
        cells.setdefault((str(info.provenance.get("task", "")), info.embodiment), []).append(info)
    for (task, embodiment), members in sorted(cells.items()):
        mean = sum(info.length for info in members) / len(members)
        said = [f"{counted(len(members), 'episode')}, {mean:.1f} steps each"]
        variants = Counter(str(i.provenance["variant"]) for i in members if "variant" in i.provenance)
        said += [f"{count} {variant}" for variant, count in sorted(variants.items()) if variant != "base"]
        rows.append((f"{task} / {embodiment}" if task else embodiment, ", ".join(said)))
    for name, embodiment in store.embodiments.items():
        cameras = ", ".join(f"{c.name}{_role(c.role)} {c.height}x{c.width}" for c in embodiment.cameras)
        rows.append((f"cameras of {name}", cameras or "none"))
        if isinstance(store, UndescribedSource):
            rows += [("column", f"{f.name} [{f.size}]") for f in (*embodiment.state, *embodiment.action)]
    rows += left_out(store).items()
    notices = store.notices if isinstance(store, EpisodeStore) else ()
    return rows + [("note", notice) for notice in notices]


def _instructions(episodes: Sequence[EpisodeInfo]) -> str:
    different, silent = (
        {info.instruction for info in episodes} - {""},
        sum(not i.instruction for i in episodes),
    )
    said = [f"{len(different)} different"] if different or not silent else []
    return ", ".join(said + ([f"{counted(silent, 'episode')} without one"] if silent else []))


def left_out(source: EpisodeSource) -> dict[str, str]:
    """What of a foreign data set becomes no part of an episode: cameras, columns, steps, and what its reader
    cannot read; of a store, what its import left out. Cameras that were not asked for are not looked for."""
    if isinstance(source, EpisodeStore):
        return {str(what): str(value) for what, value in source.provenance.get("left_out", {}).items()}
    source = innermost(source)
    if isinstance(source, UndescribedSource):
        return _unread(source.raw)
    if not isinstance(source, MappedSource):
        return {}
    raw, known = source.raw, source.description
    rules = (*known.state, *known.action, *known.executed)
    used = {*(rule.column for rule in rules), *known.aux.values(), known.time_column}
    cameras = [name for name in raw.cameras if name not in {rule.column for rule in known.cameras}]
    columns = [name for name in raw.columns if name not in used]
    steps = sum(e.length for e in raw.episodes) - sum(info.length for info in source.episodes)
    found = {"cameras left out": ", ".join(cameras), "columns left out": ", ".join(columns)} | _unread(raw)
    if steps:
        parts = (
            ("at the start", known.skip_first),
            ("at the end", known.skip_last),
            ("lag", known.action_lag),
        )
        each = ", ".join(f"{count} {where}" for where, count in parts if count)
        found["steps left out"] = f"{steps}, of each episode {each}"
    return {what: value for what, value in found.items() if value}


def _unread(raw: RawDataset) -> dict[str, str]:
    said = ", ".join(f"{name} ({what})" for name, what in raw.unread.items())
    return {"not readable": said} if said else {}


def _origin(source: EpisodeSource) -> list[Row]:
    """Formats that the episodes come from, where that is not the one they lie in now."""
    here = source_format(source)
    formats = Counter(
        str(info.provenance["format"]) for info in source.episodes if "format" in info.provenance
    )
    if not set(formats) - {here}:
        return []
    said = (f"{name} ({counted(count, 'episode')})" for name, count in sorted(formats.items()))
    return [("came from", ", ".join(said))]


def meaning(source: EpisodeSource) -> list[Row]:
    """Who says what the columns mean, and where the ranges of its fields come from: of a foreign set, or of
    a store made of one; our own recordings say it themselves."""
    inner = innermost(source)
    if isinstance(inner, UndescribedSource):
        return [("columns described by", "nobody: they are shown as they are stored")]
    told = inner.told_by if isinstance(inner, MappedSource) else ""
    rows = [("columns described by", told)] if told else []
    ranges = stated_ranges(source)
    if told or ranges != "declared":
        rows.append(("ranges of fields", _RANGES[ranges]))
    return rows


def _stored_pictures(source: EpisodeSource) -> int:
    """All pictures that lie there, as the files' bytes count all of them."""
    inner = innermost(source)
    if isinstance(inner, MappedSource | UndescribedSource):
        return len(inner.raw.cameras) * sum(episode.length for episode in inner.raw.episodes)
    return sum(info.length * len(source.cameras(info.index)) for info in source.episodes)


def _role(role: str) -> str:
    return "" if role == UNKNOWN else f" ({role})"


def outcomes(episodes: Sequence[EpisodeInfo]) -> str:
    """``3 successful, 1 failed, 2 of unknown success``; what there is none of is left out."""
    names = {True: "successful", False: "failed", None: "of unknown success"}
    counts = Counter(info.success for info in episodes)
    return ", ".join(f"{counts[key]} {name}" for key, name in names.items() if counts[key]) or "none"


def store_bytes(path: Path) -> int:
    """Bytes of its files; a shard's unwritten tail, which takes no room on disk, is not counted, a
    copy of it that does take room is."""
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
