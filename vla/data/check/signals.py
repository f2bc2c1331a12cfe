"""The numbers of an episode as the checks use them, and what is usual for its embodiment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.conversion import read_rotation
from vla.data.damage import without_advice
from vla.data.description import ROTATION_SIZES
from vla.data.mixture import held_fields
from vla.data.source import EpisodeInfo, EpisodeSource
from vla.embodiment import Embodiment, Field
from vla.errors import VlaError
from vla.text import counted

#: What reading damaged or foreign data raises: our own errors, and those of the formats' libraries.
DAMAGE = (VlaError, OSError, ValueError, KeyError, EOFError)

#: Written as angles or unit quaternions: two neighbouring numbers may be far apart for the same rotation.
_WRAPPING = ("yaw", "rotvec", "quat_wxyz", "euler_xyz")

#: Episodes of which one may be unlike the others.
FEWEST = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """One episode: float64 ``state`` [T S], ``action`` and ``executed`` [T A], ``time_s`` [T].

    ``held``: action fields of which the layout says that they are executed at the end of their range, however
    far beyond they lie.
    """

    info: EpisodeInfo
    arm: Embodiment
    held: frozenset[str]
    state: np.ndarray
    action: np.ndarray
    executed: np.ndarray
    time_s: np.ndarray

    def __len__(self) -> int:
        return len(self.action)


def read_signals(source: EpisodeSource, index: int) -> tuple[Signals | None, list[Finding]]:
    """The numbers of an episode; None, and why, where they are damaged."""
    columns, found = read_columns(source, index)
    return as_signals(source, index, columns), found


def as_signals(source: EpisodeSource, index: int, columns: Mapping[str, np.ndarray]) -> Signals | None:
    """Of the columns that :func:`read_columns` gives; None where one is missing or there are no steps."""
    info = source.episodes[index]
    if not info.length or not {"state", "action", "executed", "time_s"} <= set(columns):
        return None
    arm = source.embodiments[info.embodiment]
    return Signals(info=info, arm=arm, held=held_fields(source), **columns)


def read_columns(source: EpisodeSource, index: int) -> tuple[dict[str, np.ndarray], list[Finding]]:
    """The sound columns of an episode, float64, and what is wrong with the others.

    Auxiliary columns are read for their damage only; they may be unknown (NaN).
    """
    info = source.episodes[index]
    arm = source.embodiments[info.embodiment]
    found: list[Finding] = []
    sound: dict[str, np.ndarray] = {}
    shapes: dict[str, tuple[int, ...]] = {
        "state": (info.length, arm.state_dim),
        "action": (info.length, arm.action_dim),
        "executed": (info.length, arm.action_dim),
        "time_s": (info.length,),
    }
    for name in [*shapes, *(name for name in source.columns(index) if name not in shapes)]:
        shape = shapes.get(name)
        if shape is not None and 0 in shape[1:]:
            sound[name] = np.zeros(shape)
            continue
        try:
            column = np.asarray(source.column(index, name), np.float64)
        except DAMAGE as error:
            found.append(
                Finding(kind="unreadable", episode=index, where=name, message=said(error, source, index))
            )
            continue
        expected = shape or (info.length, *column.shape[1:])
        if column.shape != expected:
            message = f"shape {column.shape}, expected {expected}"
            found.append(Finding(kind="ragged", episode=index, where=name, message=message))
            continue
        if shape is None:
            continue
        bad = np.argwhere(~np.isfinite(column))
        if not len(bad):
            sound[name] = column
            continue
        steps = bad[:, 0]
        found.append(
            Finding(
                kind="not_finite",
                episode=index,
                first=int(steps.min()),
                last=int(steps.max()),
                where=name if name == "time_s" else entry_names(arm, name)[bad[0][1]],
                value=float(len(bad)),
                message=f"NaN or infinite: {counted(len(bad), 'number')}",
                evidence={"steps": np.unique(steps).tolist()},
            )
        )
    return sound, found


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def shortened(text: str, source: EpisodeSource) -> str:
    """The same beside the path of the data set and a remedy: files within it, and nothing of what to do."""
    return without_advice(text).replace(f"{source.path}/", "")


def said(error: BaseException, source: EpisodeSource, index: int) -> str:
    """The same beside a place and a remedy: also without the episode."""
    text, place = (
        shortened(one_line(error), source),
        rf"episode {index}(?: of {re.escape(str(source.path))})?",
    )
    return re.sub(rf"^{place}[:,] +| of {place}(?![\w])", "", text, flags=re.IGNORECASE)


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


def displacement(values: np.ndarray, member: Field) -> np.ndarray:
    """Where a field moves to in each step, [T-1 n]; for angles the rotation vector of the turn."""
    if len(values) < 2:
        return np.zeros((0, values.shape[1]))
    written = member.rotation_format
    if written not in _WRAPPING or values.shape[1] != ROTATION_SIZES[written]:
        return np.diff(values, axis=0)
    if written == "quat_wxyz" and not np.all(np.linalg.norm(values, axis=1) > 1e-6):
        return np.diff(values, axis=0)
    turns = read_rotation(values, written)
    return (turns[:-1].inv() * turns[1:]).as_rotvec()


def change(values: np.ndarray, member: Field) -> np.ndarray:
    """How far a field moves in each step, [T-1]: Euclidean, for angles by the angle of the rotation."""
    return np.linalg.norm(displacement(values, member), axis=1)


def asked(action: np.ndarray, member: Field) -> np.ndarray:
    """The motion that a field of the action [T n] asks for: itself, or of a target by how much it changes."""
    return action if member.mode != "absolute" else np.diff(action, axis=0, prepend=action[:1])


_MANY = 6  # episodes in which an entry leaves the value at which it rests, that make its other values usual


@dataclass(frozen=True, kw_only=True, eq=False)
class Typical:
    """What is usual for an embodiment, from episodes spread evenly over the data.

    Args:
        num_episodes: read for this.
        median_length: steps, of all episodes.
        low, high: 1 % and 99 % quantile of every entry, by column; of an entry that rests at one value nearly
            always (a key that is pressed now and then), of its other values too, where those are many.
        step_q75, step_q90, step_q99: quantiles of the change in one step, by moving state field.
        step_usual: the 99 % quantile of an episode's changes that nine of ten episodes do not exceed: a tenth
            of them with many jumps does not raise it as it does ``step_q99``.
        asked_q90: quantile of the size of what is asked in one step, by action field.
    """

    num_episodes: int
    median_length: float
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    step_q75: Mapping[str, float]
    step_q90: Mapping[str, float]
    step_q99: Mapping[str, float]
    step_usual: Mapping[str, float]
    asked_q90: Mapping[str, float]


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
        ends = {
            key: _usual_ends([getattr(s, key) for s in signals]) for key in ("state", "action", "executed")
        }
        by_episode = {
            member.name: [change(s.state[:, place], member) for s in signals if len(s) > 1]
            for member, place in moving_fields(arm)
        }
        commands = {
            member.name: np.concatenate(
                [np.linalg.norm(asked(s.action[:, place], member), axis=1) for s in signals]
            )
            for member, place in slices(arm.action)
        }
        steps = {key: np.concatenate(v) if v else np.zeros(0) for key, v in by_episode.items()}
        usual[name] = Typical(
            num_episodes=len(signals),
            median_length=float(np.median([e.length for e in members])),
            low={key: low for key, (low, _) in ends.items()},
            high={key: high for key, (_, high) in ends.items()},
            step_q75=_quantiles(steps, 0.75),
            step_q90=_quantiles(steps, 0.9),
            step_q99=_quantiles(steps, 0.99),
            step_usual={key: _usual_step(v) for key, v in by_episode.items()},
            asked_q90=_quantiles(commands, 0.9),
        )
    return usual


def _usual_ends(episodes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """1 % and 99 % quantile of each entry; of one that rests, of its other values too, where many
    episodes have such: a fault of one episode, however long, makes nothing usual."""
    values = np.concatenate(episodes)
    low, high = np.quantile(values, 0.01, axis=0), np.quantile(values, 0.99, axis=0)
    for i in np.flatnonzero(low == high):
        other = [e[e[:, i] != low[i], i] for e in episodes]
        ends = np.array([(v.min(), v.max()) for v in other if len(v)])
        if len(ends) >= _MANY:  # an end that a tenth of these episodes reach
            low[i] = min(low[i], np.quantile(ends[:, 0], 0.1))
            high[i] = max(high[i], np.quantile(ends[:, 1], 0.9))
    return low, high


def _quantiles(steps: Mapping[str, np.ndarray], share: float) -> dict[str, float]:
    return {key: float(np.quantile(values, share)) if len(values) else 0.0 for key, values in steps.items()}


def _usual_step(steps: Sequence[np.ndarray]) -> float:
    """0 where episodes are too few to tell."""
    if len(steps) < FEWEST:
        return 0.0
    return float(np.quantile([np.quantile(v, 0.99) for v in steps], 0.9, method="lower"))


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each stretch of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
