"""How a servo sits in a joint: which way it turns and where its encoder stands at the joint's zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Positions of a whole turn, of STS3215 and X series servos alike.
COUNTS = 4096


@dataclass(frozen=True, kw_only=True)
class Mounting:
    """One servo in its joint.

    Args:
        servo: its id on the bus.
        joint: index of the plant's joint it moves.
        direction: +1 where counts grow with the angle, else -1.
        raw_zero: what its encoder says, without any homing offset, where the joint's angle is 0.
    """

    servo: int
    joint: int
    direction: int
    raw_zero: int

    def raw(self, angle: float) -> int:
        """Encoder counts at a joint angle (rad); not wrapped."""
        return self.raw_zero + round(self.direction * angle * COUNTS / (2 * math.pi))

    def angle(self, raw: int) -> float:
        """Joint angle (rad) in [-pi, pi) of encoder counts."""
        turned = (raw - self.raw_zero + COUNTS // 2) % COUNTS - COUNTS // 2
        return self.direction * turned * 2 * math.pi / COUNTS


def mountings(num_servos: int) -> list[Mounting]:
    """Servos 1 .. n as a careless person mounts them: every other one reversed, no encoder at its middle."""
    return [
        Mounting(servo=i + 1, joint=i, direction=-1 if i % 2 else 1, raw_zero=1700 + 190 * i)
        for i in range(num_servos)
    ]
