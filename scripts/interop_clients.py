"""Other projects' clients, each in a Python of its own behind a pipe, as policies; for scripts/interop.py."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from vla.contract import PolicyContract
from vla.embodiment import Embodiment
from vla.errors import ConfigError
from vla.serve.wire import pack, unpack
from vla.types import ActionChunk, Observation


class OpenpiClient:
    """openpi's client, in its own process, as a policy."""

    def __init__(self, process: subprocess.Popen[bytes], contract: PolicyContract, arm: Embodiment) -> None:
        self.contract, self._process, self._arm = contract, process, arm
        self._unpacker = msgpack.Unpacker(process.stdout, read_size=1, strict_map_key=False)
        self.keys = self._hear()["ok"][arm.name]

    def check(self, embodiment: Embodiment) -> None:
        self.contract.check(embodiment)

    def reset(self) -> None:
        """openpi's protocol has none."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        (seen,) = observations
        message: dict[str, Any] = {"prompt": seen.instruction}
        for key, meaning in self.keys.items():
            if "camera" in meaning:
                message[key] = seen.images[meaning["camera"]]
            elif "fields" in meaning:
                message[key] = np.concatenate([seen.state[name] for name, *_ in meaning["fields"]])
        answer = self.ask(message)["ok"]
        info = {
            key: value for key, value in answer["info"].items() if isinstance(value, np.ndarray | list | str)
        }
        return [ActionChunk(actions=answer["actions"], control_hz=answer["control_hz"], info=info)]

    def ask(self, message: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(pack(message))
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        return unpack(msgpack.packb(next(self._unpacker)), max_containers=10_000)


class PluginClient:
    """The /act or the GR00T client of an inspect-robots plugin, in its own process, as a policy."""

    def __init__(
        self, process: subprocess.Popen[bytes], kind: str, contract: PolicyContract, arm: Embodiment
    ) -> None:
        self.contract, self._process, self._kind, self._arm = contract, process, kind, arm

    def check(self, embodiment: Embodiment) -> None:
        self.contract.check(embodiment)

    def reset(self) -> None:
        """Neither client has one."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        (seen,) = observations
        answer = self.ask(self._act(seen) if self._kind == "act" else self._gr00t(seen))
        if "ok" not in answer:
            raise ConfigError(f"The client was told: {answer['error']}")
        parts = answer["ok"]
        if self._kind == "act":
            actions = parts["actions"]
        else:
            actions = np.concatenate([parts[field.name][0] for field in self._arm.action], axis=1)
        return [ActionChunk(actions=actions, control_hz=self._arm.control_hz)]

    def _act(self, seen: Observation) -> dict[str, Any]:
        pictures = {"full_image": seen.images["front"], "wrist_image": seen.images["wrist"]}
        state = self._arm.pack_state(seen.state)
        steps = self.contract.num_flow_steps
        return {**pictures, "state": state, "instruction": seen.instruction, "num_steps": steps}

    def _gr00t(self, seen: Observation) -> dict[str, Any]:
        return {
            "video": {name: image[None, None] for name, image in seen.images.items()},
            "state": {name: value[None, None] for name, value in seen.state.items()},
            "language": {"annotation.human.task_description": [[seen.instruction]]},
        }

    def ask(self, message: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        data = pack(message)
        self._process.stdin.write(struct.pack(">I", len(data)) + data)
        self._process.stdin.flush()
        (size,) = struct.unpack(">I", self._process.stdout.read(4))
        return unpack(self._process.stdout.read(size), max_containers=10_000)
