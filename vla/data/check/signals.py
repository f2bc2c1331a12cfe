"""The numbers of an episode as the checks use them, and what is usual for its embodiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.conversion import read_rotation
from vla.data.description import ROTATION_SIZES
from vla.data.source import EpisodeInfo, EpisodeSource
from vla.embodiment import Embodiment, Field
from vla.errors import VlaError

#: What reading damaged or foreign data raises: our own errors, and those of the formats' libraries.
DAMAGE = (VlaError, OSError, ValueError, KeyError, EOFError)

#: Written as angles or unit quaternions: two neighbouring numbers may be far apart for the same rotation.
_WRAPPING = ("yaw", "rotvec", "quat_wxyz", "euler_xyz")


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """One episode: float64 ``state`` [T S], ``action`` and ``executed`` [T A], ``time_s`` [T]."""

    info: EpisodeInfo
    arm: Embodiment
    state: np.ndarray
    action: np.ndarray
    executed: np.ndarray
    time_s: np.ndarray

    def __len__(self) -> int:
        return len(self.action)


def read_signals(source: EpisodeSource, index: int) -> tuple[Signals | None, list[Finding]]:
    """The numbers of an episode; None, and why, where they are damaged."""
    info = source.episodes[index]
    arm = source.embodiments[info.embodiment]
    found: list[Finding] = []
    values: dict[str, np.ndarray] = {}
    sizes = {"state": arm.state_dim, "action": arm.action_dim, "executed": arm.action_dim, "time_s": 0}
    for name, size in sizes.items():
        if name == "state" and not size:
            values[name] = np.zeros((info.length, 0))
            continue
        try:
            column = np.asarray(source.column(index, name), np.float64)
        except DAMAGE as error:
            found.append(Finding(kind="unreadable", episode=index, where=name, message=one_line(error)))
            continue
        expected = (info.length, size) if size else (info.length,)
        if column.shape != expected:
            message = f"shape {column.shape}, expected {expected}"
            found.append(Finding(kind="ragged", episode=index, where=name, message=message))
            continue
        bad = np.argwhere(~np.isfinite(column))
        if len(bad):
            steps = bad[:, 0]
            entry = entry_names(arm, name)[bad[0][1]] if size else name
            found.append(
                Finding(
                    kind="not_finite",
                    episode=index,
                    first=int(steps.min()),
                    last=int(steps.max()),
                    where=entry,
                    value=float(len(bad)),
                    message=f"{len(bad)} numbers are NaN or infinite",
                    evidence={"steps": np.unique(steps).tolist()},
                )
            )
        values[name] = column
    if found:
        return None, found
    return Signals(info=info, arm=arm, **values), []


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def entry_names(arm: Embodiment, column: str) -> list[str]:
    """``state/tcp_position[0]`` ... of each entry of ``state``, ``action`` or ``executed``."""
    fields = arm.state if column == "state" else arm.action
    return [f"{column}/{f.name}[{i}]" for f in fields for i in range(f.size)]


def slices(fields: Sequence[Field]) -> list[tuple[Field, slice]]:
    """Each field with its place in the concatenated vector."""
    out, start = [], 0
    for member in fields:
        out.append((member, slice(start, start + member.size)))
        start += member.size
    return out


def is_gripper(member: Field) -> bool:
    """Grippers open and close at once: their changes are no jumps, their limits no clipping."""
    return "gripper" in member.slot or member.gripper_sign != "none"


def moving_fields(arm: Embodiment) -> list[tuple[Field, slice]]:
    """State fields that tell where the arm is: they change by little in one step."""
    return [
        (member, place)
        for member, place in slices(arm.state)
        if member.mode == "absolute" and not is_gripper(member) and not member.slot.endswith("tcp_error")
    ]


def change(values: np.ndarray, member: Field) -> np.ndarray:
    """How far a field moves in each step, [T-1]: Euclidean, for angles by the angle of the rotation."""
    if len(values) < 2:
        return np.zeros(0)
    written = member.rotation_format
    if written in _WRAPPING and values.shape[1] == ROTATION_SIZES[written]:
        if written == "quat_wxyz" and not np.all(np.linalg.norm(values, axis=1) > 1e-6):
            return np.linalg.norm(np.diff(values, axis=0), axis=1)
        turns = read_rotation(values, written)
        return (turns[:-1].inv() * turns[1:]).magnitude()
    return np.linalg.norm(np.diff(values, axis=0), axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Typical:
    """What is usual for an embodiment, from episodes spread evenly over the data.

    Args:
        num_episodes: read for this.
        median_length: steps, of all episodes.
        low, high: 1 % and 99 % quantile of every entry, by column.
        step_q75, step_q99: quantiles of the change in one step, by moving state field.
    """

    num_episodes: int
    median_length: float
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    step_q75: Mapping[str, float]
    step_q99: Mapping[str, float]


def learn_typical(source: EpisodeSource, config: CheckConfig) -> dict[str, Typical]:
    """By embodiment; embodiments of which nothing can be read are missing."""
    usual: dict[str, Typical] = {}
    for name, arm in source.embodiments.items():
        members = [e for e in source.episodes if e.embodiment == name]
        if not members:
            continue
        chosen = np.unique(np.linspace(0, len(members) - 1, config.typical_episodes).round().astype(int))
        read = [read_signals(source, members[i].index)[0] for i in chosen]
        signals = [s for s in read if s is not None]
        if not signals:
            continue
        columns = {
            key: np.concatenate([getattr(s, key) for s in signals]) for key in ("state", "action", "executed")
        }
        steps = {
            member.name: np.concatenate([change(s.state[:, place], member) for s in signals])
            for member, place in moving_fields(arm)
        }
        usual[name] = Typical(
            num_episodes=len(signals),
            median_length=float(np.median([e.length for e in members])),
            low={key: np.quantile(v, 0.01, axis=0) for key, v in columns.items()},
            high={key: np.quantile(v, 0.99, axis=0) for key, v in columns.items()},
            step_q75={key: float(np.quantile(v, 0.75)) if len(v) else 0.0 for key, v in steps.items()},
            step_q99={key: float(np.quantile(v, 0.99)) if len(v) else 0.0 for key, v in steps.items()},
        )
    return usual


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each stretch of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
