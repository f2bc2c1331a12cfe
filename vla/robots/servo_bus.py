"""What a bus of smart servos is to the driver of an arm, whoever makes the servos."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from vla.errors import RobotError

#: Positions of a whole turn, of STS3215 and Dynamixel X servos alike.
COUNTS = 4096
RAD_PER_COUNT = 2 * math.pi / COUNTS


class ServoError(RobotError):
    """A servo, or the bus as a whole, that cannot be relied on.

    Attributes:
        servos: ids of those concerned; empty: the bus itself.
        cause: ``port`` (cannot be opened or is gone), ``silent`` (no answer), ``late`` (it answers, but too
            late), ``damaged`` (answers that fail their checksum), ``refused`` (a write that the servo
            rejected), ``model`` (another servo than expected), ``limp`` (its torque went off unasked) or the
            name of an alert of :class:`ServoState`.
    """

    def __init__(self, message: str, *, servos: Collection[int] = (), cause: str) -> None:
        self.servos, self.cause = tuple(servos), cause
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class ServoState:
    """What one servo reports.

    Args:
        position: counts, homing offset included.
        voltage_v: of its supply.
        temperature_c: inside.
        alerts: ``voltage``, ``sensor``, ``overheat``, ``current``, ``shock``, ``overload``: what it complains
            about now. Of all but ``voltage`` it has gone limp until it is recovered.
        holding: its torque is switched on.
    """

    position: int
    voltage_v: float
    temperature_c: float
    alerts: tuple[str, ...]
    holding: bool


@dataclass(frozen=True, kw_only=True)
class ServoMemory:
    """What of a calibration stands in a servo's own memory: counts, and that it goes to positions at all."""

    homing_offset: int
    min_count: int
    max_count: int
    position_mode: bool = True


class ServoBus(Protocol):
    """Servos behind one serial port. Every method may raise :class:`ServoError`; none waits without a limit.

    Attributes:
        port: of the host, e.g. ``/dev/ttyACM0``.
        models: model number -> name of the servos it can drive.
        encoder_minus_offset: the reported position is the encoder's less the homing offset (Feetech), not
            plus.
    """

    port: str
    models: Mapping[int, str]
    encoder_minus_offset: bool

    @property
    def repeated(self) -> int:
        """Questions that had to be asked again since the port was opened."""
        ...

    def open(self) -> None:
        """Open the port, anew if it was open."""
        ...

    def close(self) -> None:
        """Let go of the port; the servos keep doing what they do."""
        ...

    def ping(self, servo: int) -> int:
        """Model number."""
        ...

    def read(self, servos: Collection[int]) -> dict[int, ServoState]:
        """All of them in one exchange."""
        ...

    def send(self, goals: Mapping[int, int]) -> None:
        """Goal positions in counts, all in one message."""
        ...

    def set_torque(self, servos: Collection[int], *, on: bool) -> None:
        """Hold, or go limp."""
        ...

    def limit_torque(self, servo: int, share: float) -> None:
        """At most this share of its torque, until the next power-up."""
        ...

    def read_memory(self, servo: int) -> ServoMemory: ...

    def write_memory(self, servo: int, memory: ServoMemory) -> None:
        """For good; the servo must be limp."""
        ...

    def guard(self, servos: Collection[int], silence_s: float | None) -> bool:
        """Have the servos stop by themselves after this silence (None: no more); False where they cannot."""
        ...

    def recover(self, servo: int) -> None:
        """Clear what a servo has latched. It is limp for a moment: **support the arm**."""
        ...


@contextlib.contextmanager
def port_errors(port: str) -> Iterator[None]:
    """What a serial port raises when it is not there or no more, as :class:`ServoError`."""
    import termios

    try:
        yield
    except (OSError, termios.error) as error:  # pyserial's own error is an OSError
        raise ServoError(
            f"The port {port} cannot be used: {error}. Ports here: {', '.join(serial_ports()) or 'none'}. "
            f"Check "
            "the cable (and that you may use the port: on Linux the group dialout); the servos hold their "
            "last goals. Then connect() again.",
            cause="port",
        ) from error


def serial_ports() -> list[str]:
    """Names of the serial ports of this machine."""
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports())


def bits(status: int, names: Mapping[int, str]) -> tuple[str, ...]:
    """Names of the bits that are set."""
    return tuple(name for bit, name in names.items() if status & bit)


def gone_silent(
    port: str, asked: Collection[int], silent: Collection[int], damaged: Collection[int] = ()
) -> ServoError:
    """The error that says which servos do not answer (or in pieces), and what that usually means."""
    if not silent:
        return ServoError(
            f"What servo {', '.join(map(str, damaged))} on {port} answers arrives damaged again and again: "
            f"look for "
            "a loose plug, a cable beside a motor's, or two servos of one id; then connect() again.",
            servos=damaged,
            cause="damaged",
        )
    if len(silent) == len(asked) > 1:
        return ServoError(
            f"No servo answers on {port} (asked for ids {', '.join(map(str, asked))}): switch the arm's own "
            "supply on and check the cable from the adapter to the first servo.",
            servos=silent,
            cause="silent",
        )
    return ServoError(
        f"Servo {', '.join(map(str, silent))} on {port} does not answer: look at its plug and the one "
        "before it in the chain (a servo that lost its supply is limp: support the arm), then connect() "
        "again.",
        servos=silent,
        cause="silent",
    )
