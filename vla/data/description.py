"""What the columns of a foreign data set mean: the embodiment file that is read beside it.

``<dataset>/embodiment.json`` (a directory) or ``<dataset>.embodiment.json`` (a file)::

    {"format_version": 1,
     "embodiment": {...},                       what the data become: vla.embodiment.Embodiment
     "state":  [{"field": "tcp_position", "column": "observation.state", "start": 0, "unit": "mm"}, ...],
     "action": [{"field": "gripper", "column": "action", "start": 6, "scale": -2.0, "offset": 1.0}, ...],
     "cameras": [{"camera": "front", "column": "observation.images.top", "flip": "vertical", "bgr": false}],
     "action_lag": 0, "skip_first": 0, "skip_last": 0,
     "ranges": "declared",
     "instruction": "",
     "executed": [], "aux": {}, "time_column": "",   where the data set has more than this
     "evidence": {...}}                         what vla data solve found, for people

Nothing is guessed when data are read: without such a file, and for a layout this package does not know
(``vla.data.readers.known``), reading is refused and ``vla data solve`` is named.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vla.embodiment import Embodiment
from vla.errors import EmbodimentError, UnknownNameError, VlaError
from vla.files import read_json, write_json
from vla.text import quoted

FORMAT_VERSION = 1
_LIKE = (
    'It is like {"format_version": 1, "embodiment": {"name": "my_arm", "control_hz": 10.0, "cameras": [], '
    '"state": [], "action": [...]}, "state": [], "action": [{"field": "gripper", "column": "action", '
    '"start": 6}], "cameras": []}; '
    "docs/datasets.md has a whole one, 'vla data solve' writes one. (Answers that you "
    "give to 'vla data solve' itself are its --answers.)"
)

#: How a data set writes rotations. ``euler_xyz``: angles about the fixed x, y, z axes in that order (roll,
#: pitch, yaw; scipy's "xyz"); ``euler_zyx``: the same about the fixed z, y, x axes (scipy's "zyx");
#: ``euler_XYZ``, ``euler_ZYX``: about the moving axes. ``matrix``: 9 numbers, row by row; ``matrix_6d``: its
#: first two columns.
SourceRotation = Literal[
    "", "yaw", "rotvec", "quat_xyzw", "quat_wxyz", "matrix", "matrix_6d",
    "euler_xyz", "euler_zyx", "euler_XYZ", "euler_ZYX",
]  # fmt: skip
ROTATION_SIZES: Mapping[str, int] = {
    "yaw": 1, "cos_sin_2yaw": 2, "rotvec": 3, "euler_xyz": 3, "euler_zyx": 3, "euler_XYZ": 3, "euler_ZYX": 3,
    "quat_xyzw": 4, "quat_wxyz": 4, "matrix_6d": 6, "matrix": 9,
}  # fmt: skip
Flip = Literal["none", "vertical", "horizontal", "rotate_180"]
SourceFrame = Literal["", "tool"]
#: Where the low and high of the fields come from. ``declared``: the robot or its controller states them;
#: ``measured``: they are those of these data, widened; ``assumed``: round numbers that no document states.
#: Training normalises arms whose ranges are not declared by quantiles unless it is told otherwise.
Ranges = Literal["declared", "measured", "assumed"]


@dataclass(frozen=True, kw_only=True)
class ColumnRule:
    """Where one field of the embodiment comes from, and how it is written there.

    The field's value is ``convert(column[:, start : start + n]) * scale + offset``, held within the field's
    range where ``clip`` says so; ``convert`` goes from
    ``unit`` and ``rotation`` to those of the field, and ``n`` follows from them.

    Args:
        field: name of a state or action field of the embodiment.
        column: name in the data set.
        start: first entry in the column.
        unit: as stored (``mm``, ``deg``, ``m/s`` ...); empty: the field's own.
        rotation: as stored; empty: the field's own.
        scale, offset: applied last, to every entry (a gripper 0 open .. 1 closed becomes -1 .. +1 by 2, -1).
        frame: ``tool`` where a change of pose is stored in the tool's own frame and the field is in a fixed
            one: it is turned by the orientation in the state. Empty: as the field says.
        clip: hold the value within the field's low and high, as a controller does with what it is sent. How
            many values that changes is counted (``MappedSource.clipped``) and reported where data are used.
    """

    field: str
    column: str
    start: int = 0
    unit: str = ""
    rotation: SourceRotation = ""
    scale: float = 1.0
    offset: float = 0.0
    frame: SourceFrame = ""
    clip: bool = False

    def __post_init__(self) -> None:
        for value, allowed, what in (
            (self.rotation, SourceRotation, "rotation"),
            (self.frame, SourceFrame, "frame"),
        ):
            if value not in get_args(allowed):
                raise UnknownNameError(f"{what} of rule {self.field!r}", value, get_args(allowed))


@dataclass(frozen=True, kw_only=True)
class CameraRule:
    """Which stored pictures are those of a camera, and how they are turned and coloured there."""

    camera: str
    column: str
    flip: Flip = "none"
    bgr: bool = False

    def __post_init__(self) -> None:
        if self.flip not in get_args(Flip):
            raise UnknownNameError(f"flip of camera {self.camera!r}", self.flip, get_args(Flip))


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """An embodiment, and a rule for each of its fields and cameras.

    Args:
        action_lag: the action of step t is stored in row t + action_lag; the last rows are dropped.
        skip_first, skip_last: rows at the start and at the end of every episode that are no steps (a
            placeholder for an action before the first one, a state after the last); dropped from all columns,
            pictures and time stamps alike, before the lag is applied.
        ranges: where the ranges of the embodiment's fields come from.
        instruction: said of every episode that has none of its own; empty: there must be one.
        executed: rules for the action fields where what was sent to the arm is stored beside the label;
            empty: the label was sent.
        aux: privileged quantities (``vla.interfaces.AUX_KEYS``) by key: the column that holds them.
        time_column: holds the time stamps, seconds; empty: those that the format defines.
        evidence: how this was found out, for people.
    """

    embodiment: Embodiment
    state: tuple[ColumnRule, ...]
    action: tuple[ColumnRule, ...]
    cameras: tuple[CameraRule, ...] = ()
    action_lag: int = 0
    skip_first: int = 0
    skip_last: int = 0
    ranges: Ranges = "declared"
    instruction: str = ""
    executed: tuple[ColumnRule, ...] = ()
    aux: Mapping[str, str] = field(default_factory=dict)
    time_column: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, rules, members in (
            ("state", self.state, self.embodiment.state),
            ("action", self.action, self.embodiment.action),
            ("executed action", self.executed, self.embodiment.action if self.executed else ()),
        ):
            _match(f"{kind} field", [r.field for r in rules], [f.name for f in members], self.embodiment.name)
        cameras = [c.name for c in self.embodiment.cameras]
        _match("camera", [r.camera for r in self.cameras], cameras, self.embodiment.name)
        if self.action_lag < 0:
            raise EmbodimentError(f"action_lag is {self.action_lag}: labels cannot lie in the past.")
        if self.skip_first < 0 or self.skip_last < 0:
            raise EmbodimentError(
                f"skip_first is {self.skip_first} and skip_last {self.skip_last}, expected 0 or more."
            )
        if self.ranges not in get_args(Ranges):
            raise UnknownNameError(f"ranges of {self.embodiment.name!r}", self.ranges, get_args(Ranges))

    def with_cameras(self, columns: Collection[str]) -> DatasetDescription:
        """The same with no other cameras than those whose stored names are given."""
        rules = tuple(rule for rule in self.cameras if rule.column in columns)
        kept = {rule.camera for rule in rules}
        cameras = tuple(camera for camera in self.embodiment.cameras if camera.name in kept)
        return replace(self, cameras=rules, embodiment=replace(self.embodiment, cameras=cameras))

    def to_json(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DatasetDescription:
        """Strict inverse of :meth:`to_json`."""
        data = dict(data)
        version = data.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise EmbodimentError(
                f"A dataset description of format version {version}, this package reads {FORMAT_VERSION}. "
                f"{_LIKE}"
            )
        if missing := sorted({f.name for f in fields(cls) if _is_needed(f)} - set(data)):
            raise EmbodimentError(f"A dataset description lacks {quoted(missing)}. {_LIKE}")
        _check_keys(cls, data)
        rules = {
            key: tuple(_rule(ColumnRule, rule) for rule in data.get(key, ()))
            for key in ("state", "action", "executed")
        }
        cameras = tuple(_rule(CameraRule, rule) for rule in data.get("cameras", ()))
        embodiment = Embodiment.from_json(data["embodiment"])
        return cls(**{**data, **rules, "cameras": cameras, "embodiment": embodiment})

    @classmethod
    def load(cls, path: str | Path) -> DatasetDescription:
        """Read one from a file.

        Raises:
            EmbodimentError: no such file, or what it says is no description; names the file.
        """
        data = read_json(Path(path), EmbodimentError, "Make one with 'vla data solve'.")
        try:
            return cls.from_json(data)
        except VlaError as error:
            raise EmbodimentError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # values of the wrong kind
            raise EmbodimentError(
                f"{path}: an entry is missing or of the wrong kind ({type(error).__name__}: {error}). {_LIKE}"
            ) from error

    def save(self, path: str | Path) -> None:
        write_json(Path(path), self.to_json())


def description_path(dataset: Path) -> Path:
    """Where the description of a data set is looked for."""
    if dataset.is_dir():
        return dataset / "embodiment.json"
    return dataset.with_name(dataset.name + ".embodiment.json")


def _is_needed(member: Any) -> bool:
    return member.default is MISSING and member.default_factory is MISSING


def _match(kind: str, given: list[str], wanted: list[str], owner: str) -> None:
    for name in given:
        if name not in wanted:
            raise UnknownNameError(f"{kind} of {owner!r}", name, wanted)
    if sorted(given) != sorted(wanted):
        missing = sorted(set(wanted) - set(given)) or [n for n in wanted if given.count(n) > 1]
        raise EmbodimentError(
            f"{owner!r}: exactly one rule for each {kind} is needed; look at {quoted(missing)}."
        )


def _rule(cls: type, data: Mapping[str, Any]) -> Any:
    _check_keys(cls, data)
    if missing := sorted({f.name for f in fields(cls) if _is_needed(f)} - set(data)):
        raise EmbodimentError(f"A {cls.__name__} lacks {quoted(missing)}: {json.dumps(dict(data))}.")
    for member in fields(cls):
        kind: Any = str if _is_needed(member) else type(member.default)
        value = data.get(member.name, member.default)
        if member.name in data and (
            not isinstance(value, (int, float) if kind is float else kind)
            or (isinstance(value, bool) and kind is not bool)
        ):
            raise EmbodimentError(
                f"{member.name!r} of a {cls.__name__} is {value!r}, expected a {kind.__name__}: "
                f"{json.dumps(dict(data))}."
            )
    return cls(**data)


def _check_keys(cls: type, data: Mapping[str, Any]) -> None:
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise UnknownNameError(f"{cls.__name__} key", key, known)
