"""The socket of the Robotiq URCap: ``GET POS``, ``SET POS 255 SPE 255 GTO 1`` and the gripper's registers.

Source: Robotiq 2F-85 instruction manual, registers; the text protocol on port 63352 is the URCap's own.
"""

from __future__ import annotations

from vla_envs.counterparts.ur.controller import Controller

_AT_POSITION, _MOVING, _GRIPS = 3, 0, 2
_NEAR = 4  # of 255


class GripperServer:
    """Registers of a 2F-85 in front of the plant's fingers; 0 is open, 255 closed."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._registers = {"ACT": 1, "GTO": 1, "FOR": 0, "SPE": 255, "POS": 0, "FLT": 0}
        self._last, self._still = -1, 0

    def answer(self, line: str) -> str:
        """The line sent back: ``ack``, ``NAME value`` or ``?``."""
        words = line.split()
        if len(words) == 2 and words[0] == "GET":
            return self._get(words[1])
        if len(words) >= 3 and words[0] == "SET" and len(words) % 2 == 1:
            return self._set(dict(zip(words[1::2], words[2::2], strict=True)))
        return "?"

    def _get(self, name: str) -> str:
        here = round(255 * self._controller.plant.gripper_share)
        if name == "POS":
            return f"POS {here}"
        if name == "PRE":
            return f"PRE {self._registers['POS']}"
        if name == "STA":
            return f"STA {3 if self._registers['ACT'] else 0}"
        if name == "OBJ":
            self._still = self._still + 1 if abs(here - self._last) <= 1 else 0
            self._last = here
            if abs(here - self._registers["POS"]) <= _NEAR:
                return f"OBJ {_AT_POSITION}"
            return f"OBJ {_GRIPS if self._still > 5 else _MOVING}"
        return f"{name} {self._registers[name]}" if name in self._registers else "?"

    def _set(self, values: dict[str, str]) -> str:
        for name, text in values.items():
            if name not in self._registers or not text.isdigit() or int(text) > 255:
                return "?"
        self._registers.update({name: int(text) for name, text in values.items()})
        registers, controller = self._registers, self._controller
        if registers["ACT"] and registers["GTO"] and controller.robot_mode == "RUNNING":
            controller.gripper_target = registers["POS"] / 255.0
            controller.gripper_speed = registers["SPE"] / 255.0
        return "ack"
