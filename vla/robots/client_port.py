"""A serial port as Feetech's and ROBOTIS' client libraries hold it, made patient.

Both libraries descend from one. Three things of their port are replaced here:

* it times answers by the wall clock, so that setting the clock makes it wait for ever: the monotonic one is
  used;
* it polls without pause and starves every other thread of the process: it waits for bytes, a millisecond at
  a time;
* it gives up by the clock alone, so that a host that was held up for a moment takes an answer for lost that
  it has not looked for: it has to have looked a number of times as well.

An answer says which servo it is from, but not to what: one that comes too late would be taken for the next.
So before anything is asked again, the line has to fall quiet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, TypeVar

from vla.robots.servo_bus import ServoError, gone_silent, port_errors

T = TypeVar("T")

#: An answer is waited for this long, s, beyond the time its bytes take (adapters hand bytes on every 16 ms).
REPLY_S = 0.05
#: ... and looked for this often, a millisecond each.
LEAST_LOOKS = 25
LOOK_S = 0.001
#: After a failed exchange the line is quiet when nothing has come for the first time, or all of the second
#: is over.
QUIET_S, MAX_NOISE_S = 0.03, 0.3
#: A question is asked at most this often.
ATTEMPTS = 3


class ClientPort:
    """One port of one client library.

    Args:
        sdk: the library.
        packets: its packet handler.
        name: e.g. ``/dev/ttyACM0``.
        baudrate: bits per second, one that the library knows.
    """

    def __init__(self, sdk: ModuleType, packets: Any, name: str, baudrate: int) -> None:
        self.name, self.repeated = name, 0
        self._sdk, self._packets, self._baudrate = sdk, packets, baudrate
        self._handler: Any = None

    def open(self) -> None:
        self.close()
        with port_errors(self.name):
            handler = _patient(self._sdk)(self.name)
            handler.baudrate = self._baudrate
            opened = handler.openPort()
            if opened:
                handler.ser.timeout = LOOK_S
        if not opened:
            raise ServoError(f"{self.name} cannot run at {self._baudrate} baud.", cause="port")
        self._handler, self.repeated = handler, 0

    def close(self) -> None:
        if self._handler is not None:
            handler, self._handler = self._handler, None
            with port_errors(self.name):
                handler.closePort()

    def ask(
        self,
        servo: int,
        exchange: Callable[[Any], tuple[T, int, int]],
        refusal: Callable[[int], str] = lambda _: "",
    ) -> T:
        """One servo's answer.

        Args:
            servo: its id.
            exchange: port -> answer, result and error byte, as the library gives them.
            refusal: error byte -> what the servo refused, empty if nothing.
        """
        result = 0
        for attempt in range(ATTEMPTS):
            with port_errors(self.name):
                answer, result, error = exchange(self._fresh())
            if result == self._sdk.COMM_SUCCESS:
                if refused := refusal(error):
                    raise ServoError(f"Servo {servo}: {refused}", servos=(servo,), cause="refused")
                return answer
            self._fall_quiet()
            self.repeated += attempt + 1 < ATTEMPTS
        silent = [servo] if result == self._sdk.COMM_RX_TIMEOUT else []
        raise gone_silent(self.name, [servo], silent, damaged=(servo,))

    def ask_all(
        self, servos: Collection[int], size: int, request: Callable[[Any], int]
    ) -> dict[int, tuple[bytes, int]]:
        """``size`` bytes and the error byte of each servo, answers to one ``request`` (port -> result)."""
        failed: dict[int, int] = {}
        for attempt in range(ATTEMPTS):
            found: dict[int, tuple[bytes, int]] = {}
            with port_errors(self.name):
                port = self._fresh()
                self._check(request(port), servos)
                for servo in servos:
                    data, result, error = self._packets.readRx(port, servo, size)
                    if result != self._sdk.COMM_SUCCESS or len(data) != size:
                        failed[servo] = result
                        break
                    found[servo] = bytes(data), error
            if len(found) == len(servos):
                return found
            self._fall_quiet()
            self.repeated += attempt + 1 < ATTEMPTS
        silent = [servo for servo in servos if not self.answers(servo)]
        if not silent and set(failed.values()) == {self._sdk.COMM_RX_TIMEOUT}:
            raise ServoError(
                f"Servo {', '.join(map(str, failed))} on {self.name} answers, but {ATTEMPTS} times not "
                f"within "
                f"{1e3 * REPLY_S:.0f} ms: the host is overloaded, or the adapter hands bytes on too seldom. "
                "connect() again.",
                servos=tuple(failed),
                cause="late",
            )
        raise gone_silent(self.name, servos, silent, damaged=tuple(failed))

    def tell(self, servos: Collection[int], request: Callable[[Any], int]) -> None:
        """Send what nobody answers."""
        with port_errors(self.name):
            result = request(self._fresh())
        self._check(result, servos)

    def ping(self, servo: int) -> int:
        """Model number."""
        return self.ask(servo, lambda port: self._packets.ping(port, servo))

    def answers(self, servo: int) -> bool:
        """Whether it answers a ping, be it with a damaged answer."""
        try:
            self.ping(servo)
        except ServoError as error:
            if error.cause == "port":
                raise
            return error.cause != "silent"
        return True

    def _fall_quiet(self) -> None:
        """Wait for what is still to come of an exchange that failed, and throw it away."""
        with port_errors(self.name):
            serial, deadline_s = self._handler.ser, time.monotonic() + MAX_NOISE_S
            serial.timeout = QUIET_S
            while serial.read(256) and time.monotonic() < deadline_s:
                pass
            serial.timeout = LOOK_S

    def _fresh(self) -> Any:
        """The port, ready for a question."""
        if self._handler is None:
            raise ServoError(f"The port {self.name} is not open: connect() first.", cause="port")
        self._handler.ser.reset_input_buffer()
        self._handler.is_using = False  # an error inside the library leaves it set
        return self._handler

    def _check(self, result: int, servos: Collection[int]) -> None:
        if result != self._sdk.COMM_SUCCESS:
            self._handler.is_using = False
            said = self._packets.getTxRxResult(result)
            raise ServoError(f"Writing to {self.name} failed: {said}", servos=servos, cause="port")


def _patient(sdk: ModuleType) -> Any:
    """The library's port class, its clock and time limits replaced."""

    class Port(sdk.PortHandler):  # type: ignore[name-defined, misc]
        looks = 0

        def getCurrentTime(self) -> float:
            return time.monotonic() * 1e3

        def setPacketTimeout(self, packet_length: int) -> None:
            self.looks = 0
            self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + REPLY_S * 1e3)

        def isPacketTimeout(self) -> bool:
            self.looks += 1
            return self.looks >= LEAST_LOOKS and super().isPacketTimeout()

    return Port
