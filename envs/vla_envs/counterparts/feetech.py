"""A bus of Feetech STS3215 servos (protocol 0), byte for byte, with registers that behave.

packet  FF FF id length instruction parameters checksum;  length counts what follows it,
        checksum = ~(id + length + instruction + parameters) & FF;  numbers are little-endian
answer  FF FF id length status parameters checksum

Addresses and meanings: Feetech's STS/SMS memory table, as lerobot 0.6.1 and Feetech's SDK use them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from vla_envs.counterparts.faults import Faults
from vla_envs.counterparts.mounting import COUNTS, Mounting
from vla_envs.counterparts.plants import Plant

PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 1, 2, 3, 4, 5, 0x82, 0x83
BROADCAST = 0xFE
MODEL_STS3215 = 777

FIRMWARE, MODEL, ID, RETURN_DELAY, RESPONSE_LEVEL = 0, 3, 5, 7, 8
MIN_LIMIT, MAX_LIMIT, MAX_TORQUE, PHASE, OFFSET, MODE = 9, 11, 16, 18, 31, 33
TORQUE_ENABLE, GOAL, TORQUE_LIMIT, LOCK = 40, 42, 48, 55
POSITION, SPEED, LOAD, VOLTAGE, TEMPERATURE, STATUS, MOVING, CURRENT = 56, 58, 60, 62, 63, 65, 66, 69
NUM_REGISTERS = 96
EEPROM_END = 40  # below lies what a power cycle keeps
READ_ONLY = (*range(5), *range(POSITION, 71))
CENTRE_HERE = 128  # written to the torque register: makes the present position 2048

STATUS_VOLTAGE, STATUS_HOT, STATUS_OVERLOAD = 1, 4, 32
FACTORY: dict[int, bytes] = {
    FIRMWARE: bytes((3, 10)), MODEL: struct.pack("<H", MODEL_STS3215), RETURN_DELAY: bytes((250,)),
    RESPONSE_LEVEL: bytes((1,)), MIN_LIMIT: struct.pack("<H", 0), MAX_LIMIT: struct.pack("<H", 4095),
    13: bytes((70, 80, 40)), MAX_TORQUE: struct.pack("<H", 1000), PHASE: bytes((12,)), 19: bytes((44, 47)),
    21: bytes((32, 32, 0)), 28: struct.pack("<H", 500), 34: bytes((20, 200, 80)), 85: bytes((50,)),
}  # fmt: skip


def signed(value: int, bit: int) -> int:
    """Sign-magnitude: ``bit`` says minus."""
    return (-value | 1 << bit) & 0xFFFF if value < 0 else value


def unsigned(word: int, bit: int) -> int:
    """Inverse of :func:`signed`."""
    magnitude = word & (1 << bit) - 1
    return -magnitude if word >> bit & 1 else magnitude


@dataclass(eq=False)
class Servo:
    """One servo: its memory, and the joint it moves."""

    mounting: Mounting
    plant: Plant
    faults: Faults
    memory: bytearray = field(default_factory=lambda: bytearray(NUM_REGISTERS))
    stored: bytearray = field(default_factory=lambda: bytearray(EEPROM_END))
    waiting: tuple[int, bytes] | None = None
    tripped: int = 0

    def __post_init__(self) -> None:
        for address, content in FACTORY.items():
            self.memory[address : address + len(content)] = content
        self.memory[ID] = self.mounting.servo
        self.stored[:] = self.memory[:EEPROM_END]
        self.power_up()

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory[address : address + 2], "little")

    def put(self, address: int, word: int) -> None:
        self.memory[address : address + 2] = word.to_bytes(2, "little")

    @property
    def offset(self) -> int:
        return unsigned(self.word(OFFSET), 11)

    @property
    def position(self) -> int:
        """What it reports: encoder less homing offset."""
        angle = float(self.plant.angles[self.mounting.joint])
        return (self.mounting.raw(angle) - self.offset) % COUNTS

    def power_up(self) -> None:
        """What a cycle of the supply leaves: the stored half of the memory, no torque."""
        self.memory[:EEPROM_END] = self.stored
        self.memory[EEPROM_END:] = bytes(NUM_REGISTERS - EEPROM_END)
        self.memory[LOCK], self.waiting, self.tripped = 1, None, 0
        self.put(TORQUE_LIMIT, self.word(MAX_TORQUE))
        self.put(GOAL, self.position)
        self.drive()

    def hold_here(self) -> None:
        """Torque on, goal where it stands."""
        self.put(GOAL, self.position)
        self.memory[TORQUE_ENABLE] = 1
        self.drive()

    def status(self) -> int:
        """Bits of everything it complains about; protection trips stay until torque is switched off."""
        servo = self.mounting.servo
        if self.faults.has("overload", servo):
            self.tripped |= STATUS_OVERLOAD
        if self.faults.has("overheat", servo):
            self.tripped |= STATUS_HOT
        return self.tripped | (STATUS_VOLTAGE if self.faults.has("voltage", servo) else 0)

    def refresh(self) -> None:
        """Measured registers as they are now; a trip makes it limp."""
        joint = self.mounting.joint
        before, status = self.memory[STATUS], self.status()
        per_turn = COUNTS / (2 * np.pi) * self.mounting.direction
        self.put(POSITION, self.position)
        self.put(SPEED, signed(round(float(self.plant.speeds[joint]) * per_turn), 15))
        self.put(LOAD, signed(round(float(self.plant.loads[joint]) * 1000 * self.mounting.direction), 10))
        self.memory[VOLTAGE] = 45 if status & STATUS_VOLTAGE else 74
        self.memory[TEMPERATURE] = 81 if status & STATUS_HOT else 35
        self.memory[STATUS] = status
        self.memory[MOVING] = int(abs(self.plant.speeds[joint]) > 0.02)
        if status != before:
            self.drive()

    def write(self, address: int, content: bytes) -> None:
        """Registers that may be written; behind the lock only until the next power-up."""
        for i, value in enumerate(content, address):
            if i >= NUM_REGISTERS or i in READ_ONLY:
                continue
            self.memory[i] = value
            if i < EEPROM_END and not self.memory[LOCK]:
                self.stored[i] = value
        touched = range(address, address + len(content))
        if TORQUE_ENABLE in touched:
            if self.memory[TORQUE_ENABLE] == CENTRE_HERE:
                raw = (self.position + self.offset) % COUNTS
                self.put(OFFSET, signed((raw - COUNTS // 2 + 2048) % COUNTS - 2048, 11))
                self.stored[OFFSET : OFFSET + 2] = self.memory[OFFSET : OFFSET + 2]
                self.memory[TORQUE_ENABLE] = 0
            if not self.memory[TORQUE_ENABLE]:
                self.tripped = 0
        self.drive()

    def drive(self) -> None:
        """Pull the joint to the goal, as far as limits, torque and protection let it."""
        joint = self.mounting.joint
        limp = not self.memory[TORQUE_ENABLE] or self.tripped
        if limp or self.faults.has("silent", self.mounting.servo):
            self.plant.drive(joint, None, 0.0)
            return
        low, high = self.word(MIN_LIMIT), self.word(MAX_LIMIT)
        goal = unsigned(self.word(GOAL), 15)
        goal = min(max(goal, low), high) if high > low else goal
        torque = min(self.word(TORQUE_LIMIT), self.word(MAX_TORQUE)) / 1000
        self.plant.drive(joint, self.mounting.angle(goal + self.offset), torque)


class FeetechBus:
    """Servos on one wire; see the module's docstring for what is on it."""

    def __init__(self, plant: Plant, mounted: list[Mounting], faults: Faults) -> None:
        self.faults = faults
        self.servos = {m.servo: Servo(m, plant, faults) for m in mounted}
        self._buffer = bytearray()

    def hold_here(self) -> None:
        for servo in self.servos.values():
            servo.hold_here()

    def power_up(self) -> None:
        for servo in self.servos.values():
            servo.power_up()

    def refresh(self) -> None:
        """Let injected faults act on the servos, asked or not."""
        for servo in self.servos.values():
            servo.refresh()
            servo.drive()

    def tick(self, time_s: float) -> None:
        """These servos have no deadman: nothing happens."""

    def calibrate_truly(self) -> None:
        """Homing offsets and limits in their memories as a perfect calibration leaves them."""
        for servo in self.servos.values():
            m, plant = servo.mounting, servo.plant
            middle = float(plant.low[m.joint] + plant.high[m.joint]) / 2
            homing = (m.raw(middle) - 2047 + 2048) % COUNTS - 2048
            servo.put(OFFSET, signed(homing, 11))
            ends = [m.raw(float(x)) - m.raw(middle) + 2047 for x in (plant.low[m.joint], plant.high[m.joint])]
            servo.put(MIN_LIMIT, max(0, min(ends)))
            servo.put(MAX_LIMIT, min(4095, max(ends)))
            servo.stored[:] = servo.memory[:EEPROM_END]
            servo.put(GOAL, servo.position)
            servo.drive()

    def truth(self) -> list[dict[str, int]]:
        """What a calibration has to find out, and what stands in the memories."""
        return [
            {
                "id": s.mounting.servo,
                "direction": s.mounting.direction,
                "zero_count": (s.mounting.raw_zero - s.offset) % COUNTS,
                "homing_offset": s.offset,
                "min_count": s.word(MIN_LIMIT),
                "max_count": s.word(MAX_LIMIT),
                "torque": s.memory[TORQUE_ENABLE],
                "goal": s.word(GOAL),
            }
            for s in self.servos.values()
        ]

    def forget(self) -> None:
        """Give up on a packet that has come to a halt: what follows is a new one."""
        self._buffer.clear()

    def receive(self, data: bytes) -> bytes:
        """What the bus answers to these bytes."""
        self._buffer += data
        wire = b""
        while (packet := self._next_packet()) is not None:
            wire += self.faults.line(self._answers(*packet))
        return wire

    def _next_packet(self) -> tuple[int, int, bytes] | None:
        """The next whole packet: id, instruction, parameters. A damaged one is skipped byte by byte."""
        buffer = self._buffer
        while len(buffer) >= 2:
            if buffer[:2] != b"\xff\xff" or (len(buffer) > 2 and buffer[2] == 0xFF):
                del buffer[0]
            elif len(buffer) < 4:
                return None
            elif not 2 <= buffer[3] <= 250:
                del buffer[0]
            elif len(buffer) < buffer[3] + 4:
                return None
            elif ~sum(buffer[2 : buffer[3] + 3]) & 0xFF != buffer[buffer[3] + 3]:
                del buffer[0]
            else:
                length = buffer[3]
                packet = buffer[2], buffer[4], bytes(buffer[5 : length + 3])
                del buffer[: length + 4]
                return packet
        return None

    def _answers(self, ident: int, instruction: int, parameters: bytes) -> list[tuple[int, bytes]]:
        alive = {i: s for i, s in self.servos.items() if not self.faults.has("silent", i)}
        if instruction == SYNC_READ and len(parameters) >= 2:
            address, size = parameters[0], parameters[1]
            return [(i, self._read(alive[i], address, size)) for i in parameters[2:] if i in alive]
        if instruction == SYNC_WRITE and len(parameters) >= 2:
            address, size = parameters[0], parameters[1]
            for start in range(2, len(parameters) - size, size + 1):
                if (target := alive.get(parameters[start])) is not None:
                    target.write(address, parameters[start + 1 : start + 1 + size])
            return []
        if ident == BROADCAST:
            told = [self._one(s, instruction, parameters) for s in alive.values()]
            return list(zip(alive, told, strict=True)) if instruction == PING else []
        if ident not in alive:
            return []
        return [(ident, self._one(alive[ident], instruction, parameters))]

    def _one(self, servo: Servo, instruction: int, parameters: bytes) -> bytes:
        if instruction == READ and len(parameters) == 2:
            return self._read(servo, parameters[0], parameters[1])
        if instruction == WRITE and parameters:
            servo.write(parameters[0], parameters[1:])
        elif instruction == REG_WRITE and parameters:
            servo.waiting = parameters[0], parameters[1:]
        elif instruction == ACTION and servo.waiting is not None:
            servo.write(*servo.waiting)
            servo.waiting = None
        return self._answer(servo, b"")

    def _read(self, servo: Servo, address: int, size: int) -> bytes:
        servo.refresh()
        return self._answer(servo, bytes(servo.memory[address : address + size]).ljust(size, b"\0"))

    def _answer(self, servo: Servo, parameters: bytes) -> bytes:
        body = bytes((servo.mounting.servo, len(parameters) + 2, servo.status())) + parameters
        return b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))
