"""Messages that are wrong by construction, for scripts/fuzz_server.py: those of the websockets.

None can be right by chance: each has something taken away, of another kind, size or order, or is none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from vla.contract import PolicyContract
from vla.errors import ContractError
from vla.files import read_json
from vla.serve.messages import observation_to_wire
from vla.serve.wire import pack
from vla.testing import sample_observation

ROOT = Path(__file__).parents[1]
CONTRACT = PolicyContract.from_json(
    read_json(ROOT / "policies/vla_policies/pretrained/tabletop/policy.json", ContractError, "")
)
ARM = CONTRACT.embodiments["panda"]
SEEN = sample_observation(ARM)
FLAT: dict[str, Any] = {
    "observation/image": SEEN.images["front"],
    "observation/wrist_image": SEEN.images["wrist"],
    "observation/state": ARM.pack_state(SEEN.state),
    "prompt": SEEN.instruction,
}
FOREIGN: dict[str, Any] = {
    "images": dict(SEEN.images),
    "state": ARM.pack_state(SEEN.state),
    "task_description": SEEN.instruction,
}
OWN = {"type": "act", "observations": [observation_to_wire(SEEN)]}
Rng = np.random.Generator


def junk(rng: Rng, depth: int = 0) -> Any:
    """Something that belongs nowhere."""
    kind = rng.integers(0, 14 if depth < 3 else 10)
    match kind:
        case 0:
            return None
        case 1:
            return bool(rng.integers(2))
        case 2:
            return [0, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1][rng.integers(6)]
        case 3:
            return float(rng.choice([0.5, np.nan, np.inf, -np.inf, 1e308]))
        case 4:
            return "".join(map(chr, rng.integers(0, 0x2FF, rng.integers(0, 20))))
        case 5:
            return rng.bytes(rng.integers(0, 50))
        case 6:
            return np.zeros(rng.integers(0, 5, rng.integers(0, 4)), rng.choice(["<f2", "<i8", "|b1", "<u4"]))
        case 7:
            return np.float64(rng.choice([np.nan, 1.0]))
        case 8:
            return {"__ndarray__": True, "data": rng.bytes(8), "dtype": "|O", "shape": [1]}
        case 9:
            return {
                b"__ndarray__": True,
                b"data": rng.bytes(rng.integers(0, 20)),
                b"dtype": str(
                    rng.choice(["<f4", "|u1", "<c16", ">f8", "|V4", "<U4", "<M8[ns]", "O", "f4,f4"])
                ),
                b"shape": [int(n) for n in rng.integers(-2, 2**31, rng.integers(0, 7))],
            }
        case 10:
            return [junk(rng, depth + 1) for _ in range(rng.integers(0, 5))]
        case 11:
            return {str(i): junk(rng, depth + 1) for i in range(rng.integers(0, 5))}
        case 12:
            return msgpack.ExtType(int(rng.integers(0, 127)), rng.bytes(4))
        case _:
            return msgpack.Timestamp(int(rng.integers(0, 2**31)))


def loosely(value: Any) -> bytes:
    """msgpack of anything, numpy arrays as openpi writes them."""

    def encoded(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            return {
                b"__ndarray__": True,
                b"data": item.tobytes(),
                b"dtype": item.dtype.str,
                b"shape": item.shape,
            }
        return {b"__npgeneric__": True, b"data": item.item(), b"dtype": item.dtype.str}

    return msgpack.packb(value, default=encoded)


def without_one(rng: Rng, message: dict[str, Any]) -> dict[str, Any]:
    """The message without one of its keys: it cannot be completed by chance."""
    gone = rng.choice(list(message))
    return {key: value for key, value in message.items() if key != gone}


def wrong_state(rng: Rng) -> np.ndarray:
    """A state vector that does not fit."""
    match rng.integers(0, 5):
        case 0:
            return np.zeros(int(rng.choice([0, 1, 16, 18, 1000])), np.float32)
        case 1:
            state = np.zeros(17)
            state[rng.integers(17)] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
            return state
        case 2:
            return np.zeros(17, rng.choice(["<i4", "|u1", "|b1", "<i8"]))
        case 3:
            return np.zeros((1, 17), np.float32)
        case _:
            return np.zeros((), np.float32)


def wrong_image(rng: Rng) -> np.ndarray:
    """A picture that does not fit."""
    shapes = [
        (3, 64, 64),
        (64, 64),
        (64, 64, 4),
        (64, 63, 3),
        (0, 0, 3),
        (64, 64, 1),
        (1, 64, 64, 3),
        (5000, 8, 3),
    ]
    if rng.integers(2):
        return np.zeros(shapes[rng.integers(len(shapes))], np.uint8)
    return np.zeros((64, 64, 3), rng.choice(["<f4", "|i1", "<u2", "|b1"]))


def flat_message(rng: Rng) -> bytes:
    """openpi's message with one thing wrong."""
    message = dict(FLAT)
    match rng.integers(0, 8):
        case 0:
            message = without_one(rng, message)
        case 1:
            message["observation/state"] = wrong_state(rng)
        case 2:
            message[str(rng.choice(["observation/image", "observation/wrist_image"]))] = wrong_image(rng)
        case 3:
            message[f"key {rng.integers(1000)}"] = junk(rng)
        case 4:
            message["prompt"] = "x" * int(rng.integers(4097, 100_000)) if rng.integers(2) else 7
        case 5:
            message["time_s"] = float(rng.choice([np.nan, -1.0, np.inf])) if rng.integers(2) else "now"
        case 6:
            data = bytearray(pack(without_one(rng, message)))
            for place in rng.integers(0, len(data), rng.integers(1, 30)):
                data[place] = rng.integers(256)
            return bytes(data)
        case _:
            key = str(rng.choice(list(message)))
            value = junk(rng)
            message[key] = {"no": value} if isinstance(value, str) else value
    return loosely(message)


def own_message(rng: Rng) -> bytes:
    """One of our own typed messages with something wrong."""
    observation = dict(OWN["observations"][0])  # type: ignore[index]
    match rng.integers(0, 9):
        case 0:
            return loosely({"type": junk(rng), "observations": [observation]})
        case 1:
            return loosely({**OWN, f"more {rng.integers(99)}": junk(rng)})
        case 2:
            return loosely({"type": "act", "observations": junk(rng)})
        case 3:
            return loosely({"type": "act", "observations": [without_one(rng, observation)]})
        case 4:
            key = str(rng.choice(["images", "state", "embodiment", "episode", "time_s"]))
            value: Any = {"images": {}, "state": {}, "embodiment": "sawyer", "episode": -1, "time_s": np.nan}[
                key
            ]
            return loosely({"type": "act", "observations": [{**observation, key: value}]})
        case 5:
            state = {**observation["state"], "tcp_yaw": wrong_state(rng)}
            return loosely({"type": "act", "observations": [{**observation, "state": state}]})
        case 6:
            images = {**observation["images"], "wrist": wrong_image(rng)}
            return loosely({"type": "act", "observations": [{**observation, "images": images}]})
        case 7:
            promise = {"actions": np.zeros((3, 5), np.float32), "frozen": int(rng.integers(0, 3))}
            return loosely({"type": "act", "observations": [{**observation, "promise": promise}]})
        case _:
            part = str(rng.choice(["name", "cameras", "state", "action", "control_hz", "surprise"]))
            arm = {**ARM.to_json(), part: junk(rng)}
            return loosely({"type": "open", "embodiment": arm})


def foreign_message(rng: Rng) -> bytes:
    """A message of vla-eval with something wrong."""

    def said(kind: Any, payload: Any, **more: Any) -> bytes:
        return loosely({"type": kind, "payload": payload, "seq": 1, "timestamp": 0.0, **more})

    match rng.integers(0, 6):
        case 0:
            return said(junk(rng), {})
        case 1:
            return said("observation", junk(rng))
        case 2:
            return said("observation", without_one(rng, FOREIGN))
        case 3:
            lie = {"__image__": True, "format": "png", "data": rng.bytes(60), "shape": [64, 64, 3]}
            if rng.integers(2):
                lie["data"] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + rng.bytes(30)
            return said("observation", {**FOREIGN, "images": {"front": lie, "wrist": SEEN.images["wrist"]}})
        case 4:
            return said("hello", {"protocol_version": junk(rng)}, seq=junk(rng))
        case _:
            return said("observation", {**FOREIGN, "state": wrong_state(rng)})


def bytes_message(rng: Rng) -> bytes:
    """No message at all."""
    match rng.integers(0, 7):
        case 0:
            return rng.bytes(rng.integers(0, 300))
        case 1:
            whole = pack(FLAT)
            return whole[: rng.integers(0, len(whole))]
        case 2:
            return bytes([int(rng.choice([0x91, 0x81]))]) * int(rng.integers(1, 5000))
        case 3:
            return b"\x93" + b"\xdd" + struct.pack(">I", int(rng.integers(2**16, 2**32)))
        case 4:
            return bytes([int(rng.choice([0xC6, 0xDB, 0xC9]))]) + struct.pack(
                ">I", int(rng.integers(2**16, 2**32))
            )
        case 5:
            return loosely([[[]] * int(rng.integers(1, 300))] * int(rng.integers(1, 300)))
        case _:
            return pack(FLAT) + rng.bytes(rng.integers(1, 9))


#: name -> (path, message); sent one after the other on one connection while the server answers.
MESSAGES: dict[str, tuple[str, Callable[[Rng], bytes]]] = {
    "openpi observations with a fault": ("/", flat_message),
    "own messages with a fault": ("/", own_message),
    "vla-eval messages with a fault": ("/vla-eval", foreign_message),
    "bytes that are no message": ("/", bytes_message),
    "bytes that are no message, vla-eval": ("/vla-eval", bytes_message),
}
