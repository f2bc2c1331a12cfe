"""Episodes at another control rate, or at even time stamps: states, pictures and actions re-timed together.

A step is an interval. An action says what happens until the next step, so over a new interval

    delta     the changes inside it are added (rotation vectors composed), in parts where it cuts a step
    velocity  is averaged over it
    absolute  is where the arm shall be at its end
    gripper   is the command whose end is nearest to its end, nothing in between

and a state is interpolated at the step (rotations along the shortest turn; grippers and commands are the
nearest), while pictures and auxiliary quantities are those nearest in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from vla.data.conversion import read_rotation, write_rotation
from vla.data.frames import Encoded, encoded
from vla.data.source import EpisodeInfo, EpisodeSource, Frames, episode_name
from vla.data.source_view import SourceView
from vla.data.time_stamps import check_rising, check_steady
from vla.embodiment import Embodiment, Field
from vla.errors import EmbodimentError

_Change = Callable[[Field, np.ndarray, "Clock"], np.ndarray]
_FASTER = 1.01  # a rate this much above the source's is still the source's
_SLACK = 1e-3  # of a new step: what the last interval may lack


@dataclass(frozen=True, kw_only=True, eq=False)
class Clock:
    """When an episode's steps begin, before and after: seconds, float64.

    ``old`` [T + 1] and ``new`` [N + 1] end with the end of the last step; ``nearest`` int64 [N] is the old
    step closest to the beginning of each new one.
    """

    old: np.ndarray
    new: np.ndarray
    nearest: np.ndarray

    @classmethod
    def of(cls, time_s: np.ndarray, *, was_hz: float, hz: float, where: str) -> Clock:
        """Even steps of ``1 / hz`` from the first time stamp to the end of the last step."""
        time_s = np.asarray(time_s, np.float64)
        check_rising(time_s, where)
        check_steady(time_s, was_hz, where)
        old = np.append(time_s, time_s[-1] + 1 / was_hz)
        count = max(1, int(np.ceil((old[-1] - old[0]) * hz - _SLACK)))
        new = old[0] + np.arange(count + 1) / hz
        return cls(old=old, new=new, nearest=_nearest(time_s, new[:-1]))


class ResampledSource(SourceView):
    """An :class:`~vla.data.source.EpisodeSource` at ``hz`` steps a second, made of one at any rate.

    Args:
        source: closed with this one.
        hz: of all its arms from here on; ranges of delta actions grow or shrink with the step.

    Raises:
        DatasetError: time stamps that do not rise, or leave steps out.
        EmbodimentError: deltas at a higher rate than they were given at (nobody knows what was wanted in
            between), or deltas that cannot be added.
    """

    def __init__(self, source: EpisodeSource, hz: float) -> None:
        self.hz = hz
        arms = {name: _at_rate(arm, hz, str(source.path)) for name, arm in source.embodiments.items()}
        self._clocks = [_clock(source, info, hz) for info in source.episodes]
        episodes = []
        for info, clock in zip(source.episodes, self._clocks, strict=True):
            was = {"resampled_from_hz": source.embodiments[info.embodiment].control_hz}
            length = len(clock.nearest)
            episodes.append(replace(info, length=length, provenance={**info.provenance, **was}))
        places = range(len(episodes))
        super().__init__(source, embodiments=arms, episodes=episodes, places=places, facts=[hz])

    def column(self, index: int, name: str) -> np.ndarray:
        clock = self._clocks[index]
        arm = self.source.embodiments[self.episodes[index].embodiment]
        if name == "time_s":
            return clock.new[:-1]
        stored = self.source.column(index, name)
        if name == "state":
            return _each_field(arm.state, stored, clock, _state_field)
        if name in ("action", "executed"):
            return _each_field(arm.action, stored, clock, _action_field)
        return stored[clock.nearest]

    def frame_reader(self, index: int, camera: str) -> Frames:
        frames = self.source.frame_reader(index, camera)
        return _Retimed(frames=frames, steps=self._clocks[index].nearest.tolist())


def _clock(source: EpisodeSource, info: EpisodeInfo, hz: float) -> Clock:
    was_hz = source.embodiments[info.embodiment].control_hz
    where = episode_name(source, info.index)
    return Clock.of(source.column(info.index, "time_s"), was_hz=was_hz, hz=hz, where=where)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Retimed:
    """Pictures of other steps."""

    frames: Frames
    steps: list[int]

    @property
    def shape(self) -> tuple[int, int]:
        return self.frames.shape

    def __len__(self) -> int:
        return len(self.steps)

    def read(self, step: int, out: np.ndarray) -> None:
        self.frames.read(self.steps[step], out)

    def encoded(self, steps: Sequence[int]) -> Encoded | None:
        return encoded(self.frames, [self.steps[step] for step in steps])


def _at_rate(arm: Embodiment, hz: float, where: str) -> Embodiment:
    """The arm at another rate; refuses what cannot be re-timed."""
    ratio = arm.control_hz / hz
    fields = []
    for member in arm.action:
        if member.mode != "delta":
            fields.append(member)
            continue
        if ratio < 1 / _FASTER:
            raise EmbodimentError(
                f"{where}: {member.name!r} of {arm.name!r} holds changes per step at {arm.control_hz:g} Hz; "
                f"at {hz:g} Hz nobody knows what was wanted in between. Resample the faster sources down to "
                f"{arm.control_hz:g} Hz instead (control_hz of the mixture)."
            )
        if member.frame == "tool" and member.rotation_format == "none":
            raise EmbodimentError(
                f"{where}: {member.name!r} of {arm.name!r} moves along the tool's own axes, which turn in "
                "a step: describe it in world frame (rule with frame='tool') to have it resampled."
            )
        if member.rotation_format not in ("none", "yaw", "rotvec"):
            raise EmbodimentError(
                f"{where}: changes of {member.name!r} of {arm.name!r} are written as "
                f"{member.rotation_format!r}; only yaw and rotvec can be composed."
            )
        low, high = (tuple(x * ratio for x in limits) for limits in (member.low, member.high))
        fields.append(replace(member, low=low, high=high))
    return replace(arm, action=tuple(fields), control_hz=hz)


def _each_field(members: Sequence[Field], stored: np.ndarray, clock: Clock, change: _Change) -> np.ndarray:
    """float32 [N S] of all fields side by side."""
    parts, start = [np.zeros((len(clock.nearest), 0))], 0
    for member in members:
        parts.append(change(member, stored[:, start : start + member.size].astype(np.float64), clock))
        start += member.size
    return np.concatenate(parts, axis=1).astype(np.float32)


def _state_field(member: Field, values: np.ndarray, clock: Clock) -> np.ndarray:
    if _is_discrete(member):
        return values[clock.nearest]
    return _interpolate(member, values, clock.old[:-1], clock.new[:-1])


def _action_field(member: Field, values: np.ndarray, clock: Clock) -> np.ndarray:
    ends, wanted = clock.old[1:], np.minimum(clock.new[1:], clock.old[-1])
    if _is_discrete(member):
        return values[_nearest(ends, wanted)]
    if member.mode == "absolute":
        return _interpolate(member, values, ends, wanted)
    if member.mode == "delta" and member.rotation_format == "rotvec":
        return _composed(values, clock, tool=member.frame == "tool")
    spans = np.diff(clock.old)[:, None] if member.mode == "velocity" else 1.0
    total = np.concatenate([np.zeros((1, member.size)), np.cumsum(values * spans, axis=0)])
    bounds = np.minimum(clock.new, clock.old[-1])
    reached = np.stack([np.interp(bounds, clock.old, total[:, i]) for i in range(member.size)], axis=1)
    change = np.diff(reached, axis=0)
    return change / np.diff(bounds)[:, None] if member.mode == "velocity" else change


def _is_discrete(member: Field) -> bool:
    """A gripper, whose positions are commands: half open and half closed is not what anybody wanted."""
    return member.mode == "absolute" and (
        member.gripper_sign != "none" or member.slot.endswith("gripper_command")
    )


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64 [N]: the place in ``times`` (increasing) nearest to each of ``wanted``; the earlier of two."""
    right = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(wanted - times[left]) <= np.abs(times[right] - wanted), left, right)


def _interpolate(member: Field, values: np.ndarray, times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[N size] at ``wanted`` (the first or last value outside ``times``)."""
    wanted = np.clip(wanted, times[0], times[-1])
    if len(times) == 1:
        return np.repeat(values, len(wanted), axis=0)
    written = member.rotation_format
    if written in ("rotvec", "quat_wxyz", "matrix_6d", "euler_xyz"):
        return write_rotation(Slerp(times, read_rotation(values, written))(wanted), written)
    if written == "cos_sin_2yaw":
        double = np.interp(wanted, times, np.unwrap(np.arctan2(values[:, 1], values[:, 0])))
        return np.stack([np.cos(double), np.sin(double)], axis=1)
    if written == "yaw":
        yaw = np.interp(wanted, times, np.unwrap(values[:, 0]))
        return ((yaw + np.pi) % (2 * np.pi) - np.pi)[:, None]
    return np.stack([np.interp(wanted, times, column) for column in values.T], axis=1)


def _composed(values: np.ndarray, clock: Clock, *, tool: bool) -> np.ndarray:
    """Rotation vectors [N 3] over the new intervals: turns about fixed axes, or about the tool's own."""
    at = [Rotation.identity()]
    for vector in values:
        turn = Rotation.from_rotvec(vector)
        at.append(at[-1] * turn if tool else turn * at[-1])
    bounds = np.minimum(clock.new, clock.old[-1])
    reached = Slerp(clock.old, Rotation.concatenate(at))(bounds)
    before, after = reached[:-1], reached[1:]
    return (before.inv() * after if tool else after * before.inv()).as_rotvec()
