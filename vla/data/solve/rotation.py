"""How the state writes the tool's orientation: read it every way and see which one turns as the arm does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.conversion import read_rotation
from vla.data.description import ROTATION_SIZES
from vla.data.solve.answers import Answer, accept, confidence_of, refuse
from vla.data.solve.kinematics import place
from vla.data.solve.tracks import Block, Tracks

FORMATS = (
    "quat_xyzw", "quat_wxyz", "rotvec", "euler_xyz", "euler_zyx", "euler_XYZ", "euler_ZYX", "matrix",
    "matrix_6d",
)  # fmt: skip
_SAMPLES = 200
_TURNED_RAD = 0.02  # an arm that turns less shows no rotation format


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A block read as rotations."""

    block: Block
    format: str
    unit: str

    def value(self) -> dict[str, object]:
        return {**place(self.block), "format": self.format}


def readings(tracks: Tracks, column: str, *, without: tuple[Block | None, ...]) -> Iterator[Reading]:
    """Every block that could be a rotation, in every format and unit that its numbers allow."""
    for written in FORMATS:
        for block in tracks.blocks(column, ROTATION_SIZES[written], without=without):
            values = tracks.stacked(block)
            for unit in ("rad", "deg"):
                if _possible(values, written, unit):
                    yield Reading(block=block, format=written, unit=unit)


def read(values: np.ndarray, reading: Reading) -> Rotation:
    return read_rotation(values * (np.pi / 180 if reading.unit == "deg" else 1.0), reading.format)


def rotations(tracks: Tracks, reading: Reading) -> list[Rotation]:
    """One for each episode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [read(part, reading) for part in tracks.parts(reading.block)]


def rotation_from_arm(
    tracks: Tracks, turned: Rotation, without: tuple[Block | None, ...]
) -> tuple[Reading | None, list[Answer]]:
    """Questions ``rotation``, ``rotation_unit``, ``rotation_sign_flips`` from the arm's own orientation.

    A reading is right when it differs from the orientation that the joints give by one fixed turn (of the
    tool frame); the spread about that turn is compared with how far the arm turns at all.

    Args:
        turned: orientation by forward kinematics at every step, in the data's frame.
        without: blocks that are known to be something else.
    """
    rows = np.linspace(0, len(turned) - 1, min(len(turned), _SAMPLES)).astype(int)
    reference = Rotation.from_quat(turned.as_quat()[rows])
    motion = _spread(reference)
    candidates = [r for c in tracks.state_columns for r in readings(tracks, c, without=without)]
    if not candidates:
        return None, _refused("no entries of the state can be a rotation")
    if motion < _TURNED_RAD:
        return None, _refused(f"the tool turns by {np.rad2deg(motion):.2f} deg only")
    left = [(_spread(reference.inv() * _read_rows(tracks, r, rows)), r) for r in candidates]
    return _choose(tracks, left, motion, len(turned), "forward kinematics")


def rotation_from_action(
    tracks: Tracks, turns: list[np.ndarray], without: tuple[Block | None, ...], frame: str, lag: int
) -> tuple[Reading | None, list[Answer]]:
    """The same questions without a robot model: the reading whose turns follow those in the action.

    Args:
        turns: the action's rotation entries [T 3] of each episode.
        frame: ``world`` or ``tool``, of the action.
    """
    candidates = [r for c in tracks.state_columns for r in readings(tracks, c, without=without)]
    if not candidates:
        return None, _refused("no entries of the state can be a rotation")
    scored = []
    for reading in candidates:
        x, y = turning(rotations(tracks, reading), turns, frame, lag)
        scored.append((explained(x, y), reading, len(x)))
    scored.sort(key=lambda item: -item[0])
    score, best, count = scored[0]
    second = next((s for s, r, _ in scored[1:] if r.block != best.block or r.format != best.format), 0.0)
    said = (
        f"turns follow the action's ({100 * score:.0f} % explained, next {100 * max(second, 0):.0f} %), "
        f"{count} steps"
    )
    sure = confidence_of(score, second, count)
    found = accept("rotation", best.value(), sure, said, "several readings follow the action alike")
    if found.refused:
        return None, _refused(found.refused, said)
    return best, [found, accept("rotation_unit", best.unit, sure, said), flips(tracks, best)]


def turning(
    turned: list[Rotation], actions: list[np.ndarray], frame: str, lag: int
) -> tuple[np.ndarray, np.ndarray]:
    """(action [N 3], turn of the next step [N 3] in rad) over all episodes; see ``motion.pairs``."""
    xs, ys = [], []
    for rotation, action in zip(turned, actions, strict=True):
        step = rotation[1:] * rotation[:-1].inv() if frame == "world" else rotation[:-1].inv() * rotation[1:]
        y, x = step.as_rotvec(), action[:-1]
        xs.append(x[lag:] if lag >= 0 else x[:lag])
        ys.append(y[: len(y) - lag] if lag >= 0 else y[-lag:])
    return np.concatenate(xs), np.concatenate(ys)


def explained(x: np.ndarray, y: np.ndarray) -> float:
    """Share of ``y`` that one positive gain times ``x`` explains, over the entries that ``x`` moves."""
    used = x.std(axis=0) > 1e-6
    x, y = x[:, used], y[:, used]
    power, wanted = (x**2).sum(), (y**2).sum()
    if power <= 0 or wanted <= 1e-12:
        return 0.0
    gain = max((x * y).sum() / power, 0.0)
    return float(1 - ((y - gain * x) ** 2).sum() / wanted)


def flips(tracks: Tracks, reading: Reading) -> Answer:
    """Question ``rotation_sign_flips``: q and -q are one rotation; readers and statistics beware."""
    question = "rotation_sign_flips"
    if not reading.format.startswith("quat"):
        return Answer(question=question, value=0, confidence=1.0, evidence="no quaternion")
    count = sum(int(((p[1:] * p[:-1]).sum(axis=1) < 0).sum()) for p in tracks.parts(reading.block))
    return Answer(
        question=question,
        value=count,
        confidence=1.0,
        evidence=f"{count} neighbouring quaternions of opposite sign; undone when read as a rotation",
    )


def _choose(
    tracks: Tracks, left: list[tuple[float, Reading]], motion: float, steps: int, source: str
) -> tuple[Reading | None, list[Answer]]:
    left.sort(key=lambda item: item[0])
    best, reading = left[0]
    second = next((s for s, r in left[1:] if r.block != reading.block or r.format != reading.format), motion)
    score, other = 1 - (best / motion) ** 2, 1 - (min(second, motion) / motion) ** 2
    said = (
        f"agrees with {source} to {np.rad2deg(best):.2f} deg, the next best reading to "
        f"{np.rad2deg(second):.1f}, the arm turns by {np.rad2deg(motion):.1f} ({steps} steps)"
    )
    sure = confidence_of(score, other, steps) if score > 0.5 else 0.0
    found = accept("rotation", reading.value(), sure, said, "no reading of the entries turns with the arm")
    if found.refused:
        return None, _refused(found.refused, said)
    return reading, [found, accept("rotation_unit", reading.unit, sure, said), flips(tracks, reading)]


def _refused(why: str, evidence: str = "") -> list[Answer]:
    return [refuse("rotation", why, evidence), refuse("rotation_unit", why, evidence)]


def _read_rows(tracks: Tracks, reading: Reading, rows: np.ndarray) -> Rotation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(tracks.stacked(reading.block)[rows], reading)


def _spread(rotation: Rotation) -> float:
    """Root mean square angle about the mean, rad."""
    return float(np.sqrt(((rotation * rotation.mean().inv()).magnitude() ** 2).mean()))


def _possible(values: np.ndarray, written: str, unit: str) -> bool:
    if not np.isfinite(values).all() or not (values.std(axis=0) > 1e-6).any():
        return False
    if written.startswith("quat"):
        return unit == "rad" and bool(np.abs(np.linalg.norm(values, axis=1) - 1).max() < 0.01)
    if written.startswith("matrix"):
        vectors = values.reshape(len(values), -1, 3)
        return unit == "rad" and bool(
            np.abs(vectors @ vectors.swapaxes(1, 2) - np.eye(vectors.shape[1])).max() < 0.02
        )
    largest = np.abs(values).max()
    return largest <= 2 * np.pi + 0.01 if unit == "rad" else 2 * np.pi < largest <= 360.5
