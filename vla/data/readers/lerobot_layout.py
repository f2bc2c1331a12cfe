"""What the ``meta`` folder of a LeRobotDataset says: features, tasks, and where each episode lies.

::

    v3.0  meta/info.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
          data/chunk-000/file-000.parquet                        several episodes a file
          videos/<camera>/chunk-000/file-000.mp4                 start of each episode in meta/episodes
    v2.1  meta/info.json  meta/tasks.jsonl    meta/episodes.jsonl
          data/chunk-000/episode_000000.parquet
          videos/chunk-000/<camera>/episode_000000.mp4
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla.data.damage import LEAVE_OUT, damage_lines, spans, without_advice
from vla.data.guard import reading
from vla.data.readers.lerobot_meta import (
    FETCH,
    EpisodeEntry,
    Feature,
    episodes_v2,
    episodes_v3,
    read_feature,
    tasks_v2,
    tasks_v3,
)
from vla.errors import DatasetError
from vla.files import read_json
from vla.text import quoted, sentence

V2, V3 = ("v2.0", "v2.1"), ("v3.0",)
_BLIND = (
    "read without a camera whose videos are not whole: --cameras with the names of the others ('' for none), "
    "or a description whose 'cameras' do not name it."
)
NUMERIC = (
    "float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All of ``meta``; ``tasks`` are the instructions by ``task_index``."""

    root: Path
    version: str
    fps: float
    robot: str | None
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    episodes: Sequence[EpisodeEntry]

    @property
    def is_v3(self) -> bool:
        return self.version in V3

    def remedy(self, said: Iterable[str], *, all_damaged: bool = False) -> str:
        """What to do where files cannot be read, as ``said``; cameras are spoken of where videos are."""
        videos = {str(span.path) for entry in self.episodes for span in entry.videos.values()}
        seen = any(video in line for line in said for video in videos)
        again = "Fetch them again, whole (Git LFS?)"
        ways = [again] if all_damaged else [again, LEAVE_OUT.removesuffix(".")]
        return ", or ".join([*ways, _BLIND]) if seen else f"{', or '.join(ways)}."


def read_layout(
    root: Path,
    damaged: list[str] | None = None,
    wanted: Collection[str] | None = None,
    *,
    to_look: bool = False,
) -> Layout:
    """Read ``meta``.

    Args:
        root: of the data set.
        damaged: where given, episodes that lack files or contradict themselves are left out and named there.
        wanted: cameras whose videos must be there; None: all.
        to_look: keep episodes of which only videos are missing.

    Raises:
        DatasetError: another version, mixed layouts, missing files.
    """
    file = root / "meta/info.json"
    info = read_json(file, DatasetError, "Give the folder that has 'meta', 'data' and 'videos' in it.")
    version = info.get("codebase_version")
    if version not in (*V2, *V3):
        raise DatasetError(
            f"{file}: codebase_version is {version!r}; this package reads {', '.join((*V2, *V3))}. Convert "
            "the data set with lerobot's own script."
        )
    _refuse_mixture(root, version)
    try:
        fps, features = float(info["fps"]), {k: read_feature(k, v) for k, v in info["features"].items()}
        templates = (
            _template(info, "data_path"),
            _template(info, "video_path") if info.get("video_path") else "",
        )
        chunks = int(info.get("chunks_size", 1000))
        if fps <= 0 or chunks <= 0:
            raise ValueError(f"fps {fps}, chunks_size {chunks}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else sentence(error).rstrip(".")
        raise DatasetError(f"{file} is damaged or incomplete: {said}. {FETCH}") from error
    cameras = [
        name
        for name, feature in features.items()
        if feature.dtype == "video" and feature.is_camera and (wanted is None or name in wanted)
    ]
    with reading(root / "meta", f"list of episodes and tasks of {version}"):
        if version in V3:
            tasks, episodes = tasks_v3(root), episodes_v3(root, templates, cameras)
        else:
            tasks, episodes = tasks_v2(root), episodes_v2(root, templates, cameras, chunks)
    layout = Layout(
        root=root,
        version=version,
        fps=fps,
        robot=info.get("robot_type"),
        features=features,
        tasks=tasks,
        episodes=episodes,
    )
    _check(layout, info)
    if damaged is None:
        _check_entries(layout)
        return layout
    return leave_out(layout, _entry_faults(layout, videos=not to_look), damaged)


#: What the paths of ``info.json`` may name.
_PLACES = ("chunk_index", "file_index", "episode_index", "episode_chunk", "video_key")


def _template(info: Mapping[str, Any], key: str) -> str:
    """A path of ``info.json`` that names files by number; raises ValueError where it cannot."""
    template = str(info[key])
    try:
        path = Path(template.format(**dict.fromkeys(_PLACES, 0)))
    except (LookupError, ValueError) as error:
        raise ValueError(f"{key} {template!r} names files by {error}; known are {quoted(_PLACES)}") from error
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{key} {template!r} leads out of the data set")
    return template


def leave_out(layout: Layout, faults: Iterator[tuple[EpisodeEntry, str]], damaged: list[str]) -> Layout:
    """The same without the episodes that have a fault; what is said of them is added to ``damaged``."""
    found = [(entry.number, message) for entry, message in faults]
    damaged += damage_lines(found)
    gone = {number for number, _ in found}
    kept = [entry for entry in layout.episodes if entry.number not in gone]
    if not kept:
        lines = [without_advice(line) for line in damaged[:5]]
        more = f"\n  and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise DatasetError(
            f"Every episode of {layout.root} is damaged:\n  "
            + "\n  ".join(lines)
            + f"{more}\n{layout.remedy(damaged, all_damaged=True)}"
        )
    return replace(layout, episodes=kept)


def _refuse_mixture(root: Path, version: str) -> None:
    meta = root / "meta"
    old, new = (meta / "episodes.jsonl").is_file(), (meta / "episodes").is_dir()
    if old and new:
        raise DatasetError(
            f"{meta} has episodes.jsonl (v2) and episodes/ (v3): two versions are mixed. info.json says "
            f"{version}; remove the files of the other one."
        )
    wrong, here, expected = (
        (old, "episodes.jsonl (v2)", "episodes/")
        if version in V3
        else (new, "episodes/ (v3)", "episodes.jsonl")
    )
    if wrong:
        raise DatasetError(
            f"{meta / 'info.json'} says {version}, which has {expected}, but {meta} has {here}: versions are "
            "mixed. Fetch the data set again in one version, or correct codebase_version."
        )
    if not (old or new):
        raise DatasetError(f"{meta / expected} is missing (info.json says {version}). {FETCH}")


def _check(layout: Layout, info: Mapping[str, Any]) -> None:
    file, entries = layout.root / "meta/info.json", layout.episodes
    if not entries:
        raise DatasetError(f"{layout.root / 'meta'} lists no episodes.")
    numbers = [entry.number for entry in entries]
    if len(set(numbers)) != len(numbers):
        twice = sorted(n for n in set(numbers) if numbers.count(n) > 1)
        raise DatasetError(f"{layout.root / 'meta'} lists episode {spans(twice)} more than once. {FETCH}")
    if info.get("total_episodes", len(entries)) != len(entries):
        raise DatasetError(
            f"{file} states {info['total_episodes']} episodes, {layout.root / 'meta'} lists {len(entries)}. "
            f"{FETCH}"
        )


def _check_entries(layout: Layout) -> None:
    for _, message in _contradictions(layout):
        raise DatasetError(message)
    files = {path for entry in layout.episodes for path in entry.files}
    missing = sorted(str(path) for path in files if not path.is_file())
    if missing:
        shown = "".join(f"\n  - {Path(path).relative_to(layout.root)}" for path in missing[:20])
        more = f"\n  and {len(missing) - 20} more" if len(missing) > 20 else ""
        raise DatasetError(
            f"{len(missing)} of {len(files)} files of {layout.root} are missing (of {layout.version}, as "
            f"meta/info.json says):{shown}{more}\n{layout.remedy(missing)}"
        )


def _entry_faults(layout: Layout, *, videos: bool) -> Iterator[tuple[EpisodeEntry, str]]:
    yield from _contradictions(layout)
    missing = {path for entry in layout.episodes for path in entry.files if not path.is_file()}
    for entry in layout.episodes:
        needed = entry.files if videos else [entry.table]
        yield from ((entry, f"{path} is missing") for path in needed if path in missing)


def _contradictions(layout: Layout) -> Iterator[tuple[EpisodeEntry, str]]:
    for entry in layout.episodes:
        where = f"Episode {entry.number} of {layout.root}"
        if entry.length < 1:
            yield entry, f"{where} has {entry.length} steps."
        for camera, video in entry.videos.items():
            if video.end_s is None or (video.end_s - video.start_s) * layout.fps >= entry.length - 0.5:
                continue
            span = f"{video.end_s - video.start_s:.3f} s of video {camera!r} ({video.path})"
            yield entry, f"{where} has {entry.length} steps at {layout.fps:g} Hz, but {span}. {FETCH}"
