"""A counterpart in a process of its own (clients hold the interpreter's lock), and its side channel."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from typing import Any

from vla.errors import EnvError
from vla_envs.counterparts.process import ask
from vla_envs.counterparts.side_channel import CONTROL_PORT

_START_S = 30.0


class Counterpart:
    """A running counterpart; a context, or end it with :meth:`close`.

    Args:
        module: to be run; its flags are ``host``, ``task``, ``seed``, ``image_size`` and what ``flags`` adds.
        host: loopback address of this arm, e.g. 127.0.0.2; a controller's ports are fixed.
        task, seed, image_size: the scene behind it.

    Raises:
        EnvError: it did not start; what it said is on its standard error.
    """

    def __init__(
        self,
        module: str,
        host: str,
        *,
        task: str = "pick",
        seed: int = 0,
        image_size: int = 64,
        **flags: object,
    ) -> None:
        self.host = host
        settings = {"host": host, "task": task, "seed": seed, "image-size": image_size, **flags}
        command = [sys.executable, "-m", module]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._end = weakref.finalize(self, _end, process)
        self._control = self._connect(process)
        if self.ask("pid") != process.pid:
            self.close()
            raise EnvError(f"Another counterpart already runs at {host}: end it, or take another address.")

    def _connect(self, process: subprocess.Popen[bytes]) -> socket.socket:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                return socket.create_connection((self.host, CONTROL_PORT), timeout=_START_S)
            time.sleep(0.05)
        self._end()
        raise EnvError(f"The counterpart at {self.host} did not start within {_START_S:g} s.")

    def __enter__(self) -> Counterpart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_scene(
        self, task: str, seed: int, options: Mapping[str, Any] | None = None, instruction: str | None = None
    ) -> dict[str, Any]:
        """Put up a scene, arm at its start: ``instruction``, ``max_steps``. What ran on the arm is over."""
        return self.ask(
            "scene", task=task, seed=int(seed), options=dict(options or {}), instruction=instruction
        )

    def outcome(self) -> dict[str, Any]:
        """``success`` and ``wrong`` of the scene so far, ``time_s`` of the controller."""
        return self.ask("outcome")

    def fault(self, kind: str) -> None:
        """Inject a fault by name; an unknown one lists those there are. ``clear`` ends those that last."""
        self.ask("fault", kind=kind)

    def state(self) -> dict[str, Any]:
        """Measured ``q``, ``qd``, ``target_q``, ``robot_mode``, ``safety_mode``, ``running`` ..."""
        return self.ask("state")

    def events(self) -> list[str]:
        """What happened in the controller, in order."""
        return [text for _, text in self.ask("events")]

    def ask(self, call: str, **arguments: Any) -> Any:
        return ask(self._control, "counterpart", call, **arguments)

    def clock(self) -> float:
        """The counterpart's own time, s: where it is slower than the wall's, its arm is too."""
        return float(self.ask("clock"))

    def close(self) -> None:
        """End the process; may be called twice."""
        self._control.close()
        self._end()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ur_counterpart(host: str, **settings: object) -> Counterpart:
    """A UR5e (``vla_envs.counterparts.ur``)."""
    return Counterpart("vla_envs.counterparts.ur", host, **settings)  # type: ignore[arg-type]


def franka_counterpart(host: str, **settings: object) -> Counterpart:
    """An FR3 (``vla_envs.counterparts.franka``)."""
    return Counterpart("vla_envs.counterparts.franka", host, **settings)  # type: ignore[arg-type]


def ros_counterpart(host: str, **settings: object) -> Counterpart:
    """A UR5e under ros2_control (``vla_envs.counterparts.ros``)."""
    return Counterpart("vla_envs.counterparts.ros", host, **settings)  # type: ignore[arg-type]
