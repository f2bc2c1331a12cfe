"""Pickles read as data: an interpreter of the few opcodes that lerobot's messages need; it runs nothing.

lerobot 0.6's asynchronous inference sends pickles (CVE-2026-25874 is what that means for its own server).
``pickle`` is not imported here: names of classes stay names, and only those of ``CLASSES`` and of numpy's
arrays may stand in a message. Written are two calls, ``TimedAction`` and ``torch.tensor``, with numbers.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vla.errors import UnknownNameError, WireError
from vla.serve.wire import MAX_CONTAINERS, MAX_ENTRIES, array_of

#: Before and since numpy 2.
_CORES = ("core", "_core")
_HELPERS = "lerobot.async_inference.helpers"
#: Classes that a message may hold, and their fields.
CLASSES = {
    "RemotePolicyConfig": (
        "policy_type", "pretrained_name_or_path", "lerobot_features", "actions_per_chunk", "device",
        "rename_map",
    ),
    "TimedObservation": ("timestamp", "timestep", "observation", "must_go"),
}  # fmt: skip
#: Opcodes of one message: an observation of thirty numbers and four pictures has four hundred.
MAX_OPCODES = 1 << 13

_VALUES = frozenset(
    ["SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"]
    + ["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"]
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SCALARS = (str, bytes, int, float, type(None))


class ForeignClassError(WireError):
    """A pickle that names something which no message of the protocol needs."""


class _Name(NamedTuple):
    module: str
    name: str


@dataclass
class Record:
    """An object of one of ``CLASSES``: its name and what it holds."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Dtype:
    code: str
    order: str = ""


class _Unfilled:
    """An array whose contents come with the next opcode."""


_ALLOWED = frozenset(
    [_Name(_HELPERS, name) for name in CLASSES]
    + [_Name("numpy", "dtype"), _Name("numpy", "ndarray")]
    + [_Name(f"numpy.{core}.multiarray", "_reconstruct") for core in _CORES]
    + [_Name(f"numpy.{core}.multiarray", "scalar") for core in _CORES]
    + [_Name(f"numpy.{core}.numeric", "_frombuffer") for core in _CORES]
)


def read(data: bytes, wanted: str) -> dict[str, Any]:
    """The fields of the object of class ``wanted`` that a pickle describes; arrays are read-only.

    Raises:
        ForeignClassError: it names anything else; nothing was imported or called.
        WireError, UnknownNameError: it is damaged, or has what lerobot's messages have not.
    """
    try:
        found = _Reader().read(data)
    except WireError:
        raise
    except (ValueError, TypeError, LookupError, struct.error) as error:
        raise WireError(f"{len(data)} bytes that are no pickle of lerobot's: {error!s:.200}.") from error
    if not isinstance(found, Record) or found.name != wanted:
        given = found.name if isinstance(found, Record) else type(found).__name__
        raise WireError(f"A message with a {given}; expected a {wanted}.")
    for key in found.fields:
        if key not in CLASSES[wanted]:
            raise UnknownNameError(f"field of a {wanted}", key, CLASSES[wanted])
    return found.fields


class _Reader:
    """A stack and a memo; what is put down twice must be small, so that no message grows."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []
        self._containers = 0

    def read(self, data: bytes) -> Any:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number >= MAX_OPCODES:
                raise WireError(f"A pickle of more than {MAX_OPCODES} opcodes.")
            if number == 0 and (opcode.name != "PROTO" or argument not in (4, 5)):
                raise WireError("A pickle of another protocol than 4 or 5.")
            if opcode.name == "STOP":
                break
            self._do(opcode.name, argument)
        if len(self._stack) != 1 or self._marks:
            raise WireError("A pickle that leaves something over.")
        return self._stack[0]

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "MEMOIZE":
            self._memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(_small(self._memo[argument]))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            self._count()
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in _TUPLES or name == "TUPLE":
            self._count()
            stack.append(tuple(self._since_mark() if name == "TUPLE" else self._pop(_TUPLES[name])))
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else self._pop(1)
            self._top(list).extend(items)
            self._check(len(stack[-1]))
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._since_mark() if name == "SETITEMS" else self._pop(2))
        elif name == "STACK_GLOBAL":
            module, named = self._pop(2)
            stack.append(_known(module, named))
        elif name in ("REDUCE", "NEWOBJ"):
            named, given = self._pop(2)
            stack.append(_made(name, named, given))
        elif name == "BUILD":
            target, state = self._pop(2)
            stack.append(_filled(target, state))
        elif name not in ("PROTO", "FRAME"):
            raise WireError(f"A pickle with the opcode {name}, which lerobot's messages do not use.")

    def _count(self) -> None:
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise WireError(f"A message of more than {MAX_CONTAINERS} maps and lists.")

    def _check(self, entries: int) -> None:
        if entries > MAX_ENTRIES:
            raise WireError(f"A message with a list or map of more than {MAX_ENTRIES} entries.")

    def _pop(self, number: int) -> list[Any]:
        if len(self._stack) - (self._marks[-1] if self._marks else 0) < number:
            raise WireError("A pickle that takes more than it put down.")
        taken, self._stack[-number:] = self._stack[-number:], []
        return taken

    def _since_mark(self) -> list[Any]:
        taken = self._stack[(at := self._marks.pop()) :]
        del self._stack[at:]
        return taken

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise WireError(f"A pickle that fills a {type(self._stack[-1]).__name__} as a {kind.__name__}.")
        return self._stack[-1]

    def _set(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
            raise WireError("A pickle with a map whose keys are not texts.")
        target.update(zip(items[::2], items[1::2], strict=True))
        self._check(len(target))


def _small(value: Any) -> Any:
    flat = isinstance(value, tuple) and all(isinstance(item, _SCALARS) for item in value)
    if not isinstance(value, (*_SCALARS, _Dtype)) and type(value) is not _Name and not flat:
        raise WireError(f"A pickle that uses a {type(value).__name__} twice.")
    return value


def _known(module: Any, name: Any) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise WireError("A pickle with a class that is not named by texts.")
    if (named := _Name(module, name)) not in _ALLOWED:
        raise ForeignClassError(
            f"A pickle that names {f'{module}.{name}'!r:.120}; this server reads {', '.join(CLASSES)} and "
            "numpy arrays, and calls nothing."
        )
    return named


def _made(how: str, named: Any, given: Any) -> Any:
    """What stands for the result of a call that was asked for."""
    if type(named) is not _Name or not isinstance(given, tuple):
        raise WireError("A pickle with a call of what is no class.")
    match how, named.name, given:
        case "NEWOBJ", name, () if name in CLASSES:
            return Record(name)
        case "REDUCE", "dtype", (str(code), False, True):
            return _Dtype(code)
        case "REDUCE", "_reconstruct", (_Name(name="ndarray"), (0,), b"b"):
            return _Unfilled()
        case "REDUCE", "_frombuffer", (bytes() | bytearray() as data, _Dtype() as dtype, tuple(shape), order):
            return _array(dtype, shape, bytes(data), fortran=order == "F")
        case "REDUCE", "scalar", (_Dtype() as dtype, bytes(data)):
            return _array(dtype, (), data, fortran=False)[()]
    raise WireError(f"A pickle that calls {named.name} in a way that lerobot's messages do not.")


def _filled(target: Any, state: Any) -> Any:
    """What something is once its contents are known."""
    match target, state:
        case Record(fields={}), dict() if not target.fields:
            target.fields = state
            return target
        case _Dtype(order=""), (3, str(order), None, None, None, -1, -1, 0) if order in ("|", "<"):
            target.order = order
            return target
        case _Unfilled(), (1, tuple(shape), _Dtype() as dtype, bool(fortran), bytes(data)):
            return _array(dtype, shape, data, fortran=fortran)
    raise WireError(f"A pickle that fills a {type(target).__name__} as lerobot's messages do not.")


def _array(dtype: _Dtype, shape: tuple[Any, ...], data: bytes, *, fortran: bool) -> np.ndarray:
    sizes = list(shape)
    if fortran:
        return array_of(dtype.order + dtype.code, sizes[::-1], data).T
    return array_of(dtype.order + dtype.code, sizes, data)


def timed_actions(rows: np.ndarray, timestamps: Iterable[float], first: int) -> bytes:
    """A pickle of lerobot\'s ``TimedAction`` a row of float32 [n, action_dim], from step ``first`` on."""
    parts = [b"\x80\x02]("]
    for step, (row, timestamp) in enumerate(zip(rows, timestamps, strict=True), start=first):
        parts.append(f"c{_HELPERS}\nTimedAction\n(".encode() + b"G" + struct.pack(">d", timestamp))
        parts.append(b"J" + struct.pack("<i", step) + b"ctorch\ntensor\n(](")
        parts += [b"G" + struct.pack(">d", float(number)) for number in row]
        parts.append(b"etRtR")
    return b"".join(parts) + b"e."
