"""The process that a driver lives in: carries out what it is told, and stops the arm when it is told nothing.

Started by ``vla.robots.process`` with one end of a socket pair and ``{"factory": "module:function",
"arguments": {...}, "deadman_s": ...}`` as JSON. A thread of its own watches the clock, so that a driver that
hangs in a call, or a loop that hangs in a policy, leaves no arm moving.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import Any

import numpy as np

from vla.control.geometry import Predicting, Shaped
from vla.errors import ConfigError, RobotError, VlaError
from vla.robots import Reading, Robot
from vla.robots.wire import Lost, reading_to_wire, receive, send

#: Errors whose kind matters to who called; others arrive as RobotError.
KINDS = ("ActionError", "ConfigError", "EnvError", "ObservationError", "RobotError")
#: The deadman, unless it is given: so many control periods, and no less than so many seconds.
DEADMAN_PERIODS, DEADMAN_S = 3, 0.2
#: Longest wait for a call that is under way before the arm is stopped beside it, s.
PATIENCE_S = 0.05


class Child:
    """One robot, driven by what comes over a socket.

    Args:
        robot: the driver; stopped and closed at the end, whatever it is.
        connection: to the loop's process.
        deadman_s: the arm is stopped when nothing came for so long.
    """

    def __init__(self, robot: Robot, connection: socket.socket, deadman_s: float) -> None:
        self._robot, self._connection, self._deadman_s = robot, connection, deadman_s
        self._lock, self._over = threading.Lock(), threading.Event()
        self._heard_s, self._moving, self._silence = time.monotonic(), False, ""

    def serve(self) -> None:
        """Until told to close, or until nobody is there."""
        watch = threading.Thread(target=self._watch, daemon=True, name="deadman")
        watch.start()
        try:
            while True:
                message = receive(self._connection)
                self._heard_s = time.monotonic()
                if message["call"] == "close":
                    break
                send(self._connection, self._answer(message))
        except Lost:
            pass  # the loop's process is gone: stop
        finally:
            self._over.set()
            watch.join(timeout=1.0)
            self._robot.close()
        with contextlib.suppress(Lost):
            send(self._connection, {"closed": True})

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._lock:
                found = self._call(message)
        except VlaError as error:
            kind = type(error).__name__
            return {"error": kind if kind in KINDS else "RobotError", "message": str(error)}
        except Exception as error:  # noqa: BLE001  # process edge: the arm is stopped, the loop is told
            with contextlib.suppress(Exception):
                self._robot.stop()
            self._moving = False
            said = "".join(traceback.format_exception(error)[-3:])
            return {
                "error": "RobotError",
                "message": f"the driver broke down and the arm was stopped:\n{said}",
            }
        return {"reading": reading_to_wire(_stamped(found))} if isinstance(found, Reading) else found or {}

    def _call(self, message: dict[str, Any]) -> Reading | dict[str, Any] | None:
        name = message["call"]
        if name == "connect":
            self._silence, self._moving = "", False
            reading = self._robot.connect()
            self._moving, self._heard_s = True, time.monotonic()
            return reading
        if name == "stop":
            self._moving = False
            self._robot.stop()
            return None
        if name == "read":
            return self._robot.read()
        if name == "set_instruction":
            return self._robot.set_instruction(message["text"])
        if name == "command":
            if self._silence:
                raise RobotError(f"{self._silence} Call connect() to start again.")
            return self._robot.command(message["action"])
        if name == "predict_joints" and isinstance(self._robot, Predicting):
            return {"joints": np.asarray(self._robot.predict_joints(message["action"]), np.float64)}
        raise ConfigError(f"The driver's process was asked to {name!r}.")

    def _watch(self) -> None:
        """The deadman."""
        while not self._over.wait(self._deadman_s / 10):
            silent_s = time.monotonic() - self._heard_s
            if not self._moving or silent_s <= self._deadman_s:
                continue
            self._silence = (
                f"The driver stopped the arm: it had heard nothing for {silent_s:.2f} s (deadman_s is "
                f"{self._deadman_s:g}); a policy that takes longer must think in the background."
            )
            self._moving = False
            held = self._lock.acquire(timeout=PATIENCE_S)  # a call that hangs must not keep the arm moving
            try:
                self._robot.stop()
            except Exception as error:  # noqa: BLE001  # process edge: the loop is told with its next command
                self._silence += f" Stopping it failed: {error!r}: use the emergency stop."
            finally:
                if held:
                    self._lock.release()


def _stamped(reading: Reading) -> Reading:
    """With the moment it was handed over, where the driver does not say when it was taken."""
    if reading.taken_s is not None:
        return reading
    return Reading(
        observation=reading.observation, info=reading.info, done=reading.done, taken_s=time.monotonic()
    )


def build(factory: str, arguments: dict[str, Any]) -> Robot:
    """The robot that ``module:function`` makes of its arguments."""
    module, _, function = factory.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{factory!r} names no robot factory: {error}. Write 'module:function'.") from error
    return make(**arguments)


def deadman(robot: Robot, given_s: float | None) -> float:
    """The shorter of the driver's own, if it has one, and what is given, else a few control periods."""
    own_s = given_s or max(DEADMAN_S, DEADMAN_PERIODS / robot.embodiment.control_hz)
    return own_s if robot.deadman_s is None else min(own_s, robot.deadman_s)


def main() -> None:
    """Build the robot, say what it is, serve."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    try:
        robot = build(settings["factory"], settings["arguments"])
        deadman_s = deadman(robot, settings["deadman_s"])
        geometry = robot.geometry if isinstance(robot, Shaped) else None
        hello = {
            "embodiment": json.dumps(robot.embodiment.to_json()),
            "deadman_s": deadman_s,
            "geometry": None if geometry is None else asdict(geometry),
            "predicts": isinstance(robot, Predicting),
        }
    except Exception as error:  # process edge: told to who started it
        kind = type(error).__name__
        known = kind in KINDS
        message = str(error) if known else f"{kind}: {error}"
        send(connection, {"error": kind if known else "RobotError", "message": message})
        raise SystemExit(1) from error
    send(connection, hello)
    Child(robot, connection, deadman_s).serve()


if __name__ == "__main__":
    main()
