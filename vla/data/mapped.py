"""A foreign data set seen through its description: the same interface as our own store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla.data.conversion import convert, flip_image, orientation, stored_size
from vla.data.description import CameraRule, ColumnRule, DatasetDescription
from vla.data.shards import crc32c
from vla.data.source import EpisodeInfo, Fault, Frames, RawDataset, check_episode, episode_name
from vla.data.time_stamps import check_rising
from vla.embodiment import Embodiment, Field
from vla.errors import DatasetError, UnknownNameError

COLUMNS = ("state", "action", "executed", "time_s")


class MappedSource:
    """An :class:`~vla.data.source.EpisodeSource` made of a raw data set and what its columns mean.

    Args:
        raw: columns and pictures as stored.
        description: what they mean.
        tolerate_damage: let empty instructions and numbers that are not finite and time stamps that
            do not rise through, for a check to find.
        to_look: let empty instructions and time stamps that do not rise through.
        told_by: who says what the columns mean, for people.

    Raises:
        UnknownNameError: a rule names a column or camera that the data set does not have.
        DatasetError: a rule reads past its column; an episode has no instruction. When one is read:
            numbers that are not finite, time stamps that do not rise.
    """

    def __init__(
        self,
        raw: RawDataset,
        description: DatasetDescription,
        *,
        tolerate_damage: bool = False,
        to_look: bool = False,
        told_by: str = "the program that opened it",
    ) -> None:
        self.raw, self.description, self._tolerant = raw, description, tolerate_damage
        self.told_by = told_by
        self._lenient = tolerate_damage or to_look
        self._in_time: set[int] = set()  # episodes whose time stamps are known to rise
        self.embodiments: Mapping[str, Embodiment] = {description.embodiment.name: description.embodiment}
        self._embodiment = description.embodiment
        _check_rules(raw, description)
        self._rules = {rule.camera: rule for rule in description.cameras}
        self.episodes: Sequence[EpisodeInfo] = [self._info(index) for index in range(len(raw.episodes))]

    @property
    def path(self) -> Path:
        return self.raw.path

    def __len__(self) -> int:
        return len(self.episodes)

    def columns(self, index: int) -> list[str]:
        self._check(index)
        return [*COLUMNS, *(f"aux/{key}" for key in self.description.aux)]

    def column(self, index: int, name: str) -> np.ndarray:
        self._check(index)
        if name not in self.columns(index):
            raise UnknownNameError(f"column of episode {index}", name, self.columns(index))
        if not self._lenient and index not in self._in_time:
            check_rising(self._time_s(index), episode_name(self, index))
            self._in_time.add(index)
        if name == "time_s":
            return _read_only(self._time_s(index))
        if name == "state":
            return _read_only(self._state(index).astype(np.float32))
        if name.startswith("aux/"):
            stored = self._stored(index, self.description.aux[name.removeprefix("aux/")])
            return _read_only(stored[self._rows(index)].astype(np.float32))
        rules = self.description.executed if name == "executed" else ()
        return _read_only(self._action(index, rules or self.description.action).astype(np.float32))

    def cameras(self, index: int) -> list[str]:
        self._check(index)
        return [camera.name for camera in self._embodiment.cameras]

    def frame_reader(self, index: int, camera: str) -> Frames:
        self._check(index)
        if camera not in self._rules:
            raise UnknownNameError(f"camera of episode {index}", camera, self._rules)
        rule = self._rules[camera]
        return _UprightFrames(
            frames=self.raw.frame_reader(index, rule.column),
            rule=rule,
            first=self.description.skip_first,
            length=self.episodes[index].length,
        )

    def clipped(self) -> dict[str, tuple[int, int]]:
        """Of each field that a rule holds within its range: values it changes, and values there are.

        Reads these columns of every episode. Keys: ``state/NAME``, ``action/NAME``, ``executed/NAME``.
        """
        arm, found = self._embodiment, {}
        for kind, rules, members in (
            ("state", self.description.state, arm.state),
            ("action", self.description.action, arm.action),
            ("executed", self.description.executed, arm.action if self.description.executed else ()),
        ):
            lag = 0 if kind == "state" else self.description.action_lag
            for rule, member in _pairs(rules, members):
                if rule.clip:
                    held = total = 0
                    for index in range(len(self)):
                        free = self._converted(index, rule, member, lag)
                        held += int((np.abs(free - np.clip(free, member.low, member.high)) > 1e-9).sum())
                        total += free.size
                    found[f"{kind}/{member.name}"] = (held, total)
        return found

    def index_checksum(self) -> int:
        facts = json.dumps([self.raw.checksum(), self.description.to_json()])
        return crc32c(facts.encode())

    def faults(self) -> list[Fault]:
        return [(None, line) for line in self.raw.damaged]

    def close(self) -> None:
        self.raw.close()

    def _info(self, index: int) -> EpisodeInfo:
        raw = self.raw.episodes[index]
        instruction = raw.instruction or self.description.instruction
        where = f"Episode {index} of {self.raw.path}"
        if not instruction and not self._lenient:
            raise DatasetError(
                f"{where} has no instruction, nor has its file. Say one for all: instruction=TEXT of a "
                "recipe's source, 'instruction' in the embodiment file, or 'vla data import --instruction "
                "TEXT', which makes a store with it."
            )
        known = self.description
        length = raw.length - known.action_lag - known.skip_first - known.skip_last
        if length < 1:
            raise DatasetError(
                f"{where} has {raw.length} steps, too few for an action lag of {known.action_lag} with "
                f"{known.skip_first} skipped at the start and {known.skip_last} at the end."
            )
        return EpisodeInfo(
            index=index,
            length=length,
            instruction=instruction,
            embodiment=self._embodiment.name,
            success=raw.success,
            provenance={"format": self.raw.format, "dataset": self.raw.path.name, **raw.provenance},
        )

    def _check(self, index: int) -> None:
        check_episode(index, len(self.episodes), self.path)

    def _time_s(self, index: int) -> np.ndarray:
        length, column = self.episodes[index].length, self.description.time_column
        stored = self._stored(index, column)[:, 0] if column else self.raw.time_s(index)
        if stored is None:
            return np.arange(length) / self._embodiment.control_hz
        return np.asarray(stored, np.float64)[self._rows(index)]

    def _state(self, index: int) -> np.ndarray:
        length = self.episodes[index].length
        parts = [
            self._field(index, rule, member, 0)
            for rule, member in _pairs(self.description.state, self._embodiment.state)
        ]
        return np.concatenate(parts, axis=1) if parts else np.zeros((length, 0))

    def _action(self, index: int, rules: Sequence[ColumnRule]) -> np.ndarray:
        lag, parts = self.description.action_lag, []
        for rule, member in _pairs(rules, self._embodiment.action):
            values = self._field(index, rule, member, lag)
            if rule.frame == "tool":
                turn = orientation(self._embodiment, self._state(index), member.slot.split(".")[0])
                assert turn is not None  # checked when the rules were
                values = turn.apply(values)
            parts.append(values)
        return np.concatenate(parts, axis=1)

    def _stored(self, index: int, column: str) -> np.ndarray:
        """[T size] of one column, all rows."""
        stored = self.raw.column(index, column)
        if len(stored) != self.raw.episodes[index].length:
            raise DatasetError(
                f"Episode {index} of {self.path}: column {column!r} has {len(stored)} rows, the episode "
                f"{self.raw.episodes[index].length}."
            )
        return stored

    def _rows(self, index: int, lag: int = 0) -> slice:
        """Rows of the stored columns that are the steps of an episode, ``lag`` rows later."""
        first = self.description.skip_first + lag
        return slice(first, first + self.episodes[index].length)

    def _field(self, index: int, rule: ColumnRule, member: Field, lag: int) -> np.ndarray:
        """float64 [T size] of one field."""
        values = self._converted(index, rule, member, lag)
        return np.clip(values, member.low, member.high) if rule.clip else values

    def _converted(self, index: int, rule: ColumnRule, member: Field, lag: int) -> np.ndarray:
        """float64 [T size] of one field before it is held within its range."""
        stored, rows = self._stored(index, rule.column), self._rows(index, lag)
        size = stored_size(rule, member)
        values = stored[rows, rule.start : rule.start + size]
        if not self._tolerant and not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DatasetError(
                f"Episode {index} of {self.path}: column {rule.column!r} is not finite at step {step}. See "
                "'vla data check', and 'vla data fix' to drop what is damaged."
            )
        return convert(values, rule, member, self._embodiment.control_hz)


@dataclass(frozen=True, kw_only=True, eq=False)
class _UprightFrames:
    """Pictures turned and coloured as the camera rule says."""

    frames: Frames
    rule: CameraRule
    first: int
    length: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.frames.shape

    def __len__(self) -> int:
        return self.length

    def read(self, step: int, out: np.ndarray) -> None:
        if self.rule.flip == "none" and not self.rule.bgr:
            self.frames.read(self.first + step, out)
            return
        stored = np.empty_like(out)
        self.frames.read(self.first + step, stored)
        upright = flip_image(stored, self.rule.flip)
        out[:] = upright[:, :, ::-1] if self.rule.bgr else upright


def _pairs(rules: Sequence[ColumnRule], members: Sequence[Field]) -> list[tuple[ColumnRule, Field]]:
    """Each field with its rule, in the fields' order."""
    by_name = {rule.field: rule for rule in rules}
    return [(by_name[member.name], member) for member in members]


def _check_rules(raw: RawDataset, description: DatasetDescription) -> None:
    arm = description.embodiment
    executed = _pairs(description.executed, arm.action) if description.executed else []
    for column in (*description.aux.values(), *filter(None, [description.time_column])):
        if column not in raw.columns:
            raise UnknownNameError(f"column of {raw.path}", column, raw.columns)
    pairs = [*_pairs(description.state, arm.state), *_pairs(description.action, arm.action), *executed]
    for rule, member in pairs:
        if rule.column not in raw.columns:
            raise UnknownNameError(f"column of {raw.path}", rule.column, raw.columns)
        size, there = stored_size(rule, member), raw.columns[rule.column].size
        if rule.start < 0 or rule.start + size > there:
            raise DatasetError(
                f"Field {member.name!r} reads entries {rule.start}..{rule.start + size - 1} of "
                f"{rule.column!r} in {raw.path}, which has {there}."
            )
        side = member.slot.split(".")[0]
        if rule.frame == "tool" and (
            member.size != 3 or orientation(arm, np.arange(1.0, arm.state_dim + 1)[None], side) is None
        ):
            raise DatasetError(
                f"Field {member.name!r} is stored in the tool's frame: turning it needs 3 entries and a "
                f"'{side}.tcp_rotation' field in the state."
            )
    for rule in description.cameras:
        if rule.column not in raw.cameras:
            raise UnknownNameError(f"camera of {raw.path}", rule.column, raw.cameras)
        stored, camera = raw.cameras[rule.column], next(c for c in arm.cameras if c.name == rule.camera)
        if (stored.height, stored.width) != (camera.height, camera.width):
            raise DatasetError(
                f"Camera {camera.name!r} is {camera.height}x{camera.width} in the description, "
                f"{rule.column!r} in {raw.path} is {stored.height}x{stored.width}."
            )


def _read_only(values: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(values)
    values.flags.writeable = False
    return values
