"""Dynamixel X servos (Koch, OMX, ALOHA and WidowX arms) through ROBOTIS' own client, ``dynamixel_sdk``."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from vla.errors import MissingExtraError
from vla.robots.client_port import ClientPort
from vla.robots.servo_bus import ServoMemory, ServoState, bits, gone_silent

# ROBOTIS' control table of the X series; numbers are little-endian, 4-byte ones signed.
MODE, OFFSET, MAX_LIMIT = 11, 20, 48  # the lower limit follows the upper one
TORQUE_ENABLE, HARDWARE_ERROR, WATCHDOG, GOAL_PWM, GOAL = 64, 70, 98, 100, 116
MEASURED, NUM_MEASURED = 132, 15  # position (4 bytes), two trajectories (4 each), voltage (2), temperature
NUM_CONDITION = HARDWARE_ERROR + 1 - TORQUE_ENABLE
POSITION_MODE = 3
ALERTS = {1: "voltage", 4: "overheat", 8: "sensor", 16: "shock", 32: "overload"}
ALERT_BIT = 0x80
WATCHDOG_UNIT_S, MAX_WATCHDOG = 0.02, 127
FULL_PWM = 885
#: A servo that reboots answers again within this many tries, s apart.
REBOOT_TRIES, REBOOT_S = 20, 0.1


class DynamixelBus:
    """X series servos behind one port, in position mode; see :class:`vla.robots.servo_bus.ServoBus`.

    Args:
        port: e.g. ``/dev/ttyUSB0``.
        baudrate: bits per second.

    Raises:
        MissingExtraError: the client is not installed.
    """

    models: Mapping[int, str] = {
        1060: "xl430-w250", 1070: "xc430-w150", 1080: "xc430-w240", 1190: "xl330-m077", 1200: "xl330-m288",
        1020: "xm430-w350", 1030: "xm430-w210", 1120: "xm540-w270", 1130: "xm540-w150",
    }  # fmt: skip
    encoder_minus_offset = False

    def __init__(self, port: str, *, baudrate: int = 1_000_000) -> None:
        sdk = _client()
        self._packets = sdk.PacketHandler(2.0)
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
        measured = self._read_all(ids, MEASURED, NUM_MEASURED)
        condition = self._read_all(ids, TORQUE_ENABLE, NUM_CONDITION)
        return {servo: _state(measured[servo], condition[servo]) for servo in ids}

    def send(self, goals: Mapping[int, int]) -> None:
        content = [x for servo, goal in goals.items() for x in (servo, *_bytes(goal, 4))]
        self._port.tell(
            tuple(goals), lambda port: self._packets.syncWriteTxOnly(port, GOAL, 4, content, len(content))
        )

    def set_torque(self, servos: Collection[int], *, on: bool) -> None:
        for servo in servos:
            self._write(servo, TORQUE_ENABLE, [int(on)])

    def limit_torque(self, servo: int, share: float) -> None:
        self._write(servo, GOAL_PWM, _bytes(round(FULL_PWM * share), 2))

    def read_memory(self, servo: int) -> ServoMemory:
        limits, offset = self._read(servo, MAX_LIMIT, 8), self._read(servo, OFFSET, 4)
        return ServoMemory(
            homing_offset=int.from_bytes(offset, "little", signed=True),
            min_count=int.from_bytes(limits[4:], "little", signed=True),
            max_count=int.from_bytes(limits[:4], "little", signed=True),
            position_mode=self._read(servo, MODE, 1)[0] == POSITION_MODE,
        )

    def write_memory(self, servo: int, memory: ServoMemory) -> None:
        self._write(servo, MODE, [POSITION_MODE])
        self._write(servo, OFFSET, _bytes(memory.homing_offset, 4))
        self._write(servo, MAX_LIMIT, [*_bytes(memory.max_count, 4), *_bytes(memory.min_count, 4)])

    def guard(self, servos: Collection[int], silence_s: float | None) -> bool:
        units = 0 if silence_s is None else min(MAX_WATCHDOG, math.ceil(silence_s / WATCHDOG_UNIT_S))
        for servo in servos:
            self._write(servo, WATCHDOG, [units])
        return True

    def recover(self, servo: int) -> None:
        self._port.ask(servo, lambda port: (None, *self._packets.reboot(port, servo)))
        for _ in range(REBOOT_TRIES):
            time.sleep(REBOOT_S)
            if self._port.answers(servo):
                return
        raise gone_silent(self.port, [servo], [servo])

    def _read_all(self, ids: list[int], address: int, size: int) -> dict[int, bytes]:
        found = self._port.ask_all(
            ids, size, lambda port: self._packets.syncReadTx(port, address, size, ids, len(ids), False)
        )
        return {servo: data for servo, (data, _) in found.items()}

    def _read(self, servo: int, address: int, size: int) -> bytes:
        return bytes(
            self._port.ask(
                servo, lambda port: self._packets.readTxRx(port, servo, address, size), self._refusal
            )
        )

    def _write(self, servo: int, address: int, content: list[int]) -> None:
        def write(port: Any) -> tuple[None, int, int]:
            return None, *self._packets.writeTxRx(port, servo, address, len(content), content)

        self._port.ask(servo, write, self._refusal)

    def _refusal(self, error: int) -> str:
        return self._packets.getRxPacketError(error & ~ALERT_BIT)


def _state(measured: bytes, condition: bytes) -> ServoState:
    return ServoState(
        position=int.from_bytes(measured[:4], "little", signed=True),
        voltage_v=int.from_bytes(measured[12:14], "little") / 10,
        temperature_c=float(measured[14]),
        alerts=bits(condition[HARDWARE_ERROR - TORQUE_ENABLE], ALERTS),
        holding=condition[0] == 1,
    )


def _bytes(value: int, size: int) -> list[int]:
    return list(value.to_bytes(size, "little", signed=True))


def _client() -> ModuleType:
    try:
        import dynamixel_sdk
    except ImportError as error:
        raise MissingExtraError("dynamixel-sdk", "dynamixel", "Driving Dynamixel servos") from error
    return dynamixel_sdk
