"""Steps per second: what the file states, what its time stamps say, what the simulator runs at.

A rate that only one of them tells is passed on, as stated and with little confidence: nothing contradicts it
and nothing confirms it.
"""

from __future__ import annotations

import numpy as np

from vla.data.solve.answers import Answer, accept, refuse
from vla.data.solve.robot import RobotModel
from vla.data.solve.tracks import Tracks
from vla.data.source import RawDataset

_AGREE = 0.03
#: Formats whose writers make the time stamps from the rate.
_STAMPED_BY_RATE = ("lerobot_v3", "lerobot_v2")


def rate_answer(raw: RawDataset, tracks: Tracks, robot: RobotModel | None) -> Answer:
    """Question ``control_hz``. Sources that contradict each other are settled by a third or refused."""
    question = "control_hz"
    stamps = _stamp_rate(raw, tracks)
    if stamps is not None and stamps <= 0:
        return refuse(question, "the time stamps do not increase")
    sources = {
        "the time stamps": stamps,
        "the file": raw.control_hz,
        "the simulator": robot.control_hz if robot is not None else None,
    }
    if raw.format in _STAMPED_BY_RATE and stamps and raw.control_hz and _same(stamps, raw.control_hz):
        del sources["the time stamps"]  # made from the stated rate: the same source
    known = {name: hz for name, hz in sources.items() if hz}
    said = ", ".join(f"{name}: {hz:.4g} Hz" for name, hz in known.items())
    if not known or set(known) == {"the simulator"}:
        return refuse(question, "neither time stamps nor a stated rate", said)
    votes = {name: sum(_same(hz, other) for other in known.values()) for name, hz in known.items()}
    best = max(votes, key=lambda name: votes[name])
    said_hz = float(raw.control_hz or round(known[best], 3))
    if votes[best] == len(known):
        alone = " (alone: nothing confirms it)" if len(known) == 1 else ""
        return accept(question, said_hz, min(0.95, 0.35 + 0.25 * len(known)), said + alone)
    if votes[best] > len(known) / 2:
        return accept(question, round(known[best], 3), 0.7, f"{said}: two of three agree")
    return refuse(question, "the sources contradict each other", said)


def _stamp_rate(raw: RawDataset, tracks: Tracks) -> float | None:
    """From the median gap; None without stamps."""
    gaps = []
    for number in tracks.numbers:
        times = raw.time_s(number)
        if times is None:
            return None
        gaps.append(np.diff(times))
    gap = float(np.median(np.concatenate(gaps))) if gaps else 0.0
    return 1.0 / gap if gap > 0 else (0.0 if gaps else None)


def _same(a: float, b: float) -> bool:
    return abs(a / b - 1) < _AGREE
