"""lerobot and this package, both ways: a robot of lerobot's as one of ours, and ours in lerobot's words.

lerobot speaks of joints as ``NAME.pos`` in degrees, of grippers as ``NAME.pos`` from 0 (closed) to 100
(open). Nothing here imports lerobot: :class:`LerobotArm` is given an object of it, and the distribution
``lerobot_robot_vla`` (folder ``plugins``) registers :class:`LerobotView` with it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.embodiment import Embodiment
from vla.errors import ActionError, ConfigError, RobotError, UnknownNameError
from vla.robots import Reading, Robot, one_action
from vla.robots.actions import JOINT_FIELDS, action_space
from vla.robots.cameras import fit
from vla.robots.heartbeat import Heartbeat
from vla.robots.kinematics import Kinematics
from vla.types import Observation

#: A connection is tried this often.
ATTEMPTS = 3


class LerobotRobot(Protocol):
    """The part of ``lerobot.robots.Robot`` (0.6.1) that is used here."""

    @property
    def observation_features(self) -> dict[str, Any]: ...

    @property
    def action_features(self) -> dict[str, Any]: ...

    @property
    def is_connected(self) -> bool: ...

    def connect(self, calibrate: bool = True) -> None: ...

    def get_observation(self) -> dict[str, Any]: ...

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]: ...

    def disconnect(self) -> None: ...


class LerobotArm:
    """Any arm that lerobot drives by joint positions, as a :class:`vla.robots.Robot`.

    Args:
        robot: made by lerobot, not connected; its joints in degrees (``use_degrees``). Owned from here on.
            Most of lerobot's robots switch the torque off when they disconnect, so that the arm falls on
            ``close``: ``disable_torque_on_disconnect=False`` keeps it up.
        joints: names of the joints from base to wrist, in the order of ``kinematics``.
        gripper: its name; empty where there is none (then it is always open).
        kinematics: of the arm.
        embodiment: joint targets or tool steps (``vla.robots.actions``); its cameras are named as lerobot's.
        deadman_s: without a command for this long the arm is held where it is, and stays stopped.

    Raises:
        UnknownNameError: the robot has no such joint, gripper or camera.
        ConfigError: the model has another number of joints.
    """

    def __init__(
        self,
        robot: LerobotRobot,
        joints: Sequence[str],
        gripper: str,
        kinematics: Kinematics,
        embodiment: Embodiment,
        *,
        deadman_s: float = 0.5,
    ) -> None:
        self.embodiment, self.deadman_s = embodiment, deadman_s
        self._robot, self._joints, self._gripper = robot, tuple(joints), gripper
        if len(self._joints) != len(kinematics.joint_names):
            raise ConfigError(
                f"{len(self._joints)} joints {self._joints}; the model has {kinematics.joint_names}."
            )
        for name in (*self._joints, *([gripper] if gripper else [])):
            if f"{name}.pos" not in robot.action_features:
                raise UnknownNameError("joint of the lerobot robot", f"{name}.pos", robot.action_features)
        for camera in embodiment.cameras:
            if camera.name not in robot.observation_features:
                raise UnknownNameError("camera of the lerobot robot", camera.name, robot.observation_features)
        self._actions = action_space(embodiment, kinematics)
        self._lock = threading.RLock()
        self._heartbeat = Heartbeat(deadman_s, self._hold_for_silence)
        self._refusal, self._instruction = "is not connected", ""
        self._sent: dict[str, float] = {}
        self._started_s = self._returned_s = 0.0

    def connect(self) -> Reading:
        with self._lock:
            self._heartbeat.rest()
            if not self._robot.is_connected:
                self._connect_patiently()
            seen = self._seen()
            self._sent = {key: float(seen[key]) for key in self._robot.action_features}
            q, opening = self._angles(seen)
            self._actions.reset(q, 1.0 - 2.0 * opening)
            self._hold()
            self._started_s = self._returned_s = time.monotonic()
            self._refusal = ""
            return self._look()

    def read(self) -> Reading:
        with self._lock:
            if not self._robot.is_connected:
                raise RobotError(f"{self.embodiment.name!r} is not connected: call connect() first.")
            return self._look()

    def command(self, action: np.ndarray) -> Reading:
        wanted = one_action(self.embodiment, action)
        with self._lock:
            if self._refusal:
                raise RobotError(
                    f"{self.embodiment.name!r} {self._refusal}: call connect() before it may move again."
                )
            self._heartbeat.beat()
            q, gripper = self._actions.target(wanted)
            period_s, now = 1.0 / self.embodiment.control_hz, time.monotonic()
            grip = {self._gripper_key: 50.0 * (1.0 - gripper)} if self._gripper else {}
            self._send({**self._flat(q), **grip})
            due = (self._returned_s if now - self._returned_s < period_s else now) + period_s
            time.sleep(max(0.0, due - time.monotonic()))
            reading = self._look()
            self._returned_s = time.monotonic()
            return reading

    def set_instruction(self, text: str) -> Reading:
        self._instruction = text
        return self.read()

    def stop(self) -> None:
        """Hold where it is, gripping what it grips; refuses commands until :meth:`connect`."""
        with self._lock:
            self._heartbeat.rest()
            if not self._refusal:
                self._refusal = "was stopped"
                self._hold()

    def close(self) -> None:
        """Stop, and have lerobot disconnect."""
        try:
            self.stop()
        finally:
            self._refusal = "is not connected"
            self._heartbeat.close()
            if self._robot.is_connected:
                with _said_by_lerobot():
                    self._robot.disconnect()

    def _connect_patiently(self) -> None:
        """lerobot gives up at a servo's first late answer; what it left half connected is let go again."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with _said_by_lerobot():
                    self._robot.connect(calibrate=False)  # which asks questions: it is done beforehand
            except RobotError:
                if self._robot.is_connected:
                    with _said_by_lerobot():
                        self._robot.disconnect()
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    @property
    def _gripper_key(self) -> str:
        return f"{self._gripper}.pos"

    def _flat(self, q: np.ndarray) -> dict[str, float]:
        return {f"{name}.pos": float(np.rad2deg(angle)) for name, angle in zip(self._joints, q, strict=True)}

    def _angles(self, seen: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        q = np.deg2rad([float(seen[f"{name}.pos"]) for name in self._joints])
        return q, float(seen[self._gripper_key]) / 100 if self._gripper else 1.0

    def _seen(self) -> dict[str, Any]:
        with _said_by_lerobot():
            return self._robot.get_observation()

    def _send(self, flat: Mapping[str, float]) -> None:
        with _said_by_lerobot():
            self._robot.send_action({**self._sent, **flat})
        self._sent.update(flat)

    def _hold(self) -> None:
        """Joints stay where they are; the gripper goes on with what it does."""
        q, _ = self._angles(self._seen())
        self._send(self._flat(q))

    def _hold_for_silence(self) -> None:
        with self._lock:
            if self._refusal or self._heartbeat.beating:  # a command came while this waited
                return
            self._refusal = f"was held after {self.deadman_s:g} s without a command"
            with contextlib.suppress(RobotError):  # it is refused from here on, held or not
                self._hold()

    def _look(self) -> Reading:
        seen = self._seen()
        q, opening = self._angles(seen)
        cameras = self.embodiment.cameras
        observation = Observation(
            images={c.name: fit(np.asarray(seen[c.name], np.uint8), c.height, c.width) for c in cameras},
            state=self._actions.state(q, opening),
            instruction=self._instruction,
            embodiment=self.embodiment.name,
            time_s=time.monotonic() - self._started_s,
        )
        return Reading(observation=observation, info={}, done=False)


class LerobotView:
    """A robot of ours that follows joint targets, with lerobot's names and units; behind the safety envelope.

    Args:
        robot: owned from here on.
        joints: names to give the joints, from base to wrist.
        gripper: name to give the gripper.
        safety: limits of the envelope that every action passes.
    """

    def __init__(
        self,
        robot: Robot,
        joints: Sequence[str],
        gripper: str = "gripper",
        safety: SafetyConfig | None = None,
    ) -> None:
        embodiment = robot.embodiment
        if tuple(field.name for field in embodiment.action) != JOINT_FIELDS:
            raise ConfigError(
                f"lerobot drives joints; {embodiment.name!r} has the action fields "
                f"{[field.name for field in embodiment.action]}: give the robot an embodiment with "
                f"{JOINT_FIELDS}."
            )
        if len(joints) != embodiment.action[0].size:
            raise ConfigError(f"{len(joints)} names {tuple(joints)} for {embodiment.action[0].size} joints.")
        self._robot, self._envelope = robot, SafetyEnvelope.of(robot, safety)
        self._keys = (*(f"{name}.pos" for name in joints), f"{gripper}.pos")
        self._reading: Reading | None = None

    @property
    def action_features(self) -> dict[str, type]:
        return dict.fromkeys(self._keys, float)

    @property
    def observation_features(self) -> dict[str, Any]:
        pictures = {c.name: (c.height, c.width, 3) for c in self._robot.embodiment.cameras}
        return {**self.action_features, **pictures}

    @property
    def is_connected(self) -> bool:
        return self._reading is not None

    def connect(self) -> None:
        self._envelope.reset()
        self._reading = self._robot.connect()

    def get_observation(self) -> dict[str, Any]:
        """Degrees, 0..100, and pictures by name."""
        self._reading = self._robot.read()
        observation = self._reading.observation
        degrees = np.rad2deg(observation.state["joint_position"])
        opening = 100.0 * float(observation.state["gripper_opening"][0])
        return {
            **dict(zip(self._keys, [*(float(x) for x in degrees), opening], strict=True)),
            **observation.images,
        }

    def send_action(self, action: Mapping[str, Any]) -> dict[str, float]:
        """Command it; what was really sent, after the envelope."""
        if self._reading is None:
            raise RobotError("Not connected: call connect() first.")
        if missing := [key for key in self._keys if key not in action]:
            raise ActionError(f"The action lacks {missing}; expected {list(self._keys)}.")
        angles = np.deg2rad([float(action[key]) for key in self._keys[:-1]])
        wanted = np.append(angles, 1.0 - float(action[self._keys[-1]]) / 50.0)
        safe = self._envelope(wanted, self._reading.observation.state).action
        self._reading = self._robot.command(safe)
        sent = [*np.rad2deg(safe[:-1]), 50.0 * (1.0 - safe[-1])]
        return {key: float(value) for key, value in zip(self._keys, sent, strict=True)}

    def disconnect(self) -> None:
        self._robot.close()
        self._reading = None


class _said_by_lerobot:
    """What goes wrong inside lerobot (it raises ConnectionError, OSError and RuntimeError), as RobotError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ConnectionError, OSError, RuntimeError)) and not isinstance(error, RobotError):
            raise RobotError(f"lerobot says: {error} Check the arm, then connect() again.") from error
