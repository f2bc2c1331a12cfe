"""The counterpart's process: controller cycles in real time, its ports and its side channel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from vla_envs.counterparts.side_channel import CONTROL_PORT, SideChannel
from vla_envs.counterparts.table import TabletopPlant
from vla_envs.counterparts.ur.controller import Controller
from vla_envs.counterparts.ur.sockets import RTDE_PORT, Sockets

_LATE_S = 0.2  # behind the clock: give up the time rather than catch up


class UrServer:
    """One controller on one address.

    Args:
        host: address to bind; a loopback alias (127.0.0.x) for each arm.
        task, seed, image_size, gripper_m_s: the scene behind it (``TabletopPlant``).
        control_port: of the side channel.

    Raises:
        OSError: a port is taken.
    """

    def __init__(
        self,
        host: str,
        *,
        task: str,
        seed: int,
        image_size: int,
        gripper_m_s: float = 0.0,
        control_port: int = CONTROL_PORT,
    ) -> None:
        self.plant = TabletopPlant("ur5e", task, seed, image_size, gripper_m_s)
        self.controller = Controller(self.plant)
        self.sockets = Sockets(self.controller, host)
        self._lock = threading.Lock()
        self._late_s = 0.0
        self._cycle = 0
        calls: dict[str, Callable[..., Any]] = {
            "scene": self._scene,
            "fault": self._fault,
            "state": self._state,
            "clock": lambda: self.controller.time_s,
            "events": lambda: [list(event) for event in self.controller.events],
        }
        self.side = SideChannel(host, control_port, self.plant, self._lock, calls)

    def run(self) -> None:
        """Serve until interrupted."""
        period = self.plant.period_s
        deadline = time.monotonic()
        while True:
            deadline += period
            with self._lock:
                self.controller.cycle()
                self._cycle += 1
                self.sockets.publish(self._cycle)
            behind = time.monotonic() - deadline
            if behind > _LATE_S:
                self._late_s += behind
                deadline += behind
            self.sockets.serve(max(0.0, -behind))
            while (left := deadline - time.monotonic()) > 0:
                self.sockets.serve(left)

    def _scene(
        self, task: str, seed: int, options: Mapping[str, Any] | None = None, instruction: str | None = None
    ) -> dict[str, Any]:
        return self.side.in_painter(lambda: self.controller.set_scene(task, seed, options, instruction))

    def _state(self) -> dict[str, Any]:
        controller = self.controller
        with self._lock:
            return {
                "q": self.plant.q, "qd": self.plant.qd, "target_q": controller.state.q,
                "robot_mode": controller.robot_mode, "safety_mode": controller.safety_mode,
                "running": controller.program is not None, "gripper": self.plant.gripper_share,
                "time_s": controller.time_s, "late_s": self._late_s,
            }  # fmt: skip

    def _fault(self, kind: str) -> None:
        controller, sockets = self.controller, self.sockets
        faults: dict[str, Callable[[], object]] = {
            "protective_stop": lambda: controller.protective_stop("injected"),
            "emergency_stop": lambda: controller.emergency_stop(True),
            "release_emergency_stop": lambda: controller.emergency_stop(False),
            "local_control": lambda: self._set_remote(False),
            "remote_control": lambda: self._set_remote(True),
            "lost_socket": lambda: sockets.drop(RTDE_PORT),
            "lost_packets": lambda: setattr(sockets, "mute", True),
            "deaf": lambda: setattr(sockets, "deaf", True),
            "refuse": lambda: self._refuse("refuses connections"),
            "reboot": self._reboot,
            "power_off": controller.power_off,
            "freeze_cameras": lambda: setattr(self.side, "frozen", True),
            "clear": self._clear,
        }
        if kind not in faults:
            raise TypeError(f"no fault {kind!r}; there are {sorted(faults)}")
        with self._lock:
            faults[kind]()

    def _set_remote(self, remote: bool) -> None:
        self.controller.remote = remote
        if not remote:
            self.controller.end_program("switched to local control")

    def _refuse(self, why: str) -> None:
        self.sockets.refuse()
        self.controller.end_program("its client is gone")
        self.controller.say(why)

    def _reboot(self) -> None:
        self._refuse("reboot")
        self.controller.reboot()
        self.controller.after(1.0, self.sockets.open)

    def _clear(self) -> None:
        self.sockets.mute = self.sockets.deaf = self.side.frozen = False
        self.sockets.open()
