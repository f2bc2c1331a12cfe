"""An episode as a Rerun recording (``.rrd``), for the viewer of that name; needs the ``rerun`` extra."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.check.signals import slices
from vla.data.source import EpisodeSource
from vla.errors import MissingExtraError


def write_recording(source: EpisodeSource, index: int, path: str | Path) -> Path:
    """Write cameras, state, action and instruction of one episode on the timelines ``step`` and ``time``.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
    """
    rr = _rerun()
    info = source.episodes[index]
    arm = source.embodiments[info.embodiment]
    recording = rr.RecordingStream("vla", recording_id=f"{Path(str(source.path)).name}-{index}")
    recording.save(str(path))
    recording.log("instruction", rr.TextDocument(info.instruction), static=True)
    time_s = source.column(index, "time_s")
    columns = {name: source.column(index, name) for name in ("state", "action", "executed")}
    fields = {"state": arm.state, "action": arm.action, "executed": arm.action}
    readers = {camera: source.frame_reader(index, camera) for camera in source.cameras(index)}
    for step in range(info.length):
        recording.set_time("step", sequence=step)
        recording.set_time("time", duration=float(time_s[step]))
        for camera, reader in readers.items():
            picture = np.empty((*reader.shape, 3), np.uint8)
            reader.read(step, picture)
            recording.log(f"cameras/{camera}", rr.Image(picture).compress(jpeg_quality=90))
        for column, values in columns.items():
            for member, place in slices(fields[column]):
                recording.log(f"{column}/{member.name}", rr.Scalars(values[step, place].astype(float)))
    recording.flush()
    recording.disconnect()
    return Path(path)


def _rerun() -> Any:
    try:
        return importlib.import_module("rerun")
    except ModuleNotFoundError as error:
        if error.name != "rerun":  # it is there, and something that it needs is not
            raise MissingExtraError(str(error.name), "rerun", "A Rerun recording") from error
        raise MissingExtraError("rerun-sdk", "rerun", "A Rerun recording") from None
