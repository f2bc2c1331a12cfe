"""What can go wrong on a servo bus, switched on and off from outside while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vla.errors import UnknownNameError

#: kind -> what happens. Those with a count happen to the next ``count`` answers, the others until cleared.
KINDS = {
    "silent": "the servo has no power: it neither obeys nor answers",
    "lost": "an answer does not arrive (count)",
    "bad_checksum": "an answer arrives with a wrong checksum (count)",
    "truncated": "an answer breaks off in the middle, and with it all behind it (count)",
    "garbage": "noise stands before an answer (count)",
    "overload": "the servo reports an overload and goes limp",
    "overheat": "the servo reports too high a temperature and goes limp",
    "voltage": "the servo reports a supply voltage out of range",
}
COUNTED = frozenset({"lost", "bad_checksum", "truncated", "garbage"})
NOISE = bytes((0x00, 0xFF, 0x13, 0xFF, 0xFF, 0xFF, 0x7F, 0xA5))


@dataclass
class Faults:
    """Those in force: kind -> servo id -> how often still (-1: until cleared)."""

    active: dict[str, dict[int, int]] = field(default_factory=dict)

    def inject(self, kind: str, servo: int, count: int = -1) -> None:
        if kind not in KINDS:
            raise UnknownNameError("fault of a servo bus", kind, KINDS)
        self.active.setdefault(kind, {})[servo] = count if kind in COUNTED else -1

    def clear(self) -> None:
        self.active.clear()

    def has(self, kind: str, servo: int) -> bool:
        return servo in self.active.get(kind, {})

    def line(self, answers: Iterable[tuple[int, bytes]]) -> bytes:
        """What is on the wire of ``(servo id, answer)`` in order, faults included."""
        wire = b""
        for servo, sent in answers:
            answer = sent
            if self._happens("lost", servo):
                continue
            if self._happens("truncated", servo):
                return wire + answer[: len(answer) // 2]
            if self._happens("bad_checksum", servo):
                answer = answer[:-1] + bytes((answer[-1] ^ 0x55,))
            if self._happens("garbage", servo):
                answer = NOISE + answer
            wire += answer
        return wire

    def _happens(self, kind: str, servo: int) -> bool:
        left = self.active.get(kind, {})
        if servo not in left:
            return False
        if left[servo] > 0:
            left[servo] -= 1
            if left[servo] == 0:
                del left[servo]
        return True
