"""Feetech STS servos (SO-100, SO-101) through Feetech's own client, ``scservo_sdk`` of feetech-servo-sdk.

That client's group read throws away the status that says what a servo complains about, so the answers to a
sync read are read one by one here; for its port see ``client_port``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from vla.errors import MissingExtraError
from vla.robots.client_port import ClientPort
from vla.robots.servo_bus import ServoError, ServoMemory, ServoState, bits

# Feetech's memory table of the STS series; numbers are little-endian, signs in the highest bit of the number.
RETURN_DELAY, MIN_LIMIT, OFFSET, MODE = 7, 9, 31, 33
TORQUE_ENABLE, ACCELERATION, GOAL, TORQUE_LIMIT, LOCK = 40, 41, 42, 48, 55
POSITION, VOLTAGE, TEMPERATURE, STATUS = 56, 62, 63, 65
NUM_READ = STATUS + 1 - TORQUE_ENABLE  # all that is read in one exchange, from the torque register on
POSITION_MODE = 0
ALERTS = {1: "voltage", 2: "sensor", 4: "overheat", 8: "current", 32: "overload"}
FASTEST = 254  # acceleration: no ramp of the servo's own, the driver makes it


class FeetechBus:
    """STS servos behind one port; see :class:`vla.robots.servo_bus.ServoBus`.

    Args:
        port: e.g. ``/dev/ttyACM0``.
        baudrate: bits per second.

    Raises:
        MissingExtraError: the client is not installed.
    """

    models: Mapping[int, str] = {777: "sts3215", 2825: "sts3250"}
    encoder_minus_offset = True

    def __init__(self, port: str, *, baudrate: int = 1_000_000) -> None:
        sdk = _client()
        self._packets = sdk.PacketHandler(0)
        self._port = ClientPort(sdk, self._packets, port, baudrate)
        self.port = port

    @property
    def repeated(self) -> int:
        return self._port.repeated

    def open(self) -> None:
        self._port.open()

    def close(self) -> None:
        self._port.close()

    def ping(self, servo: int) -> int:
        return self._port.ping(servo)

    def read(self, servos: Collection[int]) -> dict[int, ServoState]:
        ids = list(servos)
        found = self._port.ask_all(
            ids,
            NUM_READ,
            lambda port: self._packets.syncReadTx(port, TORQUE_ENABLE, NUM_READ, ids, len(ids)),
        )
        return {servo: _state(*answer) for servo, answer in found.items()}

    def send(self, goals: Mapping[int, int]) -> None:
        content = [x for servo, goal in goals.items() for x in (servo, *_signed(goal, 15))]
        self._port.tell(
            tuple(goals), lambda port: self._packets.syncWriteTxOnly(port, GOAL, 2, content, len(content))
        )

    def set_torque(self, servos: Collection[int], *, on: bool) -> None:
        for servo in servos:
            self._write(servo, TORQUE_ENABLE, [int(on)])

    def limit_torque(self, servo: int, share: float) -> None:
        self._write(servo, TORQUE_LIMIT, list(round(1000 * share).to_bytes(2, "little")))
        self._write(servo, ACCELERATION, [FASTEST])

    def read_memory(self, servo: int) -> ServoMemory:
        limits = self._read(servo, MIN_LIMIT, 4)
        return ServoMemory(
            homing_offset=_number(self._read(servo, OFFSET, 2), 11),
            min_count=_number(limits[:2], 15),
            max_count=_number(limits[2:], 15),
            position_mode=self._read(servo, MODE, 1)[0] == POSITION_MODE,
        )

    def write_memory(self, servo: int, memory: ServoMemory) -> None:
        self._write(servo, LOCK, [0])
        self._write(servo, RETURN_DELAY, [0])
        self._write(servo, MODE, [POSITION_MODE])
        self._write(servo, OFFSET, _signed(memory.homing_offset, 11))
        self._write(servo, MIN_LIMIT, [*_signed(memory.min_count, 15), *_signed(memory.max_count, 15)])
        self._write(servo, LOCK, [1])

    def guard(self, servos: Collection[int], silence_s: float | None) -> bool:
        return False

    def recover(self, servo: int) -> None:
        self._write(servo, TORQUE_ENABLE, [0])

    def _read(self, servo: int, address: int, size: int) -> bytes:
        return bytes(self._port.ask(servo, lambda port: self._packets.readTxRx(port, servo, address, size)))

    def _write(self, servo: int, address: int, content: list[int]) -> None:
        def write(port: Any) -> tuple[None, int, int]:
            return None, *self._packets.writeTxRx(port, servo, address, len(content), content)

        self._port.ask(servo, write)


def _state(data: bytes, status: int) -> ServoState:
    first = TORQUE_ENABLE
    return ServoState(
        position=_number(data[POSITION - first : POSITION - first + 2], 15),
        voltage_v=data[VOLTAGE - first] / 10,
        temperature_c=float(data[TEMPERATURE - first]),
        alerts=bits(status | data[STATUS - first], ALERTS),
        holding=data[0] == 1,
    )


def _number(data: bytes, bit: int) -> int:
    """Sign and magnitude, ``bit`` saying minus."""
    word = int.from_bytes(data, "little")
    magnitude = word & (1 << bit) - 1
    return -magnitude if word >> bit & 1 else magnitude


def _signed(value: int, bit: int) -> list[int]:
    """Inverse of :func:`_number`, two bytes."""
    if abs(value) >= 1 << bit:
        raise ServoError(f"{value} counts do not fit a register of {bit} bits and a sign.", cause="refused")
    return list((abs(value) | (value < 0) << bit).to_bytes(2, "little"))


def _client() -> ModuleType:
    try:
        import scservo_sdk
    except ImportError as error:
        raise MissingExtraError("feetech-servo-sdk", "feetech", "Driving an SO-100 or SO-101") from error
    if not hasattr(scservo_sdk, "PacketHandler"):
        raise MissingExtraError(
            "feetech-servo-sdk, whose module scservo_sdk another distribution (ftservo-python-sdk) has "
            "replaced: uninstall that one;",
            "feetech",
            "Driving an SO-100 or SO-101",
        )
    return scservo_sdk
