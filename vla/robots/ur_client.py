"""The process that holds ur-rtde: it streams joint targets to a UR controller and nothing can stall it.

``vla.robots.ur`` starts it. It is a process of its own for two reasons: ur-rtde holds the interpreter's lock
while it connects, and ends the whole process where a connection breaks at the wrong moment. Whatever becomes
of either
side, the arm stops: this process stops it when nothing came from the other side for ``silence_s`` or that one
is gone, and the controller's watchdog does when nothing comes from this process.

Messages are those of ``vla.robots.wire``: ``{"call", "arguments"}`` is answered with ``{"value"}`` or
``{"error"}``.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vla.robots.wire import Lost, receive, send

_UNLOCK_S = 7.0  # UR: a protective stop cannot be unlocked sooner than 5 s after it happened
_START_S = 5.0
_TELLING_S = 0.1
_RUNNING = 7  # robot_mode
_STOP_DECELERATION = 10.0  # rad/s^2, of servoStop

#: What a fault is and what to do about it.
CAUSES: Mapping[str, str] = {
    "protective_stop": (
        "protective stop: the controller stopped the arm (collision, speed or force limit). Look at what "
        "caused it and clear the way, then call recover() and connect()"
    ),
    "emergency_stop": (
        "emergency stop: a red button is pressed. Make the scene safe, release the button, call power_on() "
        "(or power on and release the brakes on the pendant), then connect()"
    ),
    "robot_mode": "the arm is not running: call power_on() (or do it on the pendant), then connect()",
    "program": (
        "the control program on the controller ended (its watchdog, an error of the program, or somebody at "
        "the pendant): see the pendant's log, then connect() uploads it again"
    ),
    "local_control": "the controller is in local control: switch it to Remote on the pendant, then connect()",
    "connection": (
        "the connection to the controller is lost; its watchdog stops the arm. Check the cable and that the "
        "controller is up, then connect()"
    ),
    "data": (
        "no data from the controller any more; its watchdog stops the arm. Check the network, then connect()"
    ),
    "silence": "no command came in time, so the arm was stopped (deadman): connect() starts again",
    "stopped": "the arm was told to stop: connect() starts again",
}


class Refused(Exception):
    """The controller, or its state, does not allow what was asked."""


class Stream:
    """Joint targets between the last one sent and the one wanted, never faster than a limit.

    Args:
        q: where it starts: the controller's own target, rad.
        max_speed: of each joint, rad/s.
        lead_s: what is sent is where the joint will be after this long at its present speed.
    """

    def __init__(self, q: np.ndarray, max_speed: float, lead_s: float) -> None:
        self.q, self.max_speed, self._lead_s = q.copy(), max_speed, lead_s
        self.limited = 0
        self._start, self._goal = q.copy(), q.copy()
        self._elapsed, self._duration = 0.0, 1e-3

    def go(self, goal: np.ndarray, within_s: float) -> None:
        """Move on from the last target, evenly."""
        self._start, self._goal = self.q.copy(), np.asarray(goal, float)
        self._elapsed, self._duration = 0.0, max(within_s, 1e-3)

    def next(self, dt: float) -> np.ndarray:
        """What to send for the next ``dt``."""
        self._elapsed += dt
        share = min(1.0, self._elapsed / self._duration)
        step = self._start + share * (self._goal - self._start) - self.q
        allowed = np.clip(step, -self.max_speed * dt, self.max_speed * dt)
        self.limited += bool((np.abs(step - allowed) > 1e-9).any())
        self.q = self.q + allowed
        return self.q + allowed * (self._lead_s / dt)


class Client:
    """ur-rtde's three interfaces to one controller."""

    def __init__(
        self,
        host: str,
        rate_hz: float,
        lookahead_s: float,
        gain: float,
        lead_s: float,
        silence_s: float,
        watchdog_hz: float,
        stale_s: float,
    ) -> None:
        self._host, self._rate_hz = host, rate_hz
        self._servo = (1.0 / rate_hz, lookahead_s, gain)
        self._lead_s, self._silence_s = lead_s, silence_s
        self._watchdog_hz, self._stale_s = watchdog_hz, stale_s
        self._dashboard: Any = None
        self._control: Any = None
        self._receive: Any = None
        self.stream: Stream | None = None
        self.fault = "stopped"
        self._heard = self._fresh = 0.0
        self._timestamp = -1.0

    @property
    def period_s(self) -> float:
        return self._servo[0]

    # --- calls

    def open(self) -> dict[str, Any]:
        """Dashboard and data; what the controller says it is. Nothing moves, no program is started."""
        from dashboard_client import DashboardClient
        from rtde_receive import RTDEReceiveInterface

        self._dashboard = DashboardClient(self._host)
        self._dashboard.connect(2000)
        self._receive = RTDEReceiveInterface(self._host, self._rate_hz)
        return {
            "model": self._dashboard.getRobotModel(),
            "serial": self._dashboard.getSerialNumber(),
            "polyscope": self._dashboard.polyscopeVersion(),
            "robot_mode": self._dashboard.robotmode().rpartition(": ")[2].strip(),
            "safety_status": self._dashboard.safetystatus().rpartition(": ")[2].strip(),
            "remote_control": self._dashboard.isInRemoteControl(),
        }

    def upload(self) -> None:
        """The control program on the controller, running."""
        from rtde_control import RTDEControlInterface

        flags = RTDEControlInterface.FLAG_UPLOAD_SCRIPT
        if self._control is None:
            self._control = RTDEControlInterface(self._host, self._rate_hz, flags)
        elif not self._control.isProgramRunning():
            self._control.reuploadScript()
        self._await(self._control.isProgramRunning, _START_S, "the control program did not start")

    def settings(self, tcp_offset: list[float] | None, payload: list[float] | None) -> dict[str, Any]:
        """Set tool and payload where given ([6]; kg and centre of mass [3]), and say what is in force."""
        if tcp_offset is not None:
            self._control.setTcp(tcp_offset)
        if payload is not None:
            self._control.setPayload(payload[0], payload[1:])
        time.sleep(3 * self.period_s)
        return {
            "tcp_offset": list(self._control.getTCPOffset()),
            "payload_kg": self._receive.getPayload(),
            "payload_cog": list(self._receive.getPayloadCog()),
            "q": list(self._receive.getActualQ()),
            "tcp_pose": list(self._control.getForwardKinematics()),
        }

    def start(self, max_speed: float) -> dict[str, Any]:
        """Watchdog on, stream from where the controller's target is."""
        self._control.setWatchdog(self._watchdog_hz)
        self.stream = Stream(np.array(self._receive.getTargetQ()), max_speed, self._lead_s)
        self.fault, self._heard, self._fresh = "", time.monotonic(), time.monotonic()
        return {"target_q": self.stream.q.tolist()}

    def go(self, q: list[float], within_s: float) -> dict[str, Any]:
        if self.stream is None or self.fault:
            raise Refused(self.fault or "stopped")
        self._heard = time.monotonic()
        self.stream.go(np.array(q), within_s)
        return self.read()

    def read(self) -> dict[str, Any]:
        if self._receive is None:
            raise Refused("connection")
        stream = self.stream
        return {
            "q": list(self._receive.getActualQ()),
            "qd": list(self._receive.getActualQd()),
            "target_q": None if stream is None else stream.q.tolist(),
            "speed_limited": 0 if stream is None else stream.limited,
            "fault": self.fault or self._look(),
        }

    def stop(self, cause: str = "stopped") -> None:
        """Come to rest now and stay: the stream ends."""
        if self.fault == "":
            self.fault = cause
            if self._control.isProgramRunning():
                self._control.servoStop(_STOP_DECELERATION)

    def finish(self) -> None:
        """At rest, and the control program ended."""
        self.stop()
        if self._control is not None and self._control.isProgramRunning():
            self._control.stopScript()

    def recover(self) -> str:
        """After a protective stop: wait until it may be unlocked, unlock it, upload the program again."""
        status = self._dashboard.safetystatus().rpartition(": ")[2].strip()
        if "EMERGENCY" in status:
            raise Refused("emergency_stop")
        if status == "PROTECTIVE_STOP":
            self._dashboard.closeSafetyPopup()
            self._await(self._unlocked, _UNLOCK_S, "the protective stop could not be unlocked")
            self._await(lambda: not self._receive.isProtectiveStopped(), _START_S, "still in protective stop")
        if self._receive.getRobotMode() != _RUNNING:
            raise Refused("robot_mode")
        if not self._dashboard.isInRemoteControl():
            raise Refused("local_control")
        self.upload()
        return status

    def power_on(self) -> None:
        """Power and brakes, through the dashboard; the arm may sag by a millimetre."""
        self._dashboard.powerOn()
        self._dashboard.brakeRelease()
        self._await(lambda: self._receive.getRobotMode() == _RUNNING, 30.0, "the arm did not start")

    # --- the stream's turn

    def tick(self) -> None:
        """One servo period: look for faults, send the next target."""
        if self.stream is None or self.fault:
            return
        cause = self._cause()
        if not cause and time.monotonic() - self._heard > self._silence_s:
            cause = "silence"
        if cause:
            self.stop(cause)
            return
        dt, lookahead_s, gain = self._servo
        if not self._control.servoJ(self.stream.next(dt).tolist(), 0.0, 0.0, dt, lookahead_s, gain):
            self.fault = self._cause() or "program"

    def _cause(self) -> str:
        """As :meth:`_look`; an ended program waits for the stop that ended it, seen on another connection."""
        cause, deadline = self._look(), time.monotonic() + _TELLING_S
        while cause == "program" and time.monotonic() < deadline:
            time.sleep(self.period_s)
            cause = self._look() or "program"
        return cause

    def _look(self) -> str:
        """The cause of a fault that the controller reports, most telling first; empty for none."""
        receive, now = self._receive, time.monotonic()
        if not receive.isConnected():
            return "connection"
        if receive.getTimestamp() != self._timestamp:
            self._timestamp, self._fresh = receive.getTimestamp(), now
        elif now - self._fresh > self._stale_s:
            return "data"
        if receive.isEmergencyStopped():
            return "emergency_stop"
        if receive.isProtectiveStopped():
            return "protective_stop"
        if receive.getRobotMode() != _RUNNING:
            return "robot_mode"
        if self._control is not None and not self._control.isProgramRunning():
            return "program" if self._dashboard.isInRemoteControl() else "local_control"
        return ""

    def _unlocked(self) -> bool:
        try:
            self._dashboard.unlockProtectiveStop()
        except RuntimeError:  # what the client makes of the controller's "not before 5 s"
            time.sleep(0.25)
            return False
        return True

    def _await(self, holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise Refused(f"{otherwise} within {seconds:g} s")
            time.sleep(0.02)


def serve(connection: socket.socket, client: Client) -> None:
    """Answer calls between the ticks of the stream, until the other side is gone."""
    calls: dict[str, Callable[..., Any]] = {
        name: getattr(client, name)
        for name in ("open", "upload", "settings", "start", "go", "read", "stop", "recover", "power_on")
    }
    deadline = time.monotonic()
    while True:
        wait = deadline - time.monotonic()
        if select.select([connection], [], [], max(0.0, wait))[0]:
            try:
                send(connection, _answer(calls, receive(connection)))
            except Lost:
                client.finish()
                return
        if time.monotonic() >= deadline:
            client.tick()
            deadline = max(deadline + client.period_s, time.monotonic() - client.period_s)


def _answer(calls: Mapping[str, Callable[..., Any]], asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"value": calls[asked["call"]](**asked["arguments"])}
    except Refused as error:
        return {"error": CAUSES.get(str(error), str(error)), "cause": str(error)}
    except (RuntimeError, OSError) as error:  # ur-rtde raises RuntimeError for everything
        return {"error": str(error).strip(), "cause": "client"}


if __name__ == "__main__":
    fd, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    serve(socket.socket(fileno=fd), Client(**settings))
    os._exit(0)  # ur-rtde's own threads would keep the interpreter for seconds
