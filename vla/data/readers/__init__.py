"""Readers of foreign formats, one a file, and the one door to all of them.

A reader is found by looking at the files, never at the name of the folder. It imports what it needs (pyarrow,
h5py) when it is used: the ``formats`` extra.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import cast

from vla.data.description import DatasetDescription, description_path
from vla.data.guard import GuardedDataset, reading
from vla.data.mapped import MappedSource
from vla.data.readers.known import LAYOUT_NAMES, known_description
from vla.data.remote import is_url
from vla.data.remote_copy import local_copy
from vla.data.source import EpisodeSource, RawDataset
from vla.data.store import EpisodeStore
from vla.data.store_header import is_store
from vla.errors import DatasetError, UndescribedError

#: Modules with ``recognise(path) -> bool`` (cheap, looks at files, never raises on foreign data) and
#: ``open_raw(path, *, skip_damaged, cameras, to_look) -> RawDataset``; the first that recognises it reads it.
READERS = ("lerobot", "rlds", "hdf5", "diffusion_policy")


def open_raw(
    path: str | Path,
    *,
    skip_damaged: bool = False,
    cameras: Collection[str] | None = None,
    to_look: bool = False,
) -> RawDataset:
    """A data set in its own format.

    Args:
        path: directory or file.
        skip_damaged: leave records, files and episodes out of which opening shows that they are damaged
            (missing, cut short, ragged; in RLDS every byte is checked); ``damaged`` of the data set lists
            them.
            What only shows when numbers and pictures are read is found by
            :func:`~vla.data.mixture.open_sources` and :func:`~vla.data.importing.import_dataset`.
        cameras: that are going to be read, by their stored names (None: all); pictures of the others need not
            be there.
        to_look: with ``skip_damaged``: keep episodes of which only a video or the instruction is in doubt,
            where the format tells (LeRobot); reading that video raises, ``damaged`` names the instruction.

    Raises:
        DatasetError: nothing there, no reader knows it, or whatever is wrong with the files; so does
            everything that is read of it later (``vla.data.guard``).
        UnknownNameError: a camera that the data set does not have.
        MissingExtraError: the library that reads this format is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"There is nothing at {path}.")
    for name in READERS:
        module = importlib.import_module(f"vla.data.readers.{name}")
        with reading(path):
            if module.recognise(path):
                opened = cast(Callable[..., RawDataset], module.open_raw)
                return GuardedDataset(
                    opened(path, skip_damaged=skip_damaged, cameras=cameras, to_look=to_look)
                )
    raise DatasetError(
        f"{path} is none of the known formats: our zarr (zarr.json), LeRobotDataset v2.1 or v3.0 "
        "(meta/info.json), RLDS (*.tfrecord* and features.json), HDF5 of robomimic, LIBERO or ALOHA "
        "(*.hdf5, *.h5), diffusion-policy zarr (data/ and meta/episode_ends). Give the folder with these."
    )


def open_source(
    path: str | Path,
    description: str | Path | DatasetDescription | None = None,
    *,
    tolerate_damage: bool = False,
    instruction: str = "",
    skip_damaged: bool = False,
    cameras: Collection[str] | None = None,
    to_look: bool = False,
) -> EpisodeSource:
    """Demonstrations at ``path``, in our zarr or any format that a reader knows.

    Args:
        path: a directory or file, or a URL that fsspec knows (``s3://...``). Our own store is read where it
            is, range by range; other formats are fetched once, see :func:`~vla.data.remote_copy.local_copy`.
        description: what its columns mean; None: the file beside the data
            (``vla.data.description.description_path``), else what is known of this layout.
        tolerate_damage: open what can be read, for checks and repairs: what is damaged or missing is left
            out and named (``vla.data.damage.damaged_episodes``), instructions may be empty and numbers may
            not be finite.
        instruction: said of every episode of a foreign format that has none of its own.
        skip_damaged: leave damaged episodes out; see :func:`open_raw` and :meth:`EpisodeStore.open`.
        cameras: of a foreign format that are read, by their stored names (None: those that the description
            names, all where there is none); files of the others need not be there.
        to_look: for people who look at them, instructions may be empty and time stamps need not rise; with
            ``tolerate_damage``, see :func:`open_raw`.

    Raises:
        DatasetError: the data cannot be read, or nobody says what the columns mean.
    """
    if is_store(path):
        if description is not None or cameras is not None or instruction:
            raise DatasetError(
                f"{path} is our own store, which carries its embodiments, cameras and instructions: give "
                "neither a description nor cameras nor an instruction."
            )
        return EpisodeStore.open(path, tolerate_damage=tolerate_damage, skip_damaged=skip_damaged)
    path = local_copy(str(path)) if is_url(path) else Path(path)
    given, told_by = _given(path, description)
    wanted = [rule.column for rule in given.cameras] if given is not None and cameras is None else cameras
    raw = open_raw(path, skip_damaged=skip_damaged or tolerate_damage, cameras=wanted, to_look=to_look)
    meaning = given or _known(raw, path)
    told_by = told_by or f"the published layout of {LAYOUT_NAMES[raw.format]}, known by its content"
    if cameras is not None:
        meaning = meaning.with_cameras(cameras)
    if instruction:
        meaning = replace(meaning, instruction=instruction)
    return MappedSource(raw, meaning, tolerate_damage=tolerate_damage, to_look=to_look, told_by=told_by)


def open_to_look(
    path: str | Path,
    description: str | Path | DatasetDescription | None = None,
    *,
    tolerate_damage: bool = False,
    cameras: Collection[str] | None = None,
) -> EpisodeSource:
    """As :func:`open_source`, also without instructions; where nobody says what the columns mean, they are
    shown as they are stored (:class:`~vla.data.undescribed.UndescribedSource`)."""
    try:
        return open_source(path, description, tolerate_damage=tolerate_damage, cameras=cameras, to_look=True)
    except UndescribedError:
        from vla.data.undescribed import UndescribedSource

        path = local_copy(str(path)) if is_url(path) else Path(path)
        return UndescribedSource(open_raw(path, skip_damaged=tolerate_damage, cameras=cameras, to_look=True))


def _given(
    path: Path, description: str | Path | DatasetDescription | None
) -> tuple[DatasetDescription | None, str]:
    """What somebody said of the columns, here or in the file beside the data; and who."""
    if isinstance(description, DatasetDescription):
        return description, "the program that opened it"
    if description is not None:
        return DatasetDescription.load(description), f"the embodiment file {description}"
    beside = description_path(path)
    if not beside.exists():
        return None, ""
    return DatasetDescription.load(beside), f"the embodiment file beside the data, {beside.name}"


def _known(raw: RawDataset, path: Path) -> DatasetDescription:
    known = known_description(raw)
    if known is None:
        columns = ", ".join(f"{c.name} [{c.size}]" for c in raw.columns.values())
        raise UndescribedError(
            f"{path} ({raw.format}) has the columns {columns}, and nothing says what they mean. "
            f"'vla data solve {path} --write' finds out what it can: it writes {description_path(path)}, or "
            "a draft of what you would have to say; or write that file yourself."
        )
    return known
