"""A driver in a process of its own: what the policy does to Python's lock or memory cannot reach it.

Readings and commands go through a socket pair (``vla.robots.wire``). Every call of the control loop is a
heartbeat: there is no thread that beats for a loop that hangs. When nothing comes for ``deadman_s`` the child
stops the arm, and it stays stopped until :meth:`ProcessRobot.connect`; when the child dies or does not
answer, the call that finds it so says it, with the child's last words.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from vla import errors
from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.errors import ConfigError, RobotError
from vla.robots import Reading, one_action
from vla.robots.wire import Late, Lost, reading_from_wire, receive, send

#: Longest wait for the robot to be built, connected or told something else, s.
SLOW_S = 60.0
#: Control periods after which a command or a reading that is not answered is a fault.
ANSWER_PERIODS = 2
_LAST_WORDS = 2000  # characters


class ProcessRobot:
    """Any robot, run by a child process; a robot itself.

    Args:
        factory: ``module:function`` that returns the robot; imported in the child.
        arguments: of the function, as JSON.
        deadman_s: the child stops the arm after so long without a word; by default three control periods, at
            least 0.2 s, or less where the driver's own deadman is shorter.
        answer_s: longest wait for the answer to a command; by default two control periods.
        slow_s: the same for building and connecting.

    Raises:
        RobotError: the child cannot be started, or the robot not be built; says why.
        ConfigError: there is no such factory.
    """

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadman_s: float | None = None,
        answer_s: float | None = None,
        slow_s: float = SLOW_S,
    ) -> None:
        if deadman_s is not None and not 0.01 <= deadman_s <= 5:
            raise ConfigError(f"deadman_s is {deadman_s}; expected 0.01 .. 5 s.")
        self._slow_s, self._factory = slow_s, factory
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child
        self._connection, there = socket.socketpair()
        self._lost = ""
        self._process = self._start(there, {"arguments": dict(arguments or {}), "deadman_s": deadman_s})
        self._end = weakref.finalize(self, _end, self._process, self._connection, self._said)
        hello = self._receive(slow_s)
        self.embodiment = Embodiment.from_json(json.loads(hello["embodiment"]))
        self._answer_s = ANSWER_PERIODS / self.embodiment.control_hz if answer_s is None else answer_s
        self.deadman_s: float | None = hello["deadman_s"]
        self.geometry = None if hello["geometry"] is None else ArmGeometry(**hello["geometry"])
        if hello["predicts"]:
            self.predict_joints = self._predict_joints

    def connect(self) -> Reading:
        return self._reading("connect", self._slow_s)

    def read(self) -> Reading:
        return self._reading("read", self._answer_s)

    def command(self, action: np.ndarray) -> Reading:
        return self._reading("command", self._answer_s, action=one_action(self.embodiment, action))

    def set_instruction(self, text: str) -> Reading:
        return self._reading("set_instruction", self._slow_s, text=text)

    def stop(self) -> None:
        """Stop and stay stopped; a child that was lost was told by its silence."""
        if self._end.alive and not self._lost:
            self._call("stop", self._slow_s)

    def close(self) -> None:
        """The driver stops, lets go, and its process ends; twice is fine."""
        if self._end.alive and not self._lost:
            with contextlib.suppress(RobotError):  # it died: there is nothing to close
                self._call("close", self._slow_s)
        self._end()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    # --- inside

    def _start(self, there: socket.socket, settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        told = json.dumps({"factory": self._factory, **settings})
        command = [sys.executable, "-m", "vla.robots.process_child", str(there.fileno()), told]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with there:
            return subprocess.Popen(
                command,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C stops the loop, and the loop stops the arm
            )

    def _predict_joints(self, action: np.ndarray) -> np.ndarray:
        return self._call("predict_joints", self._answer_s, action=np.asarray(action, np.float64))["joints"]

    def _reading(self, call: str, timeout_s: float, **arguments: Any) -> Reading:
        return reading_from_wire(self._call(call, timeout_s, **arguments)["reading"])

    def _call(self, call: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        if self._lost or not self._end.alive:
            raise RobotError(
                self._lost or f"The driver {self._factory!r} is closed: make another ProcessRobot."
            )
        try:
            send(self._connection, {"call": call, **arguments})
        except Lost as error:
            raise self._dead() from error
        return self._receive(timeout_s, call)

    def _receive(self, timeout_s: float, call: str = "start") -> dict[str, Any]:
        try:
            answer = receive(self._connection, timeout_s)
        except Lost as error:
            raise self._dead() from error
        except Late as error:
            self._connection.close()  # it hears nothing any more: its deadman stops the arm, and it ends
            self._lost = (
                f"The driver {self._factory!r} did not answer {call!r} within {timeout_s:g} s and was given "
                f"up: look at the robot before you start another.{self._last_words()}"
            )
            raise RobotError(self._lost) from error
        if "error" in answer:
            kind = getattr(errors, answer["error"], RobotError)
            raise kind(answer["message"])
        return answer

    def _dead(self) -> RobotError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        code = self._process.returncode
        how = "does not speak any more" if code is None else f"ended with code {code}"
        how = f"was killed by signal {-code}" if code is not None and code < 0 else how
        self._lost = (
            f"The driver {self._factory!r} {how}. The arm is left to its own controller's watchdog: look at "
            f"it before you start another.{self._last_words()}"
        )
        return RobotError(self._lost)

    def _last_words(self) -> str:
        if self._said.closed:
            return ""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - _LAST_WORDS))
        said = self._said.read().decode(errors="replace").strip()
        return "".join(f"\n  | {line}" for line in said.splitlines())


def _end(process: subprocess.Popen[bytes], connection: socket.socket, said: IO[bytes]) -> None:
    """Hang up, which makes the child stop the arm and end; kill it where it does not."""
    connection.close()
    deadline = time.monotonic() + 3.0
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if process.poll() is None:
        process.kill()
        process.wait()
    said.close()
