"""Universal Robots arms (e-Series, PolyScope 5) through ur-rtde: joint targets streamed by servoJ.

Protocol-tested against a simulated controller, not hardware-tested: read ``docs/robots/ur.md`` before you
connect an arm.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.errors import ConfigError, MissingExtraError, RobotError
from vla.robots import Reading, check_deadman, one_action
from vla.robots.actions import action_space
from vla.robots.camera_set import CameraSet
from vla.robots.cameras import CameraDevice
from vla.robots.kinematics import Kinematics, rotation_error, rotation_matrix
from vla.robots.robotiq import RobotiqGripper
from vla.robots.ur_client import CAUSES
from vla.robots.wire import Late, Lost, receive, send
from vla.types import Observation

_CALL_S, _CONNECT_S = 2.0, 30.0


@dataclass(frozen=True, kw_only=True)
class UrConfig:
    """How to reach and move a UR arm.

    Args:
        host: address of the controller.
        base_position: of the arm's base frame in the world of the embodiment, m; the axes are parallel.
        tcp_offset: of the tool centre in the flange frame, m and rotation vector: set on the controller.
        payload: kg, and its centre of mass in the flange frame, m: set on the controller. A wrong one makes
            it feel collisions that are none, and miss real ones.
        rate_hz: of the stream, at least 125; e-Series controllers run at 500.
        lookahead_s, gain: of servoJ, 0.03..0.2 and 100..2000: shorter and higher follow faster and shake
            more.
        lead_s: how far the stream runs ahead of what is wanted, to make up for the lookahead's lag.
        arrive: share of a control period after which a target is reached.
        max_joint_speed: rad/s; a target farther away is approached at this speed, and that is counted.
        deadman_s: without a command for this long the arm is stopped.
        watchdog_hz: the controller ends its program where commands come less often than this.
        stale_s: data older than this means that the connection is lost.
        agreement: largest distance (m) and angle (rad) between the controller's tool pose and the model's.
        gripper: a Robotiq gripper is mounted and its URCap runs.
    """

    host: str
    base_position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tcp_offset: tuple[float, float, float, float, float, float]
    payload: tuple[float, float, float, float]
    rate_hz: float = 125.0
    lookahead_s: float = 0.07
    gain: float = 600.0
    lead_s: float = 0.035
    arrive: float = 0.4
    max_joint_speed: float = 1.5
    deadman_s: float = 0.4
    watchdog_hz: float = 10.0
    stale_s: float = 0.1
    agreement: tuple[float, float] = (0.005, 0.02)
    gripper: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rate_hz", 125.0, 500.0),
            ("lookahead_s", 0.03, 0.2),
            ("gain", 100.0, 2000.0),
            ("lead_s", 0.0, self.lookahead_s),
            ("arrive", 0.05, 1.0),
            ("max_joint_speed", 0.01, 3.0),
            ("deadman_s", 0.05, 2.0),
            ("watchdog_hz", 2.0, 50.0),
            ("stale_s", 0.02, 0.5),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"UrConfig.{name} is {getattr(self, name)}; expected {low:g}..{high:g}.")


class UrRobot:
    """A UR arm as a robot; see :class:`vla.robots.Robot`.

    Args:
        config: see :class:`UrConfig`.
        embodiment: tool deltas or joint targets (``vla.robots.actions``).
        kinematics: of the arm with its tool, in the embodiment's world.
        cameras: one for each of the embodiment's, by name.
        geometry: shapes of arm and table for the safety envelope; None: collisions are not looked at.

    Raises:
        MissingExtraError: ur-rtde is not installed.
        UnknownNameError, ConfigError: cameras do not fit the embodiment; a deadman that is too short.
    """

    def __init__(
        self,
        config: UrConfig,
        embodiment: Embodiment,
        kinematics: Kinematics,
        cameras: Mapping[str, CameraDevice] | None = None,
        geometry: ArmGeometry | None = None,
    ) -> None:
        if importlib.util.find_spec("rtde_control") is None:
            raise MissingExtraError("ur-rtde", "ur", "driving a Universal Robots arm")
        self._cameras = CameraSet(embodiment, cameras)
        check_deadman("UrConfig.deadman_s", config.deadman_s, embodiment)
        self.config, self.embodiment = config, embodiment
        self.deadman_s: float | None = config.deadman_s
        self.geometry = geometry
        self.record: dict[str, Any] = {}
        self._kinematics = kinematics
        self._space = action_space(embodiment, kinematics)
        self._gripper = RobotiqGripper(config.host) if config.gripper else None
        self._link: _Link | None = None
        self._instruction = ""
        self._stopped = True
        self._began = time.monotonic()

    def connect(self) -> Reading:
        """Check the controller, set tool and payload, start the stream where the arm is; nothing moves.

        Raises:
            RobotError: unreachable; not running, stopped by its safety or in local control; no program; or
                its tool pose disagrees with the model's. Each says what to do.
        """
        self._release()
        self._link = _Link(self.config)
        try:
            self._check_ready(self._link.ask("open", _CONNECT_S))
            self._link.ask("upload", _CONNECT_S)
            settings = self._link.ask(
                "settings",
                tcp_offset=list(self.config.tcp_offset),
                payload=list(self.config.payload),
            )
            self.record.update(settings)
            self._check_agreement(np.array(settings["q"]), np.array(settings["tcp_pose"]))
            if self._gripper is not None:
                self._gripper.open()
            self._cameras.open()
            started = self._link.ask("start", max_speed=self.config.max_joint_speed)
        except RobotError:
            self._release()
            raise
        q = np.array(started["target_q"])
        opening = 1.0 if self._gripper is None else self._gripper.opening()
        self._space.reset(q, 1.0 - 2.0 * opening if opening < 0.95 else -1.0)
        self._stopped, self._began = False, time.monotonic()
        return self.read()

    def read(self) -> Reading:
        """Where the arm is and what the cameras see; ``info["fault"]`` says why it stands still, if it does.

        Raises:
            RobotError: the controller, the gripper or a camera is lost, stale or frozen.
        """
        return self._reading(self._linked().ask("read"))

    def command(self, action: np.ndarray) -> Reading:
        """Go on to the action's target within a control period; does not wait for it.

        Raises:
            ActionError: not one finite action of this arm.
            RobotError: the arm stands still, and why; what to do before it moves again.
        """
        wanted = one_action(self.embodiment, action)
        link = self._linked()
        if self._stopped:
            raise RobotError(f"{self._name}: {CAUSES['stopped']}.")
        q, gripper = self._space.target(wanted.astype(float))
        period_s = 1.0 / self.embodiment.control_hz
        told = link.ask("go", q=q.tolist(), within_s=self.config.arrive * period_s)
        if self._gripper is not None:
            self._gripper.move((gripper + 1.0) / 2.0)
        return self._reading(told)

    def predict_joints(self, action: np.ndarray) -> np.ndarray:
        """float64 [n] rad: the joint targets that an action leads to; nothing moves."""
        return self._space.predict(one_action(self.embodiment, action).astype(float))

    def set_instruction(self, text: str) -> Reading:
        """Any sentence: what it means is the policy's to know."""
        self._instruction = text
        return self.read()

    def stop(self) -> None:
        """Come to rest and stay; a client that does not answer within two control periods is ended, and the
        controller's watchdog stops the arm."""
        self._stopped = True
        if self._link is not None:
            try:
                self._link.ask("stop", 2.0 / self.embodiment.control_hz)
            except RobotError:
                self._link.close()
                self._link = None

    def recover(self) -> str:
        """After a protective stop, when its cause is gone: wait (UR: 5 s), unlock, upload the program.

        Returns:
            The safety status that was found. The arm stays still: :meth:`connect` starts it.

        Raises:
            RobotError: it cannot be unlocked from here, and why.
        """
        return str(self._operator("recover"))

    def power_on(self) -> None:
        """Power on and release the brakes: stand clear. Then :meth:`connect`."""
        self._operator("power_on")

    def close(self) -> None:
        self.stop()
        self._release()

    # --- inside

    @property
    def _name(self) -> str:
        return f"{self.embodiment.name!r} at {self.config.host}"

    def _operator(self, call: str) -> Any:
        """A call that clears a stop, on a connection of its own if there is none."""
        self._release()
        self._link = _Link(self.config)
        self._link.ask("open", _CONNECT_S)
        return self._link.ask(call, _CONNECT_S + 10.0)

    def _linked(self) -> _Link:
        if self._link is None:
            raise RobotError(f"{self._name} is not connected: call connect() first.")
        return self._link

    def _release(self) -> None:
        self._stopped = True
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._gripper is not None:
            self._gripper.close()
        self._cameras.close()

    def _check_ready(self, told: dict[str, Any]) -> None:
        self.record = dict(told)
        cause = None
        if "EMERGENCY" in told["safety_status"]:
            cause = CAUSES["emergency_stop"]
        elif told["safety_status"] == "PROTECTIVE_STOP":
            cause = CAUSES["protective_stop"]
        elif told["safety_status"] not in ("NORMAL", "REDUCED"):
            cause = f"its safety status is {told['safety_status']}: see the pendant"
        elif told["robot_mode"] != "RUNNING":
            cause = f"robot mode {told['robot_mode']}: {CAUSES['robot_mode']}"
        elif not told["remote_control"]:
            cause = CAUSES["local_control"]
        if cause is not None:
            raise RobotError(f"{self._name} ({told['model']}, PolyScope {told['polyscope']}): {cause}.")

    def _check_agreement(self, q: np.ndarray, pose: np.ndarray) -> None:
        """The controller and our model must mean the same tool by the same angles."""
        here, turned = self._kinematics.pose(q)
        there = pose[:3] + np.array(self.config.base_position)
        metres = float(np.linalg.norm(there - here))
        radians = float(np.linalg.norm(rotation_error(rotation_matrix(pose[3:]) @ turned.T)))
        self.record["disagreement"] = [metres, radians]
        if metres > self.config.agreement[0] or radians > self.config.agreement[1]:
            raise RobotError(
                f"{self._name}: at q = {np.round(q, 4).tolist()} the controller has its tool at "
                f"{np.round(there, 4).tolist()} m, the model at {np.round(here, 4).tolist()} m: "
                f"{metres:.4f} m and {radians:.4f} rad apart, at most {self.config.agreement} are allowed. "
                "Check UrConfig.tcp_offset and base_position, that the model is of this arm, and its "
                "calibration."
            )

    def _reading(self, told: dict[str, Any]) -> Reading:
        q = np.array(told["q"])
        opening = 1.0 if self._gripper is None else self._gripper.opening()
        observation = Observation(
            images=self._cameras.images(),
            state=self._space.state(q, opening),
            instruction=self._instruction,
            embodiment=self.embodiment.name,
            time_s=time.monotonic() - self._began,
        )
        info = {"fault": told["fault"], "speed_limited": told["speed_limited"], "controller": self.record}
        return Reading(observation=observation, info=info, done=False)


class _Link:
    """The client's process and the line to it."""

    def __init__(self, config: UrConfig) -> None:
        self._host = config.host
        settings = {
            "host": config.host, "rate_hz": config.rate_hz, "lookahead_s": config.lookahead_s,
            "gain": config.gain, "lead_s": config.lead_s, "silence_s": config.deadman_s,
            "watchdog_hz": config.watchdog_hz, "stale_s": config.stale_s,
        }  # fmt: skip
        ours, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(entry for entry in sys.path if entry)
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "vla.robots.ur_client", str(theirs.fileno()),
                    json.dumps(settings),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        self._connection = ours

    def ask(self, call: str, timeout_s: float = _CALL_S, /, **arguments: Any) -> Any:
        """The client's answer; RobotError where it refuses, is gone or takes longer than ``timeout_s``."""
        self._connection.settimeout(timeout_s)
        try:
            send(self._connection, {"call": call, "arguments": arguments})
            answer = receive(self._connection, timeout_s)
        except Late as error:
            self.close()
            raise RobotError(
                f"The client of the arm at {self._host} did not answer {call!r} within {timeout_s:g} s and "
                f"was ended: {CAUSES['connection']}."
            ) from error
        except Lost as error:
            self.close()
            raise RobotError(
                f"The client of the arm at {self._host} ended (while asked for {call!r}): "
                f"{CAUSES['connection']}."
            ) from error
        if "error" in answer:
            raise RobotError(f"The arm at {self._host}: {answer['error']}.")
        return answer["value"]

    def close(self) -> None:
        """End the client; it stops the arm on its way."""
        self._connection.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
