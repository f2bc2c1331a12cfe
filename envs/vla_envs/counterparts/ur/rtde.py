"""The Real-Time Data Exchange wire of a UR controller: packets, types and the variables that exist.

Source: Universal Robots, "Real-Time Data Exchange (RTDE) guide", protocol versions 1 and 2. Everything is
big-endian; a packet is ``u16 size, u8 type, payload`` and ``size`` counts its three header bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

PROTOCOL_VERSION, CONTROLLER_VERSION, TEXT = b"V", b"v", b"M"
SETUP_OUTPUTS, SETUP_INPUTS, START, PAUSE, DATA = b"O", b"I", b"S", b"P", b"U"

_FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT32": "I",
    "UINT64": "Q",
    "INT32": "i",
    "DOUBLE": "d",
    "VECTOR3D": "3d",
    "VECTOR6D": "6d",
    "VECTOR6INT32": "6i",
    "VECTOR6UINT32": "6I",
}
_NUM_REGISTERS = 48

#: Outputs by type, as in the guide; registers are added below.
_OUTPUTS = {
    "DOUBLE": (
        "timestamp actual_execution_time speed_scaling target_speed_fraction actual_momentum "
        "actual_main_voltage actual_robot_voltage actual_robot_current standard_analog_input0 "
        "standard_analog_input1 standard_analog_output0 standard_analog_output1 io_current payload "
        "tool_output_current tool_temperature tcp_force_scalar"
    ),
    "VECTOR6D": (
        "target_q target_qd target_qdd target_current target_moment actual_q actual_qd actual_current "
        "joint_control_output actual_TCP_pose actual_TCP_speed actual_TCP_force target_TCP_pose "
        "target_TCP_speed joint_temperatures actual_joint_voltage ft_raw_wrench payload_inertia tcp_offset"
    ),
    "VECTOR3D": "actual_tool_accelerometer elbow_position elbow_velocity payload_cog",
    "UINT64": "actual_digital_input_bits actual_digital_output_bits",
    "INT32": "robot_mode safety_mode safety_status tool_mode",
    "UINT32": (
        "runtime_state robot_status_bits safety_status_bits output_bit_registers0_to_31 "
        "output_bit_registers32_to_63"
    ),
    "VECTOR6INT32": "joint_mode",
}
_INPUTS = {
    "UINT32": "speed_slider_mask input_bit_registers0_to_31 input_bit_registers32_to_63",
    "DOUBLE": "speed_slider_fraction standard_analog_output_0 standard_analog_output_1",
    "UINT8": (
        "standard_digital_output_mask configurable_digital_output_mask standard_digital_output "
        "configurable_digital_output tool_digital_output_mask tool_digital_output "
        "standard_analog_output_mask standard_analog_output_type"
    ),
    "VECTOR6D": "external_force_torque",
}


def _table(by_type: Mapping[str, str], direction: str) -> dict[str, str]:
    names = {name: kind for kind, text in by_type.items() for name in text.split()}
    for i in range(_NUM_REGISTERS):
        names[f"{direction}_int_register_{i}"] = "INT32"
        names[f"{direction}_double_register_{i}"] = "DOUBLE"
    for i in range(64, 128):
        names[f"{direction}_bit_register_{i}"] = "BOOL"
    return names


OUTPUT_TYPES: Mapping[str, str] = _table(_OUTPUTS, "output")
INPUT_TYPES: Mapping[str, str] = _table(_INPUTS, "input")


def packet(kind: bytes, payload: bytes) -> bytes:
    """One framed packet."""
    return struct.pack(">HB", len(payload) + 3, kind[0]) + payload


def take_packet(buffer: bytearray) -> tuple[bytes, bytes] | None:
    """Remove and return the first whole packet (type, payload) of a stream; None: more bytes are needed.

    Raises:
        ValueError: the stream is no RTDE (a size below the header's own).
    """
    if len(buffer) < 3:
        return None
    size = int.from_bytes(buffer[:2], "big")
    if size < 3:
        raise ValueError(f"an RTDE packet of size {size}")
    if len(buffer) < size:
        return None
    kind, payload = bytes(buffer[2:3]), bytes(buffer[3:size])
    del buffer[:size]
    return kind, payload


class Recipe:
    """Names and types of one negotiated data packet.

    Args:
        number: 1..255, first byte of each packet.
        names: variables in order; those that do not exist have type ``NOT_FOUND``.
        known: what exists in this direction.
    """

    def __init__(self, number: int, names: Sequence[str], known: Mapping[str, str]) -> None:
        self.number, self.names = number, tuple(names)
        self.types = [known.get(name, "NOT_FOUND") for name in names]
        self.valid = "NOT_FOUND" not in self.types
        self._struct = struct.Struct(">" + "".join(_FORMATS[t] for t in self.types)) if self.valid else None
        self._sizes = [6 if t.startswith("VECTOR6") else 3 if t == "VECTOR3D" else 1 for t in self.types]

    def pack(self, values: Mapping[str, object]) -> bytes:
        """A data packet of the current values."""
        assert self._struct is not None
        flat: list[object] = []
        for name, size in zip(self.names, self._sizes, strict=True):
            value = values[name]
            if size == 1:
                flat.append(value)
            else:
                flat.extend(value)  # type: ignore[arg-type]
        return packet(DATA, bytes([self.number]) + self._struct.pack(*flat))

    def unpack(self, body: bytes) -> dict[str, object]:
        """Values by name of a received data packet, without its recipe number.

        Raises:
            ValueError: the body has another size.
        """
        assert self._struct is not None
        if len(body) != self._struct.size:
            raise ValueError(f"{len(body)} bytes for recipe {self.number}; expected {self._struct.size}")
        flat, values, start = self._struct.unpack(body), {}, 0
        for name, size in zip(self.names, self._sizes, strict=True):
            values[name] = flat[start] if size == 1 else flat[start : start + size]
            start += size
        return values
