"""The counterpart's process: controller cycles in real time, its ports, and a side channel for whoever tests.

The side channel speaks length-prefixed msgpack (``vla_envs.remote.serving.wire``): ``{"call", "arguments"}``
is answered with ``{"value"}`` or ``{"error"}``. It puts up scenes, takes pictures, injects faults and reads
the log.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vla.errors import VlaError
from vla_envs.counterparts.ur.controller import Controller
from vla_envs.counterparts.ur.plant import TabletopPlant
from vla_envs.counterparts.ur.sockets import RTDE_PORT, Sockets
from vla_envs.remote.serving import wire

CONTROL_PORT = 30020
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
        self.plant = TabletopPlant(task, seed, image_size, gripper_m_s)
        self.controller = Controller(self.plant)
        self.sockets = Sockets(self.controller, host)
        self._lock = threading.Lock()
        self._painter = ThreadPoolExecutor(max_workers=1)
        self._control = socket.create_server((host, control_port), backlog=8)
        self._frozen = False
        self._frames: dict[str, tuple[np.ndarray, float]] = {}
        self._late_s = 0.0
        self._cycle = 0
        self._open = True
        self._calls: dict[str, Callable[..., Any]] = {
            "scene": self._scene, "outcome": self._outcome, "frame": self._capture, "fault": self._fault,
            "state": self._state, "events": lambda: [list(e) for e in self.controller.events],
            "stop": self._end,
        }  # fmt: skip

    def run(self) -> None:
        """Serve until the side channel says ``stop``."""
        threading.Thread(target=self._answer_side_channel, daemon=True).start()
        period = self.plant.period_s
        deadline = time.monotonic()
        while self._open:
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
        self.sockets.close()
        self._control.close()

    # --- side channel

    def _answer_side_channel(self) -> None:
        while self._open:
            try:
                connection, _ = self._control.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            while self._open:
                try:
                    asked = wire.receive(connection)
                    wire.send(connection, self._respond(asked))
                except (EOFError, OSError):
                    return

    def _respond(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        call = self._calls.get(str(asked.get("call")))
        if call is None:
            return {"error": f"no call {asked.get('call')!r}; there are {sorted(self._calls)}"}
        try:
            return {"value": call(**asked.get("arguments", {}))}
        except (VlaError, TypeError) as error:
            return {"error": str(error)}

    def _scene(
        self, task: str, seed: int, options: Mapping[str, Any] | None = None, instruction: str | None = None
    ) -> dict[str, Any]:
        def put_up() -> dict[str, Any]:
            with self._lock:
                told = self.controller.set_scene(task, seed, options, instruction)
            for camera in self.plant.env.embodiment.cameras:  # the first picture of a scene takes long
                self._paint(camera.name)
            return told

        return self._painter.submit(put_up).result()  # in the thread that owns the renderer

    def _outcome(self) -> dict[str, Any]:
        with self._lock:
            return {
                "success": self.plant.success,
                "wrong": self.plant.wrong,
                "time_s": self.controller.time_s,
            }

    def _capture(self, camera: str) -> dict[str, Any]:
        if not (self._frozen and camera in self._frames):
            self._frames[camera] = self._painter.submit(self._paint, camera).result()
        image, taken = self._frames[camera]
        return {"image": image, "age_s": time.monotonic() - taken}

    def _paint(self, camera: str) -> tuple[np.ndarray, float]:
        with self._lock:
            data, taken = self.plant.snapshot(), time.monotonic()
        return self.plant.render(data, camera), taken

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
            "freeze_cameras": lambda: setattr(self, "_frozen", True),
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
        self.sockets.mute = self.sockets.deaf = self._frozen = False
        self.sockets.open()

    def _end(self) -> None:
        self._open = False
