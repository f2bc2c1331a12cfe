"""Joints and tool position in the state, found by forward kinematics of the robot model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.solve.answers import Answer, accept, confidence_of, refuse
from vla.data.solve.robot import RobotModel
from vla.data.solve.tracks import Block, Tracks

LENGTH_UNITS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
_SAMPLES = 250
_FIT = 0.97  # explained share of the tool's path below which joints and position do not belong together
_MOVED_M = 0.004  # an axis along which the tool moves less says nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmFit:
    """Where joints and position are; canonical position = ``signs * column[axes] * scale_m``."""

    joints: Block
    joint_scale: float
    position: Block
    scale_m: float
    axes: tuple[int, ...]
    signs: tuple[int, ...]
    base: Rotation  # turns the model's frame into that of the data
    score: float
    second: float


def fit_arm(tracks: Tracks, robot: RobotModel, at: Block | None = None) -> ArmFit | None:
    """The pair of blocks whose tool paths agree best; None where none does.

    Args:
        at: where the position is known to be; None: anywhere.
    """
    fits: list[tuple[float, Block, float, Block, np.ndarray, float]] = []
    for joints in tracks.state_blocks(robot.num_joints):
        q = tracks.stacked(joints)
        rows = np.linspace(0, len(q) - 1, min(len(q), _SAMPLES)).astype(int)
        for scale in (1.0, np.pi / 180):
            angles = q[rows] * scale
            low, high = robot.limits[:, 0] - 0.1, robot.limits[:, 1] + 0.1
            if ((angles < low) | (angles > high)).mean() > 0.01 or not (angles.std(axis=0) > 1e-4).any():
                continue
            path = robot.forward(angles)[0]
            for position in tracks.state_blocks(3, without=(joints,)):
                if at is not None and position != at:
                    continue
                score, turn, size = _align(tracks.stacked(position)[rows], path)
                fits.append((score, joints, scale, position, turn, size))
    if not fits:
        return None
    fits.sort(key=lambda fit: -fit[0])
    score, joints, scale, position, turn, size = fits[0]
    others = [f[0] for f in fits[1:] if f[1] != joints or f[3] != position or f[2] != scale]
    if score < _FIT:
        return None
    axes, signs, base = _axes(turn, robot.fixed_frame)
    return ArmFit(
        joints=joints, joint_scale=scale, position=position, scale_m=_nearest_unit(size), axes=axes,
        signs=signs, base=base, score=score, second=others[0] if others else 0.0,
    )  # fmt: skip


def arm_answers(tracks: Tracks, robot: RobotModel | None, fit: ArmFit | None) -> list[Answer]:
    """Questions ``joints``, ``joint_unit``, ``position``, ``position_unit``."""
    if fit is None:
        why = (
            "no robot model was given (--suite and --arm, or --mjcf)"
            if robot is None
            else "no entries of the state follow the tool of the robot model"
        )
        return [refuse(question, why) for question in ("joints", "joint_unit", "position", "position_unit")]
    steps = moving(np.diff(tracks.stacked(fit.position), axis=0))
    sure = confidence_of(fit.score, fit.second, steps)
    said = (
        f"forward kinematics explains {100 * fit.score:.2f} % of the tool's path, the next best pair of "
        f"entries {100 * fit.second:.1f} %, {steps} moving steps"
    )
    doubt = "other entries follow the robot model alike: two arms?" if fit.second > _FIT else ""
    value = {**place(fit.position), "axes": list(fit.axes), "signs": list(fit.signs)}
    unit = next(name for name, size in LENGTH_UNITS.items() if size == fit.scale_m)
    joint_unit = "rad" if fit.joint_scale == 1.0 else "deg"
    position = accept("position", value, sure, said, doubt)
    if rests := rests_along([tracks.stacked(fit.position) * fit.scale_m]):
        position = refuse("position", rests, said)
    size = f"size against the model: {fit.scale_m:g} m an entry unit"
    return [
        accept("joints", place(fit.joints) | {"size": fit.joints.size}, sure, said, doubt),
        accept("joint_unit", joint_unit, sure, f"within the joint limits as {joint_unit}; {said}", doubt),
        position,
        accept("position_unit", unit, sure, size, doubt),
    ]


def rests_along(path: list[np.ndarray]) -> str:
    """Why a path in metres [T 3] an episode does not show three axes; empty where it does."""
    spread = np.concatenate(path).std(axis=0)
    if spread.min() >= _MOVED_M:
        return ""
    axis = "xyz"[int(spread.argmin())]
    return f"the tool hardly moves along {axis} ({1000 * spread.min():.1f} mm): it has no sign"


def moving(changes: np.ndarray) -> int:
    """How many of the changes [N k] are more than a fifth of a large one."""
    size = np.linalg.norm(changes, axis=1)
    large = np.quantile(size, 0.95) if len(size) else 0.0
    return int((size > 0.2 * large).sum()) if large > 0 else 0


def place(block: Block) -> dict[str, object]:
    return {"column": block.column, "start": block.start}


def signed_permutation(matrix: np.ndarray, tolerance: float = 0.06) -> tuple[list[int], list[int]] | None:
    """(axes, signs) with ``matrix @ x = signs * x[axes]``; None where it is no such matrix."""
    axes = np.abs(matrix).argmax(axis=1)
    signs = np.sign(matrix[np.arange(3), axes])
    made = np.zeros((3, 3))
    made[np.arange(3), axes] = signs
    if sorted(axes) != [0, 1, 2] or np.abs(made - matrix).max() > tolerance:
        return None
    return [int(a) for a in axes], [int(s) for s in signs]


def _align(stored: np.ndarray, path: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Orthogonal ``turn`` and ``size`` of best ``path ~ size * turn @ stored + shift``; explained share."""
    x, y = stored - stored.mean(axis=0), path - path.mean(axis=0)
    power, wanted = (x**2).sum(), (y**2).sum()
    if power < 1e-12 or wanted < 1e-12:
        return 0.0, np.eye(3), 1.0
    u, s, vt = np.linalg.svd(y.T @ x)
    return float(s.sum() ** 2 / (power * wanted)), u @ vt, float(s.sum() / power)


def _axes(turn: np.ndarray, fixed_frame: bool) -> tuple[tuple[int, ...], tuple[int, ...], Rotation]:
    """Axes and signs where the frame is known or the data are mirrored; else the base stands turned."""
    found = signed_permutation(turn)
    mirrored = np.linalg.det(turn) < 0
    if found is not None and (fixed_frame or mirrored):
        return tuple(found[0]), tuple(found[1]), Rotation.identity()
    if mirrored:  # a mirrored frame that is also turned: the likeliest mirror is y
        turn = turn @ np.diag([1.0, -1.0, 1.0])
        return (0, 1, 2), (1, -1, 1), Rotation.from_matrix(turn.T)
    return (0, 1, 2), (1, 1, 1), Rotation.from_matrix(turn.T)


def _nearest_unit(size: float) -> float:
    return min(LENGTH_UNITS.values(), key=lambda unit: abs(np.log(size / unit)))


def canonical_position(
    tracks: Tracks, block: Block, scale_m: float, axes: tuple[int, ...], signs: tuple[int, ...]
) -> list[np.ndarray]:
    """[T 3] for each episode: metres, axes in order."""
    return [part[:, list(axes)] * np.array(signs) * scale_m for part in tracks.parts(block)]


def signed_permutations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All 48 (axes, signs), the identity first."""
    return list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
