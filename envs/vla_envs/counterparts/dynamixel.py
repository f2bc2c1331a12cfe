"""A bus of Dynamixel X series servos (protocol 2.0), byte for byte, with registers that behave.

packet  FF FF FD 00 id length_low length_high instruction parameters crc_low crc_high
answer  the same with instruction 55 and an error byte before the parameters (bit 7: a hardware error stands)
FD behind FF FF in instruction and parameters is doubled; crc16 with polynomial 8005 over all before it.

Addresses and behaviour: ROBOTIS' e-manual of the X series and the control tables of dynamixel-sdk 4.1.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from vla_envs.counterparts.faults import Faults
from vla_envs.counterparts.mounting import Mounting
from vla_envs.counterparts.plants import Plant

PING, READ, WRITE, REG_WRITE, ACTION, REBOOT, STATUS = 1, 2, 3, 4, 5, 8, 0x55
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ = 0x82, 0x83, 0x8A
BULK_READ, BULK_WRITE, FAST_BULK_READ = 0x92, 0x93, 0x9A
BROADCAST = 0xFE
MODEL_XL430, MODEL_XL330_M288 = 1060, 1200

MODEL, FIRMWARE, ID, MODE, OFFSET, MAX_LIMIT, MIN_LIMIT = 0, 6, 7, 11, 20, 48, 52
TORQUE_ENABLE, HARDWARE_ERROR, WATCHDOG, GOAL = 64, 70, 98, 116
MOVING, LOAD, SPEED, POSITION, VOLTAGE, TEMPERATURE = 122, 126, 128, 132, 144, 146
NUM_REGISTERS = 256
EEPROM_END = 64
GOALS = range(100, 120)
READ_ONLY = (*range(7), HARDWARE_ERROR, *range(120, 147))

FAILED, BAD_CRC, OUT_OF_RANGE, BAD_LENGTH, BEYOND_LIMIT, NO_ACCESS = 1, 3, 4, 5, 6, 7
ALERT = 0x80
HARDWARE_VOLTAGE, HARDWARE_HOT, HARDWARE_OVERLOAD = 1, 4, 32
SPEED_UNIT = 0.0239691227  # rad/s
WATCHDOG_UNIT_S, WATCHDOG_TRIPPED = 0.02, 0xFF


def crc16(data: bytes) -> int:
    """CRC-16 with polynomial 8005h, most significant bit first, starting from 0."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def stuff(body: bytes) -> bytes:
    """FD behind FF FF FD: nothing inside looks like a header."""
    return body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")


def unstuff(body: bytes) -> bytes:
    """Inverse of :func:`stuff`."""
    return body.replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")


def packet(ident: int, body: bytes) -> bytes:
    """Header, length and checksum around a stuffed instruction and its parameters."""
    head = b"\xff\xff\xfd\x00" + bytes((ident,)) + struct.pack("<H", len(body) + 2) + body
    return head + struct.pack("<H", crc16(head))


@dataclass(eq=False)
class Servo:
    """One servo: its memory, and the joint it moves."""

    mounting: Mounting
    plant: Plant
    faults: Faults
    memory: bytearray = field(default_factory=lambda: bytearray(NUM_REGISTERS))
    waiting: tuple[int, bytes] | None = None
    last_heard_s: float = 0.0

    def __post_init__(self) -> None:
        model = MODEL_XL430 if self.mounting.servo <= 2 else MODEL_XL330_M288
        self.put(MODEL, model, 2)
        self.memory[FIRMWARE], self.memory[ID], self.memory[MODE] = 52, self.mounting.servo, 3
        self.put(MAX_LIMIT, 4095, 4)
        self.power_up()

    def number(self, address: int, size: int) -> int:
        return int.from_bytes(self.memory[address : address + size], "little", signed=size == 4)

    def put(self, address: int, value: int, size: int) -> None:
        self.memory[address : address + size] = value.to_bytes(size, "little", signed=value < 0)

    @property
    def position(self) -> int:
        """What it reports: encoder plus homing offset."""
        angle = float(self.plant.angles[self.mounting.joint])
        return self.mounting.raw(angle) + self.number(OFFSET, 4)

    def power_up(self) -> None:
        """What a reboot leaves: the stored half of the memory, no torque, no error but one that persists."""
        self.memory[EEPROM_END:] = bytes(NUM_REGISTERS - EEPROM_END)
        self.waiting = None
        self.put(GOAL, self.position, 4)
        self.refresh()

    def hold_here(self) -> None:
        """Torque on, goal where it stands."""
        self.put(GOAL, self.position, 4)
        self.memory[TORQUE_ENABLE] = 1
        self.drive()

    def refresh(self) -> None:
        """Measured registers as they are now; hardware errors that shut the servo down make it limp."""
        joint, servo = self.mounting.joint, self.mounting.servo
        for kind, bit in (("overload", HARDWARE_OVERLOAD), ("overheat", HARDWARE_HOT)):
            if self.faults.has(kind, servo):
                self.memory[HARDWARE_ERROR] |= bit
                self.memory[TORQUE_ENABLE] = 0
        if self.faults.has("voltage", servo):
            self.memory[HARDWARE_ERROR] |= HARDWARE_VOLTAGE
        speed = float(self.plant.speeds[joint])
        self.put(SPEED, round(self.mounting.direction * speed / SPEED_UNIT), 4)
        self.put(POSITION, self.position, 4)
        self.put(LOAD, round(float(self.plant.loads[joint]) * 1000 * self.mounting.direction), 2)
        self.put(VOLTAGE, 60 if self.faults.has("voltage", servo) else 120, 2)
        self.memory[TEMPERATURE] = 85 if self.faults.has("overheat", servo) else 35
        self.memory[MOVING] = int(abs(speed) > 0.02)
        self.drive()

    def watch(self, time_s: float) -> None:
        """The bus watchdog: silence beyond its time stops the servo where it is."""
        limit = self.memory[WATCHDOG]
        if 0 < limit < 128 and time_s - self.last_heard_s > limit * WATCHDOG_UNIT_S:
            self.memory[WATCHDOG] = WATCHDOG_TRIPPED
            self.put(GOAL, self.position, 4)
            self.drive()

    def write(self, address: int, content: bytes) -> int:
        """Error number of a write; 0 is success."""
        touched = range(address, address + len(content))
        if touched.stop > NUM_REGISTERS or any(i in READ_ONLY for i in touched):
            return NO_ACCESS
        if address < EEPROM_END and self.memory[TORQUE_ENABLE]:
            return NO_ACCESS
        if self.memory[WATCHDOG] == WATCHDOG_TRIPPED and any(i in GOALS for i in touched):
            return OUT_OF_RANGE
        if GOAL in touched:
            goal = int.from_bytes(content[GOAL - address : GOAL - address + 4], "little", signed=True)
            beyond = not self.number(MIN_LIMIT, 4) <= goal <= self.number(MAX_LIMIT, 4)
            if beyond and self.memory[MODE] == 3:
                return BEYOND_LIMIT
        if TORQUE_ENABLE in touched and self.memory[HARDWARE_ERROR]:
            return FAILED  # shut down: only a reboot gets it going again
        self.memory[address : touched.stop] = content
        if TORQUE_ENABLE in touched and content[TORQUE_ENABLE - address]:
            self.put(GOAL, self.position, 4)
        self.drive()
        return 0

    def drive(self) -> None:
        joint, servo = self.mounting.joint, self.mounting.servo
        if not self.memory[TORQUE_ENABLE] or self.faults.has("silent", servo):
            self.plant.drive(joint, None, 0.0)
            return
        raw = self.number(GOAL, 4) - self.number(OFFSET, 4)
        self.plant.drive(joint, self.mounting.angle(raw), 1.0)


class DynamixelBus:
    """Servos on one wire; see the module's docstring for what is on it."""

    def __init__(self, plant: Plant, mounted: list[Mounting], faults: Faults) -> None:
        self.faults = faults
        self.servos = {m.servo: Servo(m, plant, faults) for m in mounted}
        self._buffer = bytearray()
        self._time_s = 0.0

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

    def tick(self, time_s: float) -> None:
        """Simulated time has come to ``time_s``."""
        self._time_s = time_s
        for servo in self.servos.values():
            servo.watch(time_s)

    def calibrate_truly(self) -> None:
        """Homing offsets and limits in their memories as a perfect calibration leaves them."""
        for servo in self.servos.values():
            m, plant = servo.mounting, servo.plant
            middle = float(plant.low[m.joint] + plant.high[m.joint]) / 2
            servo.put(OFFSET, 2047 - m.raw(middle), 4)
            ends = [m.raw(float(x)) - m.raw(middle) + 2047 for x in (plant.low[m.joint], plant.high[m.joint])]
            servo.put(MIN_LIMIT, max(0, min(ends)), 4)
            servo.put(MAX_LIMIT, min(4095, max(ends)), 4)
            servo.put(GOAL, servo.position, 4)
            servo.drive()

    def truth(self) -> list[dict[str, int]]:
        """What a calibration has to find out, and what stands in the memories."""
        return [
            {
                "id": s.mounting.servo,
                "direction": s.mounting.direction,
                "zero_count": s.mounting.raw_zero + s.number(OFFSET, 4),
                "homing_offset": s.number(OFFSET, 4),
                "min_count": s.number(MIN_LIMIT, 4),
                "max_count": s.number(MAX_LIMIT, 4),
                "torque": s.memory[TORQUE_ENABLE],
                "watchdog": s.memory[WATCHDOG],
                "goal": s.number(GOAL, 4),
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
        while (found := self._next_packet()) is not None:
            wire += self._reply(*found)
        return wire

    def _next_packet(self) -> tuple[int, int, bytes] | None:
        """The next whole packet: id, instruction, parameters. A damaged one is skipped byte by byte."""
        buffer = self._buffer
        while len(buffer) >= 7:
            length = int.from_bytes(buffer[5:7], "little")
            if buffer[:4] != b"\xff\xff\xfd\x00" or not 3 <= length <= 1024:
                del buffer[0]
            elif len(buffer) < length + 7:
                return None
            elif crc16(bytes(buffer[: length + 5])) != int.from_bytes(
                buffer[length + 5 : length + 7], "little"
            ):
                del buffer[0]
            else:
                body = unstuff(bytes(buffer[7 : length + 5]))
                found = buffer[4], body[0], body[1:]
                del buffer[: length + 7]
                return found
        return None

    def _reply(self, ident: int, instruction: int, parameters: bytes) -> bytes:
        alive = {i: s for i, s in self.servos.items() if not self.faults.has("silent", i)}
        for servo in alive.values():
            servo.last_heard_s = self._time_s
        if instruction in (SYNC_READ, FAST_SYNC_READ, BULK_READ, FAST_BULK_READ):
            wanted = _wanted(instruction, parameters)
            parts = [(i, self._data(alive[i], address, size)) for i, address, size in wanted if i in alive]
            if instruction in (SYNC_READ, BULK_READ):
                return self.faults.line([(i, self._answer(alive[i], 0, data)) for i, data in parts])
            return self._fast(alive, parts) if len(parts) == len(wanted) else b""
        if instruction in (SYNC_WRITE, BULK_WRITE):
            for i, address, content in _writes(instruction, parameters):
                if i in alive:
                    alive[i].write(address, content)
            return b""
        if ident == BROADCAST:
            told = [(i, self._one(s, instruction, parameters)) for i, s in alive.items()]
            return self.faults.line(told) if instruction == PING else b""
        if ident not in alive:
            return b""
        return self.faults.line([(ident, self._one(alive[ident], instruction, parameters))])

    def _one(self, servo: Servo, instruction: int, parameters: bytes) -> bytes:
        error, data = 0, b""
        if instruction == PING:
            data = bytes(servo.memory[MODEL : MODEL + 2]) + bytes((servo.memory[FIRMWARE],))
        elif instruction == READ and len(parameters) == 4:
            data = self._data(servo, *struct.unpack("<HH", parameters))
        elif instruction == WRITE and len(parameters) > 2:
            error = servo.write(int.from_bytes(parameters[:2], "little"), parameters[2:])
        elif instruction == REG_WRITE and len(parameters) > 2:
            servo.waiting = int.from_bytes(parameters[:2], "little"), parameters[2:]
        elif instruction == ACTION:
            if servo.waiting is not None:
                error = servo.write(*servo.waiting)
                servo.waiting = None
        elif instruction == REBOOT:
            servo.power_up()
        else:
            error = 2
        return self._answer(servo, error, data)

    def _data(self, servo: Servo, address: int, size: int) -> bytes:
        servo.refresh()
        return bytes(servo.memory[address : address + size])

    def _status(self, servo: Servo, error: int) -> int:
        servo.refresh()
        return error | (ALERT if servo.memory[HARDWARE_ERROR] else 0)

    def _answer(self, servo: Servo, error: int, data: bytes) -> bytes:
        body = stuff(bytes((STATUS, self._status(servo, error))) + data)
        return packet(servo.mounting.servo, body)

    def _fast(self, alive: dict[int, Servo], parts: list[tuple[int, bytes]]) -> bytes:
        """One packet with all answers, each with the checksum of everything before it."""
        length = 1 + sum(len(data) + 4 for _, data in parts)
        wire = b"\xff\xff\xfd\x00" + bytes((BROADCAST,)) + struct.pack("<H", length) + bytes((STATUS,))
        for i, data in parts:
            wire += bytes((self._status(alive[i], 0), i)) + data
            wire += struct.pack("<H", crc16(wire))
        return self.faults.line([(parts[-1][0], wire)]) if parts else b""


def _wanted(instruction: int, parameters: bytes) -> list[tuple[int, int, int]]:
    """(id, address, size) of everything a sync or bulk read asks for."""
    if instruction in (SYNC_READ, FAST_SYNC_READ):
        address, size = struct.unpack("<HH", parameters[:4])
        return [(i, address, size) for i in parameters[4:]]
    return [tuple(struct.unpack("<BHH", parameters[k : k + 5])) for k in range(0, len(parameters) - 4, 5)]  # type: ignore[misc]


def _writes(instruction: int, parameters: bytes) -> list[tuple[int, int, bytes]]:
    """(id, address, content) of everything a sync or bulk write brings."""
    found: list[tuple[int, int, bytes]] = []
    if instruction == SYNC_WRITE:
        address, size = struct.unpack("<HH", parameters[:4])
        for k in range(4, len(parameters) - size, size + 1):
            found.append((parameters[k], address, parameters[k + 1 : k + 1 + size]))
        return found
    k = 0
    while k + 5 <= len(parameters):
        i, address, size = struct.unpack("<BHH", parameters[k : k + 5])
        found.append((i, address, parameters[k + 5 : k + 5 + size]))
        k += 5 + size
    return found
