"""Messages that are wrong by construction, for scripts/fuzz_server.py: of /act, GR00T and lerobot.

Nothing here imports pickle: what lerobot's service is sent is put together from opcodes.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from fuzz_messages import ARM, SEEN, Rng, bytes_message, junk, without_one, wrong_image, wrong_state

from vla.serve.gr00t_wire import Style, write
from vla.serve.json_arrays import array_to_json
from vla.serve.lerobot_wire import bytes_field

ACT: dict[str, Any] = {
    "full_image": SEEN.images["front"],
    "wrist_image": SEEN.images["wrist"],
    "state": ARM.pack_state(SEEN.state),
    "instruction": SEEN.instruction,
}
NESTED: dict[str, Any] = {
    "video": {name: image[None, None] for name, image in SEEN.images.items()},
    "state": {name: value[None, None] for name, value in SEEN.state.items()},
    "language": {"annotation.human.task_description": [[SEEN.instruction]]},
}
ENTRIES = [f.name if f.size == 1 else f"{f.name}.{i}" for f in ARM.state for i in range(f.size)]
FLAT_SEEN: dict[str, Any] = {
    **dict(zip(ENTRIES, map(float, ARM.pack_state(SEEN.state)), strict=True)),
    **SEEN.images,
    "task": SEEN.instruction,
}


def plain(value: Any) -> Any:
    """Something that JSON can hold, arrays as json-numpy writes them."""
    if isinstance(value, np.ndarray):
        return array_to_json(value)
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def damaged(rng: Rng, data: bytes) -> bytes:
    """The bytes cut off, or followed by more that do not belong there."""
    return data[: rng.integers(0, len(data))] if rng.integers(2) else data + b"\x01" + rng.bytes(9)


def act_message(rng: Rng) -> bytes:
    """The body of a request to /act with one thing wrong."""
    message = dict(ACT)
    match rng.integers(0, 9):
        case 0:
            message = without_one(rng, message)
        case 1:
            message["state"] = wrong_state(rng)
        case 2:
            message[str(rng.choice(["full_image", "wrist_image"]))] = wrong_image(rng)
        case 3:
            message[f"key {rng.integers(1000)}"] = junk(rng)
        case 4:
            message["unnorm_key"] = ["panda", 3] if rng.integers(2) else "bridge_orig"
        case 5:
            message["num_steps"] = "many" if rng.integers(2) else 10_000
        case 6:
            lie = {**array_to_json(message["state"]), "shape": [int(n) for n in rng.integers(-9, 2**31, 2)]}
            if rng.integers(2):
                lie["dtype"] = str(rng.choice(["|O", "<c16", ">f8", "|V4", "<U4", "O", "f4,f4"]))
            return json.dumps({**plain(without_one(rng, message)), "state": lie}).encode()
        case 7:
            return json.dumps({"encoded": json.dumps(plain(without_one(rng, message)))}).encode()
        case _:
            deep = [b"[" * int(rng.integers(1, 100_000)), b'{"a":' * int(rng.integers(1, 5000))]
            deep += [b"[" + b"{}," * int(rng.integers(1, 50_000)) + b"{}]", rng.bytes(100), b"9" * 9999]
            return deep[rng.integers(len(deep))]
    data = json.dumps(plain(message)).encode()
    return damaged(rng, data) if rng.integers(8) == 0 else data


def gr00t_message(rng: Rng) -> bytes:
    """A request of GR00T's protocol with one thing wrong, in either encoding."""
    style: Style = "npy" if rng.integers(2) else "nd"
    observation = {key: dict(group) for key, group in NESTED.items()}
    options: Any = None
    match rng.integers(0, 9):
        case 0:
            observation = without_one(rng, observation)
        case 1:
            observation["state"]["tcp_yaw"] = wrong_state(rng)
        case 2:
            observation["video"]["wrist"] = wrong_image(rng)
        case 3:
            observation[f"group {rng.integers(99)}"] = {}
        case 4:
            options = {f"option {rng.integers(99)}": 1}
        case 5:
            kind = rng.choice(["kill", "die", ""])
            return write({"endpoint": str(kind), "data": {"observation": observation}}, style)
        case 6:
            whole = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": rng.bytes(8)}
            lie = {"__ndarray_class__": True, "as_npy": b"\x93NUMPY\x01\x00" + rng.bytes(rng.integers(0, 99))}
            observation["state"]["tcp_yaw"] = whole if rng.integers(2) else lie
        case 7:
            return bytes_message(rng)
        case _:
            whole = write({"endpoint": "get_action", "data": {"observation": observation}}, style)
            return damaged(rng, whole)
    return write({"endpoint": "get_action", "data": {"observation": observation, "options": options}}, style)


class Opcodes:
    """A pickle, opcode by opcode: maps, numbers, texts, arrays, and calls of anything by name."""

    def __init__(self) -> None:
        self.said = b"\x80\x04"

    def text(self, value: str) -> Opcodes:
        data = value.encode()
        self.said += b"X" + struct.pack("<I", len(data)) + data
        return self

    def named(self, module: str, name: str) -> Opcodes:
        self.text(module).text(name)
        self.said += b"\x93"
        return self

    def put(self, value: Any) -> Opcodes:
        if isinstance(value, dict):
            self.said += b"}("
            for key, part in value.items():
                self.text(str(key)).put(part)
            self.said += b"u"
        elif isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, bool) or value is None:
            self.said += b"N" if value is None else b"\x88" if value else b"\x89"
        elif isinstance(value, int) and abs(value) < 2**31:
            self.said += b"J" + struct.pack("<i", value)
        elif isinstance(value, int | float):
            self.said += b"G" + struct.pack(">d", float(value))
        else:
            self.text(str(value))
        return self

    def _array(self, value: np.ndarray) -> None:
        data = value.tobytes()
        self.named("numpy._core.numeric", "_frombuffer").said += b"(B" + struct.pack("<I", len(data)) + data
        self.named("numpy", "dtype").text(value.dtype.str[1:]).said += b"\x89\x88\x87R(K\x03"
        self.text(value.dtype.str[0]).said += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb("
        for size in value.shape:
            self.put(int(size))
        self.said += b"t"
        self.text("C").said += b"tR"

    def whole(self, name: str, fields: dict[str, Any]) -> bytes:
        self.named("lerobot.async_inference.helpers", name).said += b")\x81"
        return self.put(fields).said + b"b."


def observation_pickle(fields: dict[str, Any]) -> bytes:
    """A ``TimedObservation``."""
    return Opcodes().whole("TimedObservation", fields)


def instructions() -> bytes:
    """An honest client's policy instructions, as protobuf."""
    features = {f"observation.images.{name}": {"dtype": "image"} for name in SEEN.images}
    names = Opcodes()
    names.named("lerobot.async_inference.helpers", "RemotePolicyConfig").said += b")\x81}("
    names.text("pretrained_name_or_path").text("vla?embodiment=panda")
    names.text("actions_per_chunk").put(8).text("lerobot_features").put(features).said += b"("
    names.text("observation.state").said += b"}"
    names.text("names").said += b"]("
    for entry in ENTRIES:
        names.text(entry)
    names.said += b"esuub."
    return bytes_field(1, names.said)


def seen(step: int, **changes: Any) -> dict[str, Any]:
    """The fields of an honest observation."""
    return {"timestamp": 1.0, "timestep": step, "observation": {**FLAT_SEEN, **changes}, "must_go": True}


def lerobot_message(rng: Rng) -> bytes:
    """A pickle for lerobot's service that is hostile, or an observation with one thing wrong."""
    match rng.integers(0, 8):
        case 0:
            named = [("os", "system"), ("builtins", "eval"), ("numpy", "load"), ("torch", "load"), ("x", "y")]
            module, name = named[rng.integers(len(named))]
            evil = Opcodes().named(module, name)
            return evil.text("exit 1").said + b"\x85R."
        case 1:
            return observation_pickle(seen(0, **{str(rng.choice(ENTRIES)): wrong_state(rng)}))
        case 2:
            return observation_pickle(seen(0, front=wrong_image(rng)))
        case 3:
            return observation_pickle(
                {**seen(0), "timestep": junk(rng, 3) if rng.integers(2) else -1, "x": 1}
            )
        case 4:
            gone = seen(0)
            gone["observation"] = without_one(rng, gone["observation"])
            return observation_pickle(gone)
        case 5:
            grown = [
                b"]" * 5000,
                b"N0" * 9000,
                b"N\x72\xff\xff\xff\xff",
                b"]\x94h\x00\x86",
                b"N2" * 9,
                b"\x8f" * 999,
            ]
            return b"\x80\x04" + grown[rng.integers(len(grown))] + b"."
        case 6:
            return b"\x80\x04" + rng.bytes(rng.integers(0, 300))
        case _:
            data = observation_pickle(seen(0))
            return data[: rng.integers(0, len(data) - 1)]
