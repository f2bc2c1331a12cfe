"""What is wrong with the tables and videos of a LeRobotDataset, told without reading all that is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vla.data.damage import damage_lines, without_advice
from vla.data.readers.lerobot_layout import Layout
from vla.data.readers.lerobot_meta import EpisodeEntry, VideoSpan
from vla.data.readers.lerobot_tables import AGAIN, Tables
from vla.data.video import VideoFile
from vla.errors import DatasetError
from vla.text import quoted

#: An episode and what is wrong with it.
Fault = tuple[EpisodeEntry, str]
_EPISODES = "meta/episodes"
_OFF_FRAME = 0.25  # of a frame, that the begin of an episode may be from one


def check_tables(layout: Layout, tables: Tables) -> None:
    """Raise :class:`DatasetError` where tables have other columns or rows than ``meta`` states.

    Tables of v2.1 are one an episode: only the first is looked at.
    """
    for table, entries in _by_table(layout).items():
        check_columns(layout, table, tables.names(table))
        if not layout.is_v3:
            return
        for _, message in row_faults(layout, tables, table, entries):
            raise DatasetError(message)
        rows, total = tables.num_rows(table), sum(entry.length for entry in entries)
        if rows != total:
            raise DatasetError(_ragged(table, rows, total, entries))


def table_faults(layout: Layout, tables: Tables, *, tasks_too: bool = True) -> Iterator[Fault]:
    """Episodes in tables that cannot be opened, or whose rows are not theirs; see :func:`row_faults`."""
    for table, entries in _by_table(layout).items():
        try:
            check_columns(layout, table, tables.names(table))
            found = list(row_faults(layout, tables, table, entries, tasks_too=tasks_too))
        except DatasetError:
            found = [
                fault for entry in entries for fault in _alone(layout, tables, entry, tasks_too=tasks_too)
            ]
        yield from found


def task_faults(layout: Layout, tables: Tables) -> Iterator[Fault]:
    """Episodes in sound tables whose rows are said to do something else than their entry in ``meta`` says."""
    for table, entries in _by_table(layout).items():
        if "task_index" not in tables.names(table):
            continue
        for entry in entries:
            numbers = tables.values(table, "task_index", entry.row, entry.row + entry.length, 1)[:, 0]
            if message := _other_task(layout, entry, numbers):
                yield entry, message


def check_videos(layout: Layout) -> None:
    """Raise :class:`DatasetError` where videos cannot be opened or end before their episodes do."""
    faults = [(entry.number, message) for entry, _, message in video_faults(layout)]
    if faults:
        lines = [without_advice(line) for line in damage_lines(faults)]
        more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise DatasetError(
            f"Videos of {layout.root} do not hold the pictures of their episodes:\n  "
            + "\n  ".join(lines[:10])
            + f"{more}\n{layout.remedy(lines)}"
        )


def video_faults(layout: Layout) -> Iterator[tuple[EpisodeEntry, str, str]]:
    """Episode and camera whose video cannot be opened or ends before the episode does, by its own index, or
    whose span in it is also another episode's or begins between two frames: nothing is decoded."""
    users: dict[Path, list[tuple[EpisodeEntry, str, VideoSpan]]] = {}
    for entry in layout.episodes:
        for camera, span in entry.videos.items():
            users.setdefault(span.path, []).append((entry, camera, span))
    for path in sorted(users):
        try:
            file = VideoFile(path)
            last_s, first_s, rate_hz = file.last_frame_s, file.first_frame_s, file.rate_hz
            file.close()
        except DatasetError as error:
            yield from ((entry, camera, str(error)) for entry, camera, _ in users[path])
            continue
        message = (
            f"{path} has no whole frame after {max(last_s, 0):.3f} s, earlier than meta says: it is cut "
            "short, or another video."
        )
        for entry, camera, span in users[path]:
            off = (span.start_s - first_s) * rate_hz
            if last_s < span.start_s + (entry.length - 1.5) / layout.fps:
                yield entry, camera, message
            elif abs(off - round(off)) > _OFF_FRAME:
                yield (
                    entry,
                    camera,
                    f"{path}: episode {entry.number} begins at {span.start_s:.4f} s by {_EPISODES}, between "
                    f"two frames ({1 / rate_hz:.4f} s apart): which of them is meant? Correct it. {AGAIN}",
                )
        yield from _overlaps(layout, path, users[path])


def _overlaps(
    layout: Layout, path: Path, users: Sequence[tuple[EpisodeEntry, str, VideoSpan]]
) -> Iterator[tuple[EpisodeEntry, str, str]]:
    """Episodes of one video that are said to lie where another one does: one of them has wrong pictures."""
    ordered = sorted(users, key=lambda user: user[2].start_s)
    ends = [span.start_s + entry.length / layout.fps for entry, _, span in ordered]
    furthest = 0  # of those before
    for place, (second, _, begun) in enumerate(ordered):
        (first, camera, span), end_s = ordered[furthest], ends[furthest]
        furthest = max(furthest, place, key=lambda i: ends[i])
        if place and begun.start_s < end_s - 0.5 / layout.fps:
            message = (
                f"{path}: episode {first.number} lies at {span.start_s:.3f} to {end_s:.3f} s, episode "
                f"{second.number} begins at {begun.start_s:.3f} s, by {_EPISODES}: whose pictures are there? "
                f"Correct it. {AGAIN}"
            )
            yield first, camera, message
            yield second, camera, message


def row_faults(
    layout: Layout,
    tables: Tables,
    table: Path,
    entries: Sequence[EpisodeEntry],
    *,
    first: int = 0,
    last: int | None = None,
    tasks_too: bool = True,
) -> Iterator[Fault]:
    """Episodes whose rows in a table are too few, another's, out of order, or said to do something else.

    Args:
        layout: of the data set.
        tables: to read with.
        table: whose rows are looked at, ``first`` to before ``last`` (None: all).
        entries: the episodes in it.
        tasks_too: also whether what they are said to do is what ``meta`` says.

    Raises:
        DatasetError: the rows cannot be read.
    """
    rows = tables.num_rows(table)
    total = sum(entry.length for entry in entries)
    last = rows if last is None else min(rows, last)
    numbers = tables.values(table, "episode_index", first, last, 1)[:, 0]
    order = tables.values(table, "frame_index", first, last, 1)[:, 0]
    tasks = None
    if tasks_too and "task_index" in tables.names(table):
        tasks = tables.values(table, "task_index", first, last, 1)[:, 0]
    for entry in entries:
        begin = entry.row - first
        mine = slice(begin, begin + entry.length)
        strangers = np.flatnonzero((numbers[mine] != entry.number) & layout.is_v3)
        back = np.flatnonzero(np.diff(order[mine]) <= 0)
        if rows < entry.row + entry.length or (rows != total and not layout.is_v3):
            yield entry, _ragged(table, rows, total, entries)
        elif len(strangers):
            at = begin + int(strangers[0])
            message = (
                f"{table}: row {first + at} belongs to episode {numbers[at]}, expected {entry.number} from "
                "the lengths in meta/episodes: the episodes are ragged. Fetch the data set again."
            )
            yield entry, message
        elif len(back):
            at = begin + int(back[0])
            message = (
                f"{table}: frame_index goes from {order[at]} to {order[at + 1]} at row {first + at + 1} in "
                f"episode {entry.number}, it must rise: rows are out of order or damaged. {AGAIN}"
            )
            yield entry, message
        elif tasks is not None and (message := _other_task(layout, entry, tasks[mine])):
            yield entry, message


def _other_task(layout: Layout, entry: EpisodeEntry, numbers: np.ndarray) -> str:
    """What is wrong where the list of tasks has another instruction for an episode's rows than its own entry
    in ``meta``, which is the one that is used; empty where nothing is, or where that has none."""
    listed, own = (
        ("tasks.parquet", "meta/episodes") if layout.is_v3 else ("tasks.jsonl", "meta/episodes.jsonl")
    )
    for number in np.unique(numbers).tolist() if entry.tasks else ():
        text = layout.tasks.get(number)
        if text in entry.tasks:
            continue
        said = f"is {text!r}" if text is not None else f"is not there (it has {quoted(sorted(layout.tasks))})"
        says = ", ".join(map(repr, entry.tasks))
        return (
            f"{layout.root / 'meta' / listed}: task_index {number}, which the rows of episode {entry.number} "
            f"have ({entry.table.relative_to(layout.root)}), {said}; {own} says {says}. Which of them was "
            f"done? Correct the other. {AGAIN}"
        )
    return ""


def _alone(layout: Layout, tables: Tables, entry: EpisodeEntry, *, tasks_too: bool) -> Iterator[Fault]:
    """What is wrong with one episode of a table in which something cannot be read."""
    table, last = entry.table, entry.row + entry.length
    try:
        check_columns(layout, table, tables.names(table))
        yield from list(
            row_faults(layout, tables, table, [entry], first=entry.row, last=last, tasks_too=tasks_too)
        )
    except DatasetError as error:
        yield entry, str(error)


def _by_table(layout: Layout) -> dict[Path, list[EpisodeEntry]]:
    found: dict[Path, list[EpisodeEntry]] = {}
    for entry in layout.episodes:
        found.setdefault(entry.table, []).append(entry)
    return found


def _ragged(table: Path, rows: int, expected: int, entries: Sequence[EpisodeEntry]) -> str:
    what = f"its {len(entries)} episodes" if len(entries) > 1 else f"episode {entries[0].number}"
    return (
        f"{table} has {rows} rows, but meta states {expected} for {what}: the episodes are ragged. Fetch the "
        "data set again."
    )


def check_columns(layout: Layout, table: Path, there: list[str]) -> None:
    """Raise :class:`DatasetError` where a table's columns (``there``) are not those of ``meta/info.json``."""
    stated = {name for name, feature in layout.features.items() if feature.dtype != "video"}
    for kind, names in (("lacks", stated - set(there)), ("has unknown columns", set(there) - stated)):
        if names:
            raise DatasetError(
                f"{table} {kind} {quoted(sorted(names))}: 'features' in {layout.root / 'meta/info.json'} "
                f"lists {quoted(sorted(stated))}. Correct that list, or fetch the data set again."
            )
