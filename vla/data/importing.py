"""Any demonstrations -> our episode store, an episode at a time; what was begun goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from vla.data.codec import JpegCodec
from vla.data.damage import damage_lines
from vla.data.mixture import held_fields, stated_ranges
from vla.data.source import EpisodeSource, check_rising, episode_name, read_episode
from vla.data.store import EpisodeStore
from vla.data.summary import left_out
from vla.embodiment import Embodiment
from vla.errors import ConfigError, DatasetError, ObservationError, StoreError
from vla.files import exclusive
from vla.text import sentence
from vla.types import Episode


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import left behind; ``skipped`` says why episodes are not in the store, a line for each or for
    those with the same fault."""

    path: Path
    num_episodes: int
    num_steps: int
    skipped: tuple[str, ...]


MAX_IMAGE_SIZE = 4096


def check_settings(*, jpeg_quality: int | None, image_size: int | None) -> None:
    """Raise :class:`ConfigError` for what no picture can have; before anything is opened."""
    JpegCodec(quality=jpeg_quality)
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(
            f"Image size is {image_size}, expected 1..{MAX_IMAGE_SIZE} pixels a side, or none: as stored."
        )


def import_dataset(
    source: EpisodeSource,
    out: str | Path,
    *,
    episodes: Sequence[int] | None = None,
    jpeg_quality: int = 95,
    image_size: int | None = None,
    skip_damaged: bool = False,
    progress: bool = False,
) -> Imported:
    """Append the episodes of ``source`` that are not there yet to the store ``out``, made if need be.

    Args:
        source: not closed.
        out: directory of the store; one that holds an import of the same data with the same settings is
            completed, anything else there is refused.
        episodes: numbers in the source (None: all).
        jpeg_quality: 1..100 of the pictures (:class:`~vla.data.codec.JpegCodec`).
        image_size: area-resize pictures to this many pixels a side, squeezed to a square; None: as they are.
        skip_damaged: leave episodes that cannot be read out and report them.
        progress: show a bar.

    Raises:
        ConfigError: a quality or size that no picture has.
        DatasetError: a damaged episode (unless skipped), not one episode that is sound (nothing is left at
            ``out`` then), or ``out`` holds something else.
    """
    check_settings(jpeg_quality=jpeg_quality, image_size=image_size)
    out = Path(out)
    facts = {
        "dataset": Path(source.path).name,
        "index_crc32c": source.index_checksum(),
        "jpeg_quality": jpeg_quality,
        "image_size": image_size,
    }
    arms = {name: _resized(arm, image_size) for name, arm in source.embodiments.items()}
    faults: list[tuple[int | None, str]] = []
    wanted = range(len(source)) if episodes is None else episodes
    provenance = {"import": facts, "ranges": stated_ranges(source), "held": sorted(held_fields(source))}
    if left := left_out(source):
        provenance["left_out"] = left
    with exclusive(out, "importing"), _store(out, provenance, arms, jpeg_quality) as store:
        there = {info.provenance.get("source_episode") for info in store.episodes}
        for index in tqdm([i for i in wanted if i not in there], disable=not progress, unit="episode"):
            try:
                episode = _read(source, index)
            except (DatasetError, StoreError, ObservationError) as error:
                if not skip_damaged:
                    raise DatasetError(
                        f"Episode {index} of {source.path} cannot be imported: {sentence(error)} "
                        "--skip-damaged leaves such episodes out; those before it are in the store."
                    ) from error
                faults.append((index, str(error)))
                continue
            store.append(_shrunk(episode, image_size))
        skipped = tuple(damage_lines(faults))
        if not len(store):
            why = "".join(f"\n  - {line}" for line in skipped[:5]) or " It has none."
            raise DatasetError(f"No episode of {source.path} could be imported, nothing was written:{why}")
        num_steps = sum(info.length for info in store.episodes)
        return Imported(path=out, num_episodes=len(store), num_steps=num_steps, skipped=skipped)


@contextmanager
def _store(
    out: Path, provenance: dict[str, Any], arms: dict[str, Embodiment], quality: int
) -> Iterator[EpisodeStore]:
    """The store that was begun, or a new one that is removed again if nothing comes into it."""
    if not (out / "zarr.json").exists():
        with EpisodeStore.create(
            out,
            embodiments=arms.values(),
            provenance=provenance,
            codec=JpegCodec(quality=quality),
        ) as store:
            try:
                yield store
            finally:
                if not len(store):
                    shutil.rmtree(out)
        return
    store = EpisodeStore.open(out)
    began, facts = store.provenance.get("import"), provenance["import"]
    if began != facts:
        store.close()
        raise DatasetError(
            f"{out} holds {_difference(began, facts) if began else 'other demonstrations'}: give another "
            "path, or remove it. The same data with the same settings go on where their import stopped."
        )
    with store:
        yield store


_SETTINGS = {"dataset": "data set", "jpeg_quality": "JPEG quality", "image_size": "image size"}


def _difference(began: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What an import was begun with, and what is different now."""
    found = [
        f"{name} {_said(began.get(key))} (now {_said(facts[key])})"
        for key, name in _SETTINGS.items()
        if began.get(key) != facts[key]
    ]
    if began.get("index_crc32c") != facts["index_crc32c"]:
        found.append("other content, another description or other cameras (by their fingerprint)")
    return f"an import with {', '.join(found)}"


def _said(value: object) -> str:
    return "as stored" if value is None else str(value)


def _read(source: EpisodeSource, index: int) -> Episode:
    check_rising(source.column(index, "time_s"), episode_name(source, index))
    episode = read_episode(source, index)
    return replace(episode, provenance={**episode.provenance, "source_episode": index})


def _resized(arm: Embodiment, image_size: int | None) -> Embodiment:
    if image_size is None:
        return arm
    cameras = tuple(replace(camera, height=image_size, width=image_size) for camera in arm.cameras)
    return replace(arm, cameras=cameras)


def _shrunk(episode: Episode, image_size: int | None) -> Episode:
    if image_size is None:
        return episode
    steps = []
    for step in episode.steps:
        images = {
            name: cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_AREA)
            for name, image in step.observation.images.items()
        }
        steps.append(replace(step, observation=replace(step.observation, images=images)))
    return replace(episode, steps=tuple(steps))
