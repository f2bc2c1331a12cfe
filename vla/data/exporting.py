"""Any demonstrations -> LeRobotDataset v3.0, as lerobot 0.6.1 writes it itself, without lerobot.

::

    out/embodiment.json                          what the columns mean, so that reading it back maps exactly
    out/meta/info.json  stats.json  tasks.parquet  episodes/chunk-000/file-000.parquet
    out/data/chunk-000/file-000.parquet          a row group an episode
    out/videos/observation.images.front/chunk-000/file-000.mp4

``observation.state`` and ``action`` are the embodiment's fields side by side. Beside what lerobot knows there
is ``time_s`` (its own ``timestamp`` is frame_index / fps, as it demands), ``executed`` where it differs from
the label, ``aux.<key>``, and in ``meta/episodes`` ``success`` and ``provenance``: no policy of lerobot takes
columns of these names for an input. Numbers are kept bit for bit; every page of a table has its checksum, and
``crc32c`` in ``meta/episodes`` has one of each column of numbers of an episode, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from tqdm import tqdm

from vla.data.description import description_path
from vla.data.lerobot_features import export_description, exported_features
from vla.data.lerobot_files import DataFiles, MetaFiles, VideoTrack
from vla.data.lerobot_stats import PixelCounts, counted_steps
from vla.data.mixture import held_fields, stated_ranges
from vla.data.source import EpisodeInfo, EpisodeSource, Frames, check_rising, episode_name
from vla.data.video import VideoSettings
from vla.embodiment import Embodiment
from vla.errors import ConfigError, DatasetError, UnknownNameError
from vla.files import written_whole

ImageStorage = Literal["video", "image"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written; ``pictures`` is how: ``av1``, ``h264`` or ``png``."""

    path: Path
    embodiment: str
    num_episodes: int
    num_steps: int
    pictures: str


def export_lerobot(
    source: EpisodeSource,
    out: Path,
    *,
    embodiment: str | None = None,
    image_storage: ImageStorage = "video",
    fps: float | None = None,
    settings: VideoSettings | None = None,
    progress: bool = False,
) -> Exported:
    """Write the episodes of one embodiment; ``out`` is whole once it is there.

    Args:
        source: the demonstrations.
        out: folder to make; one that exists is never replaced.
        embodiment: whose episodes; needed where the source holds several (LeRobot has one set of features).
        image_storage: ``video`` (lossy, small) or ``image`` (PNG, exact).
        fps: rate that the data set states; default: the embodiment's control rate.
        settings: of the video.
        progress: show a bar.

    Raises:
        ConfigError: a rate that is not positive.
        DatasetError: ``out`` exists, several embodiments and none named, no episodes, or time stamps that do
            not rise.
    """
    if image_storage not in get_args(ImageStorage):
        raise UnknownNameError("image storage", image_storage, get_args(ImageStorage))
    check_fps(fps)
    if out.exists():
        raise DatasetError(f"{out} exists and is not replaced: give another path, or remove it.")
    arm = _choose(source, embodiment)
    settings = settings or VideoSettings()
    with written_whole(out) as begun:
        writer = _Writer(source, begun, arm, fps or arm.control_hz, image_storage, settings)
        infos = [info for info in source.episodes if info.embodiment == arm.name]
        for info in tqdm(infos, desc=out.name, disable=not progress):
            writer.append(info)
        return writer.close(out)


MAX_FPS = 1000.0


def check_fps(fps: float | None) -> None:
    """Raise :class:`ConfigError` for a rate that no data set has; before anything is opened."""
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise ConfigError(
            f"The rate is {fps:g}, expected more than 0 and at most {MAX_FPS:g} per second; or none: the "
            "embodiment's control rate."
        )


class _Writer:
    """Episodes into the files of one data set."""

    def __init__(
        self,
        source: EpisodeSource,
        root: Path,
        arm: Embodiment,
        fps: float,
        image_storage: ImageStorage,
        settings: VideoSettings,
    ) -> None:
        self._source, self._root, self._arm, self._fps = source, root, arm, fps
        mine = [info for info in source.episodes if info.embodiment == arm.name]
        self._executed = any(_differs(source, info) for info in mine)
        self._aux = _aux_sizes(source, mine)
        self._pixels = {camera.name: PixelCounts() for camera in arm.cameras}
        self._tracks = {
            camera.name: VideoTrack(
                root, f"observation.images.{camera.name}", (camera.height, camera.width), fps, settings
            )
            for camera in (arm.cameras if image_storage == "video" else ())
        }
        self._pictures = settings.codec if self._tracks else "png"
        self._features = exported_features(
            arm,
            executed=self._executed,
            aux=self._aux,
            videos={name: track.info for name, track in self._tracks.items()},
        )
        self._data = DataFiles(root, self._features)
        self._meta = MetaFiles(root)

    def append(self, info: EpisodeInfo) -> None:
        """One episode: its pictures, its rows, its line in ``meta``."""
        columns = self._columns(info)
        tables: dict[str, Any] = {}
        places: dict[str, Any] = {}
        pixels: dict[str, Any] = {}
        for camera in self._arm.cameras:
            key = f"observation.images.{camera.name}"
            frames, counts = self._frames(info, camera.name), PixelCounts()
            if camera.name in self._tracks:
                places.update(self._tracks[camera.name].append(frames, counts))
            else:
                tables[key] = _encode_png(frames, counts)
            self._pixels[camera.name].merge(counts)
            pixels[key] = counts.stats()
        rows = self._meta.start(columns, info, self._fps)
        places.update(self._data.append({**rows, **tables}))
        self._meta.finish(info, rows, pixels, places)

    def close(self, out: Path) -> Exported:
        """Finish every file; ``out`` is what the folder will be called."""
        for track in self._tracks.values():
            track.close()
        self._data.close()
        pictures = {f"observation.images.{name}": counts.stats() for name, counts in self._pixels.items()}
        fps = int(self._fps) if float(self._fps).is_integer() else self._fps
        facts = {"fps": fps, "robot_type": self._arm.name, "features": self._features}
        self._meta.close(facts, pictures, videos=bool(self._tracks))
        description = export_description(
            self._arm,
            executed=self._executed,
            aux=list(self._aux),
            ranges=stated_ranges(self._source),
            held=held_fields(self._source),
        )
        description.save(description_path(self._root))
        return Exported(
            path=out,
            embodiment=self._arm.name,
            num_episodes=self._meta.num_episodes,
            num_steps=self._meta.num_steps,
            pictures=self._pictures,
        )

    def _columns(self, info: EpisodeInfo) -> dict[str, np.ndarray]:
        """Feature name -> [T n], in the stored type."""
        source, there = self._source, self._source.columns(info.index)
        columns: dict[str, np.ndarray] = {}
        if self._arm.state_dim:
            columns["observation.state"] = source.column(info.index, "state")
        columns["action"] = source.column(info.index, "action")
        if self._executed:
            columns["executed"] = source.column(info.index, "executed")
        columns["time_s"] = source.column(info.index, "time_s").astype(np.float64)[:, None]
        check_rising(columns["time_s"][:, 0], episode_name(source, info.index))
        for key, size in self._aux.items():
            unknown = np.full((info.length, size), np.nan, np.float32)
            columns[f"aux.{key}"] = (
                source.column(info.index, f"aux/{key}") if f"aux/{key}" in there else unknown
            )
        return columns

    def _frames(self, info: EpisodeInfo, camera: str) -> Frames:
        if camera not in self._source.cameras(info.index):
            raise DatasetError(
                f"Episode {info.index} of {self._source.path} has no camera {camera!r}; LeRobot needs every "
                "camera in every episode. Export the others into a data set of their own."
            )
        return self._source.frame_reader(info.index, camera)


def _choose(source: EpisodeSource, embodiment: str | None) -> Embodiment:
    names = sorted({info.embodiment for info in source.episodes})
    if not names:
        raise DatasetError(f"{source.path} has no episodes to export.")
    if embodiment is None:
        if len(names) > 1:
            raise DatasetError(
                f"{source.path} holds {len(names)} embodiments ({', '.join(names)}), and a LeRobot data set "
                "has one set of features: name one (--embodiment), one folder each."
            )
        return source.embodiments[names[0]]
    if embodiment not in names:
        raise UnknownNameError(f"embodiment of {source.path}", embodiment, names)
    return source.embodiments[embodiment]


def _differs(source: EpisodeSource, info: EpisodeInfo) -> bool:
    action, executed = source.column(info.index, "action"), source.column(info.index, "executed")
    return action.tobytes() != executed.tobytes()


def _aux_sizes(source: EpisodeSource, infos: Sequence[EpisodeInfo]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for info in infos:
        for name in source.columns(info.index):
            key = name.removeprefix("aux/")
            if key != name and key not in sizes:
                sizes[key] = source.column(info.index, name).shape[1]
    return sizes


def _encode_png(frames: Frames, counts: PixelCounts) -> list[dict[str, Any]]:
    """Every picture as PNG, in the form of Hugging Face's Image."""
    picture, cells = np.empty((*frames.shape, 3), np.uint8), []
    counted = counted_steps(len(frames))
    for step in range(len(frames)):
        frames.read(step, picture)
        if step in counted:
            counts.add(picture)
        _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        cells.append({"bytes": data.tobytes(), "path": f"frame-{step:06d}.png"})
    return cells
