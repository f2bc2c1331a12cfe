"""Runs in franka-sim's own environment: its server on one address, mirrored to and steered from elsewhere.

Started by ``vla_envs.counterparts.franka.serving``, with nothing but the standard library, NumPy and
franka-sim to import. Out go datagrams of 16 doubles every 2 ms: q [7] rad, dq [7] rad/s, wanted gripper width
in m, time in s. In come JSON datagrams: ``{"width"}`` the measured width, ``{"place"}`` joint angles,
``{"reflex"}``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time

import mujoco
import numpy as np
from franka_sim.franka_sim_server import FrankaSimServer  # pyright: ignore[reportMissingImports]
from franka_sim.gripper.backend import (  # pyright: ignore[reportMissingImports]
    GripperBackend,
    GripperStateData,
    validate_width,
)
from franka_sim.mujoco_franka_sim import MujocoFrankaSim  # pyright: ignore[reportMissingImports]
from franka_sim.sim_common import PositionFeedforward  # pyright: ignore[reportMissingImports]

PERIOD_S = 0.002
MAX_WIDTH_M = 0.08
_JOINT_REFLEX = 5  # index of the error: joint_reflex, an external torque beyond its threshold
_MOVE_S, _STILL_S, _NEAR_M = 2.0, 0.15, 0.002


class MirroredHand(GripperBackend):
    """A Franka Hand whose fingers are those of the mirror: they stop at what is between them."""

    def __init__(self) -> None:
        self.target = self.width = MAX_WIDTH_M
        self._aborted = threading.Event()

    def homing(self) -> bool:
        return self.move(MAX_WIDTH_M, 0.1)

    def move(self, width: float, speed: float) -> bool:
        validate_width(width, MAX_WIDTH_M, "move")
        self._go(width)
        return abs(self.width - width) < _NEAR_M

    def grasp(
        self, width: float, epsilon_inner: float, epsilon_outer: float, speed: float, force: float
    ) -> bool:
        validate_width(width, MAX_WIDTH_M)
        self._go(0.0)
        return width - epsilon_inner < self.width < width + epsilon_outer

    def stop(self) -> bool:
        self._aborted.set()
        self.target = self.width
        return True

    def get_state(self) -> GripperStateData:
        return GripperStateData(self.width, MAX_WIDTH_M, self.width > self.target + _NEAR_M, 30)

    def _go(self, width: float) -> None:
        """Until there, or at rest against something."""
        self._aborted.clear()
        self.target, began, seen, since = width, time.monotonic(), self.width, time.monotonic()
        while time.monotonic() - began < _MOVE_S and not self._aborted.wait(0.005):
            if abs(self.width - seen) > 2e-4:
                seen, since = self.width, time.monotonic()
            if abs(self.width - width) < _NEAR_M or time.monotonic() - since > _STILL_S:
                return


class PlacedSim(MujocoFrankaSim):
    """franka-sim's arm, which may be put somewhere between two steps of its physics."""

    place: np.ndarray | None = None

    def _apply_control(self) -> None:
        if self.place is not None:
            q, self.place = self.place, None
            self.latest_joint_positions = q
            self._position_feedforward = PositionFeedforward(q)
            self.data.qpos[self.arm_qpos_adr] = q
            self.data.qvel[self.arm_dofs_idx] = 0.0
            self.prev_dq = np.zeros(7)
            mujoco.mj_forward(self.model, self.data)
        super()._apply_control()


def mirror(line: socket.socket, simulator: PlacedSim, server: FrankaSimServer, hand: MirroredHand) -> None:
    """Send and obey until the other side is gone; then end the process."""
    line.setblocking(False)
    deadline = time.monotonic()
    while True:
        state = simulator.get_robot_state()
        try:
            line.send(struct.pack("<16d", *state["q"], *state["dq"], hand.target, simulator.data.time))
        except BlockingIOError:
            pass  # the mirror is busy: it takes the next
        except OSError:
            os._exit(0)
        try:
            while told := line.recv(4096):
                obey(json.loads(told), simulator, server, hand)
        except BlockingIOError:
            pass
        except OSError:
            os._exit(0)
        deadline = max(deadline + PERIOD_S, time.monotonic())
        time.sleep(max(0.0, deadline - time.monotonic()))


def obey(told: dict, simulator: PlacedSim, server: FrankaSimServer, hand: MirroredHand) -> None:
    """One message of the mirror."""
    if "width" in told:
        hand.width = float(told["width"])
    if "place" in told:
        simulator.place = np.array(told["place"], float)
        hand.target = MAX_WIDTH_M
    if "reflex" in told:
        server._abort_with_error(_JOINT_REFLEX, "an injected collision")


def main() -> None:
    host, line = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    simulator, hand = PlacedSim(), MirroredHand()
    server = FrankaSimServer(
        host=host, physics_sim=simulator, gripper_backend=hand, enforce_motion_limits=True
    )
    simulator.initialize_simulation()
    simulator.initialize_simulation = lambda: None  # the server would do it once more
    threading.Thread(target=mirror, args=(line, simulator, server, hand), daemon=True).start()
    server.start()


if __name__ == "__main__":
    main()
