"""The mirror of franka-sim's arm: the tabletop's Panda follows its joints, before objects and cameras.

Forces do not go back: what the Panda touches, franka-sim does not feel. The hand's width does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import EnvError
from vla_envs.counterparts.franka.fr3 import fr3_xml
from vla_envs.counterparts.side_channel import CONTROL_PORT, SideChannel
from vla_envs.counterparts.table import TabletopPlant

#: Python of the environment that ``scripts/setup_counterpart`` makes.
PYTHON_VARIABLE = "VLA_FRANKA_SIM_PYTHON"
_START_S, _PACKET = 20.0, struct.Struct("<16d")
_WIDTH_EVERY = 10  # cycles
_LATE_S = 0.2


def franka_sim_python() -> Path:
    """The interpreter that can import franka-sim; EnvError says how to make one."""
    given = os.environ.get(PYTHON_VARIABLE)
    path = Path(given) if given else Path.cwd() / ".venv-franka-sim/bin/python"
    if not path.exists():
        raise EnvError(
            f"franka-sim needs an environment of its own (it pins other versions of NumPy and MuJoCo), and "
            f"there is none at {path}: run scripts/setup_counterpart, or set {PYTHON_VARIABLE} to its Python."
        )
    return path


class FrankaServer:
    """franka-sim on one address, and its mirror.

    Args:
        host: address to bind; a loopback alias for each arm.
        task, seed, image_size: the scene before it.

    Raises:
        EnvError: there is no environment with franka-sim, or it did not start.
    """

    def __init__(self, host: str, *, task: str, seed: int, image_size: int, folder: Path) -> None:
        self.plant = TabletopPlant("panda", task, seed, image_size)
        self._lock = threading.Lock()
        self.events: deque[str] = deque(maxlen=1000)
        self._q, self._dq, self._width = self.plant.q, np.zeros(7), 0.08
        self._host, self._folder, self._time_s = host, folder, 0.0
        self._line, self._process = self._start()
        calls: dict[str, Callable[..., Any]] = {
            "scene": self._scene,
            "fault": self._fault,
            "state": self._state,
            "clock": lambda: self._time_s,
            "events": lambda: [[0.0, event] for event in self.events],
        }
        self._await_packet()
        self._place()
        self.side = SideChannel(host, CONTROL_PORT, self.plant, self._lock, calls)

    def run(self) -> None:
        """Mirror until interrupted."""
        deadline, cycle = time.monotonic(), 0
        while True:
            deadline += self.plant.period_s
            with self._lock:
                self._listen()
                share = 1.0 - self._width / self.plant.env.arm.max_gripper_width
                self.plant.step(self._q, self._dq, share, 1.0)
                cycle += 1
                if cycle % _WIDTH_EVERY == 0:
                    self._tell(width=self._measured_width())
            behind = time.monotonic() - deadline
            deadline += behind if behind > _LATE_S else 0.0
            time.sleep(max(0.0, -behind))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    # --- franka-sim's process

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        model = self._folder / "fr3.xml"
        model.write_text(fr3_xml())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        inside = Path(__file__).with_name("inside.py")
        with theirs, (self._folder / "franka_sim.log").open("w") as log:
            process = subprocess.Popen(
                [str(franka_sim_python()), str(inside), self._host, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "FR3_MJCF": str(model), "PYTHONPATH": ""},
                stderr=log,
                stdout=log,
            )
        ours.setblocking(False)
        return ours, process

    def _await_packet(self) -> None:
        self._q = np.full(7, np.nan)
        deadline = time.monotonic() + _START_S
        while np.isnan(self._q).any():
            if time.monotonic() > deadline or self._process.poll() is not None:
                said = (self._folder / "franka_sim.log").read_text()[-800:]
                self._process.kill()
                raise EnvError(f"franka-sim did not start at {self._host}; it said: {said}")
            time.sleep(0.02)
            self._listen()

    def _listen(self) -> None:
        """The latest joint angles, and nothing older."""
        with contextlib.suppress(OSError):
            while packet := self._line.recv(256):
                values = np.array(_PACKET.unpack(packet))
                self._q, self._dq, self._width = values[:7], values[7:14], float(values[14])
                self._time_s = float(values[15])

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError):
            self._line.send(json.dumps(message).encode())

    def _measured_width(self) -> float:
        return (1.0 - self.plant.gripper_share) * self.plant.env.arm.max_gripper_width

    def _place(self) -> None:
        """franka-sim's arm jumps to where the scene's arm starts: nobody may be connected."""
        self._tell(place=self.plant.q.tolist(), width=0.08)
        self._q, self._dq, self._width = self.plant.q, np.zeros(7), 0.08

    # --- side channel

    def _scene(
        self, task: str, seed: int, options: Mapping[str, Any] | None = None, instruction: str | None = None
    ) -> dict[str, Any]:
        def put_up() -> dict[str, Any]:
            told = self.plant.set_scene(task, seed, options, instruction)
            self._place()
            time.sleep(0.05)
            self._listen()
            return told

        return self.side.in_painter(put_up)

    def _state(self) -> dict[str, Any]:
        with self._lock:
            return {"q": self._q, "qd": self._dq, "mirror_q": self.plant.q, "width": self._measured_width()}

    def _fault(self, kind: str) -> None:
        faults: dict[str, Callable[[], object]] = {
            "reflex": lambda: self._tell(reflex=True),
            "lost_connection": self._process.kill,
            "restart": self._restart,
            "freeze_cameras": lambda: setattr(self.side, "frozen", True),
            "clear": lambda: setattr(self.side, "frozen", False),
        }
        if kind not in faults:
            raise TypeError(f"no fault {kind!r}; there are {sorted(faults)}")
        self.events.append(kind)
        with self._lock:
            faults[kind]()

    def _restart(self) -> None:
        self._process.wait()
        self._line.close()
        self._line, self._process = self._start()
        self._await_packet()
        self._place()
