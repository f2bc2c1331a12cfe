"""A servo bus with an arm behind it, started in a process of its own, and its side channel.

The vendors' libraries poll without pause and hold the interpreter's lock while they do: a bus in a thread
beside them would not get to answer in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vla.errors import EnvError
from vla_envs.remote.serving import wire

TIMEOUT_S = 60.0


def ask(control: socket.socket, who: str, call: str, **arguments: Any) -> Any:
    """What a counterpart answers on its side channel; :class:`EnvError` where it has ended or refuses."""
    try:
        wire.send(control, {"call": call, "arguments": arguments})
        answer = wire.receive(control)
    except (EOFError, OSError) as error:
        raise EnvError(f"The {who} has ended (while asked for {call!r}).") from error
    if "error" in answer:
        raise EnvError(f"The {who} cannot {call}: {answer['error']}")
    return answer["value"]


class ServoCounterpart:
    """A running counterpart; use as a context, or end it with :meth:`close`.

    Args:
        protocol: ``feetech`` (STS3215, as in the SO-100 and SO-101) or ``dynamixel`` (X series).
        task: of the tabletop suite, whose SO-101, scene and cameras are behind the bus; empty: six servos
            without a load.
        clock: ``real``, or ``stepped``: time stands still but for :meth:`advance`.
        calibrated: homing offsets and limits stand in the servos' memories; False: as from the factory.
        image_size: pixels per side of its pictures.

    Attributes:
        port: to be opened by the vendor's library.
        joints: names in the order of the servos, whose ids are 1, 2 ...
    """

    def __init__(
        self,
        protocol: Literal["feetech", "dynamixel"],
        *,
        task: str = "",
        clock: Literal["real", "stepped"] = "real",
        calibrated: bool = True,
        image_size: int = 64,
    ) -> None:
        self.protocol = protocol
        self._folder = tempfile.mkdtemp(prefix="servo-bus-")
        self.port = str(Path(self._folder) / "port")
        ours, theirs = socket.socketpair()
        settings = {
            "protocol": protocol, "task": task, "clock": clock, "calibrated": calibrated,
            "image_size": image_size, "port": self.port, "control": theirs.fileno(),
        }  # fmt: skip
        with theirs:
            command = [sys.executable, "-m", "vla_envs.counterparts.serving", json.dumps(settings)]
            path = os.pathsep.join(entry for entry in sys.path if entry)
            process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        ours.settimeout(TIMEOUT_S)
        self._control = ours
        self._end = weakref.finalize(self, _end, process, ours, self._folder)
        try:
            self.joints = tuple(wire.receive(ours)["joints"])
        except (EOFError, TimeoutError) as error:
            self.close()
            raise EnvError(f"The {protocol} counterpart did not start; see what it printed.") from error

    def __enter__(self) -> ServoCounterpart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, seconds: float) -> float:
        """Let time pass (``stepped``); the plant's time afterwards, s."""
        return self._ask("advance", seconds=float(seconds))

    def fault(self, kind: str, servo: int, count: int = -1) -> None:
        """Switch on a fault of ``faults.KINDS``; ``count`` answers, or until :meth:`clear`."""
        self._ask("fault", kind=kind, servo=servo, count=count)

    def camera_fault(self, camera: str, kind: Literal["frozen", "lost"]) -> None:
        self._ask("camera", camera=camera, kind=kind)

    def clear(self) -> None:
        """End all faults, plug in what was unplugged; what a servo has latched stays."""
        self._ask("clear")

    def unplug(self) -> None:
        """Pull the cable."""
        self._ask("plug", plugged=False)

    def plug(self) -> None:
        self._ask("plug", plugged=True)

    def power_cycle(self) -> None:
        """Switch the servos' supply off and on."""
        self._ask("power_cycle")

    def push(self, angles: Sequence[float]) -> None:
        """Put the limp arm into a pose by hand, rad."""
        self._ask("push", angles=[float(a) for a in angles])

    def state(self) -> dict[str, Any]:
        """``angles`` [n] rad, ``time_s``, ``servos``: what stands in each memory, and how it is mounted."""
        return self._ask("state")

    def picture(self, camera: str) -> tuple[np.ndarray | None, float]:
        """uint8 [size size 3] or None (a lost camera), and when it was taken, s of the plant's time."""
        told = self._ask("picture", camera=camera)
        return told["picture"], told["time_s"]

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A scene of the task, the arm at its start, held: ``instruction`` and ``max_steps``."""
        return self._ask("reset", seed=seed, options=dict(options or {}))

    def outcome(self) -> dict[str, Any]:
        """``success`` and control ``steps`` since the reset."""
        return self._ask("outcome")

    def close(self) -> None:
        """End the process; may be called twice."""
        self._end()

    def _ask(self, call: str, **arguments: Any) -> Any:
        return ask(self._control, "servo counterpart", call, **arguments)


def _end(process: subprocess.Popen[bytes], control: socket.socket, folder: str) -> None:
    control.close()  # it leaves its loop
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5.0)
    if process.poll() is None:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
