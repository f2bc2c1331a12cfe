"""Arms behind ROS 2: joint targets as short trajectories to a joint_trajectory_controller's topic.

Protocol-tested against a simulated controller, not hardware-tested: read ``docs/robots/ros2.md`` before you
connect an arm.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.errors import ConfigError, RobotError
from vla.robots import Reading, check_deadman, one_action
from vla.robots.actions import action_space
from vla.robots.camera_set import CameraSet
from vla.robots.cameras import CameraDevice
from vla.robots.heartbeat import Heartbeat
from vla.robots.kinematics import Kinematics
from vla.robots.ros_link import JOINT_STATE, NUMBERS, TRAJECTORY, RosLink, joints_of, numbers, trajectory
from vla.types import Observation

_FIRST_S = 5.0  # until the first joint state
_SERVICE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RosGripper:
    """A gripper of one joint.

    Args:
        joint: its name in joint_states.
        topic: of its controller.
        open, closed: positions of the joint, rad or m.
        kind: ``trajectory`` (joint_trajectory_controller) or ``position`` (forward_command_controller).
        seconds: that a trajectory to the end takes.
    """

    joint: str
    topic: str
    open: float
    closed: float
    kind: Literal["trajectory", "position"] = "position"
    seconds: float = 0.3

    def __post_init__(self) -> None:
        if self.open == self.closed or self.seconds <= 0:
            raise ConfigError(f"A gripper opens and closes in some time: {self}.")

    @property
    def message_type(self) -> str:
        return TRAJECTORY if self.kind == "trajectory" else NUMBERS

    def message(self, command: float) -> dict[str, Any]:
        """For -1 open .. +1 closed."""
        position = self.open + (self.closed - self.open) * (command + 1.0) / 2.0
        if self.kind == "position":
            return numbers([position])
        return trajectory([self.joint], np.array([position]), self.seconds, at_rest=True)

    def opening(self, position: float) -> float:
        """0 closed .. 1 open."""
        return (position - self.closed) / (self.open - self.closed)


@dataclass(frozen=True, kw_only=True)
class RosConfig:
    """What moves, and how fast.

    Args:
        joints: names in joint_states and trajectories, in the order of the arm's model.
        trajectory_topic: of a joint_trajectory_controller.
        joint_states_topic: with all joints.
        gripper: None: there is none, and it is told of as open.
        arrive: share of a control period after which a target is to be reached.
        max_joint_speed: rad/s; a target farther away is given more time, and that is counted.
        deadman_s: without a command for this long the arm is brought to rest.
        brake_s: seconds in which a moving arm comes to rest.
        stale_s: joint states older than this mean that the connection or the broadcaster is lost.
        follow_rad, follow_s: an arm that is farther than this from all that it was told in this time does not
            follow: its controller is not active, rejects trajectories, or something is in the way.
        stop_service, recover_service: ``std_srvs/srv/Trigger``, if the arm has any. The first is called on
            :meth:`Ros2Robot.stop` besides, the second by the :meth:`Ros2Robot.connect` after that, and by
            :meth:`Ros2Robot.recover`.
    """

    joints: tuple[str, ...]
    trajectory_topic: str = "/joint_trajectory_controller/joint_trajectory"
    joint_states_topic: str = "/joint_states"
    gripper: RosGripper | None = None
    arrive: float = 0.6
    max_joint_speed: float = 1.5
    deadman_s: float = 0.4
    brake_s: float = 0.2
    stale_s: float = 0.25
    follow_rad: float = 0.15
    follow_s: float = 0.5
    stop_service: str = ""
    recover_service: str = ""

    def __post_init__(self) -> None:
        if not self.joints or len(set(self.joints)) < len(self.joints):
            raise ConfigError(f"RosConfig.joints are the arm's, each once: {self.joints}.")
        if self.stop_service and not self.recover_service:
            raise ConfigError("RosConfig.stop_service needs a recover_service: connect() ends what it began.")
        for name, low, high in (
            ("arrive", 0.1, 2.0),
            ("max_joint_speed", 0.01, 4.0),
            ("deadman_s", 0.05, 2.0),
            ("brake_s", 0.05, 1.0),
            ("stale_s", 0.02, 1.0),
            ("follow_rad", 0.01, 1.0),
            ("follow_s", 0.1, 3.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"RosConfig.{name} is {getattr(self, name)}; expected {low:g}..{high:g}.")

    @property
    def subscriptions(self) -> dict[str, str]:
        """Type by topic."""
        return {self.joint_states_topic: JOINT_STATE}

    @property
    def publications(self) -> dict[str, str]:
        """Type by topic."""
        gripper = {} if self.gripper is None else {self.gripper.topic: self.gripper.message_type}
        return {self.trajectory_topic: TRAJECTORY, **gripper}

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.stop_service, self.recover_service)))


class Ros2Robot:
    """An arm behind ROS 2 as a robot; see :class:`vla.robots.Robot`.

    Args:
        config: see :class:`RosConfig`.
        link: to its ROS system, with the config's topics and services; owned from here on.
        embodiment: tool deltas or joint targets (``vla.robots.actions``).
        kinematics: of the arm with its tool, in the embodiment's world.
        cameras: one for each of the embodiment's, by name.
        geometry: shapes of arm and table for the safety envelope; None: collisions are not looked at.

    Raises:
        UnknownNameError, ConfigError: cameras do not fit the embodiment, joints not the model; a deadman that
            is too short.
    """

    def __init__(
        self,
        config: RosConfig,
        link: RosLink,
        embodiment: Embodiment,
        kinematics: Kinematics,
        cameras: Mapping[str, CameraDevice] | None = None,
        geometry: ArmGeometry | None = None,
    ) -> None:
        if len(config.joints) != len(kinematics.joint_names):
            raise ConfigError(
                f"RosConfig.joints has {len(config.joints)} names; the model has "
                f"{len(kinematics.joint_names)} joints: {', '.join(kinematics.joint_names)}."
            )
        check_deadman("RosConfig.deadman_s", config.deadman_s, embodiment)
        self.config, self.embodiment, self.geometry = config, embodiment, geometry
        self.deadman_s: float | None = config.deadman_s
        self._link, self._cameras = link, CameraSet(embodiment, cameras)
        self._space = action_space(embodiment, kinematics)
        self._heart = Heartbeat(config.deadman_s, self._fall_silent)
        self._told: deque[tuple[float, np.ndarray]] = deque()
        self._instruction, self._speed_limited = "", 0
        self._stopped, self._fault = True, ""
        self._stopped_there = False  # by our call of its stop service
        self._began = time.monotonic()

    def connect(self) -> Reading:
        """Wait for joint states and for a controller that listens, end a stop of ours; nothing moves.

        Raises:
            RobotError: nobody there, joints missing, nobody listens to the trajectories, or the arm moves.
                Each says what to do.
        """
        self._release()
        try:
            self._link.open()
            self._wait_for_states()
            if self._stopped_there:
                self._call_recover()
            self._check_listeners()
            q, qd, _ = self._joints()
            if np.abs(qd).max() > 0.05:
                raise RobotError(
                    f"{self._name} moves by itself ({np.abs(qd).max():.2f} rad/s): stop that first."
                )
            self._cameras.open()
        except RobotError:
            self._release()
            raise
        opening = self._joints()[2]
        self._space.reset(q, 1.0 - 2.0 * opening if opening < 0.95 else -1.0)
        self._told.clear()
        self._stopped, self._fault, self._speed_limited = False, "", 0
        self._began = time.monotonic()
        return self.read()

    def read(self) -> Reading:
        """Where the arm is and what the cameras see; ``info["fault"]`` says why it stands still, if it does.

        Raises:
            RobotError: the connection, joint states or a camera are lost or stale.
        """
        q, _, opening = self._joints()
        self._check_following(q)
        observation = Observation(
            images=self._cameras.images(),
            state=self._space.state(q, opening),
            instruction=self._instruction,
            embodiment=self.embodiment.name,
            time_s=time.monotonic() - self._began,
        )
        info = {"fault": self._fault, "speed_limited": self._speed_limited}
        return Reading(observation=observation, info=info, done=False)

    def command(self, action: np.ndarray) -> Reading:
        """Publish a trajectory to the action's target; does not wait for it.

        Raises:
            ActionError: not one finite action of this arm.
            RobotError: the arm stands still, and why; what to do before it moves again.
        """
        wanted = one_action(self.embodiment, action)
        if not self._stopped and not self._heart.beating and self._told:
            self._fault = f"no command came for {self.config.deadman_s:g} s: connect() again"
        before, _, _ = self._joints()
        self._check_following(before)
        if self._stopped or self._fault:
            raise RobotError(f"{self._name}: {self._fault or 'it was stopped: connect() again'}.")
        last = self._told[-1][1] if self._told else before
        q, gripper = self._space.target(wanted.astype(float))
        within_s = self.config.arrive / self.embodiment.control_hz
        needed_s = float(np.abs(q - last).max()) / self.config.max_joint_speed
        self._speed_limited += needed_s > within_s
        self._heart.beat()
        self._send(trajectory(self.config.joints, q, max(within_s, needed_s)))
        self._told.append((time.monotonic() + max(0.0, needed_s - within_s), q))
        if self.config.gripper is not None:
            self._link.publish(self.config.gripper.topic, self.config.gripper.message(gripper))
        return self.read()

    def predict_joints(self, action: np.ndarray) -> np.ndarray:
        """float64 [n] rad: the joint targets that an action leads to; nothing moves."""
        return self._space.predict(one_action(self.embodiment, action).astype(float))

    def set_instruction(self, text: str) -> Reading:
        """Any sentence: what it means is the policy's to know."""
        self._instruction = text
        return self.read()

    def stop(self) -> None:
        """Come to rest where the arm is, and stay; the arm's own stop service is called, too."""
        moving, self._stopped = not self._stopped, True
        self._heart.rest()
        if not moving:
            return
        try:
            self._brake()
            if self.config.stop_service:
                self._stopped_there = True
                self._link.trigger(self.config.stop_service, 2.0 / self.embodiment.control_hz)
        except RobotError as error:  # it cannot be told: it ends its last trajectory and holds
            self._fault = self._fault or f"told to stop while {error}"

    def recover(self) -> str:
        """After a stop of the arm's own, when its cause is gone: calls the recover service; then connect.

        Raises:
            RobotError: no such service is configured, or it refuses.
        """
        if not self.config.recover_service:
            raise RobotError(
                f"{self._name} has no recover service (RosConfig.recover_service): clear the fault there."
            )
        self._release()
        try:
            self._link.open()
            return self._call_recover()
        finally:
            self._release()

    def close(self) -> None:
        self.stop()
        self._release()
        self._heart.close()

    # --- inside

    @property
    def _name(self) -> str:
        return f"{self.embodiment.name!r} at {self.config.trajectory_topic}"

    def _call_recover(self) -> str:
        done, said = self._link.trigger(self.config.recover_service, _SERVICE_S)
        if not done:
            raise RobotError(f"{self._name} refuses to recover: {said or 'it does not say why'}.")
        self._stopped_there = False
        return said

    def _joints(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Angles and speeds [n], and the gripper's opening 0..1; RobotError where they are old or missing."""
        heard = self._link.latest(self.config.joint_states_topic)
        age_s = np.inf if heard is None else time.monotonic() - heard.at_s
        if heard is None or age_s > self.config.stale_s:
            raise RobotError(
                f"{self.config.joint_states_topic} has been silent for {age_s:.2f} s: the connection or the "
                "joint_state_broadcaster is lost; the arm ends its last short trajectory and holds."
            )
        grip = self.config.gripper
        q, qd = joints_of(heard.message, [*self.config.joints, *([grip.joint] if grip else [])])
        n = len(self.config.joints)
        return q[:n], qd[:n], 1.0 if grip is None else grip.opening(float(q[n]))

    def _check_following(self, q: np.ndarray) -> None:
        """Latch a fault where the arm is far from all that it was told lately."""
        now, config = time.monotonic(), self.config
        while len(self._told) > 1 and self._told[1][0] < now - config.follow_s:
            self._told.popleft()
        if self._stopped or self._fault or not self._told or self._told[0][0] > now - config.follow_s:
            return
        targets = np.stack([target for _, target in self._told])
        off = np.maximum(targets.min(0) - q, q - targets.max(0))
        if off.max() > config.follow_rad:
            joint = config.joints[int(off.argmax())]
            self._fault = (
                f"{joint} is {off.max():.2f} rad from where it was told to be for {config.follow_s:g} s: "
                "is the controller active ('ros2 control list_controllers'), does it reject trajectories "
                "(its log says), or is something in the way? Then connect() again"
            )
            self._quietly(self._brake)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._link.publish(self.config.trajectory_topic, message)

    def _brake(self) -> None:
        """To rest along the way that the arm is on."""
        q, qd, _ = self._joints()
        self._send(
            trajectory(
                self.config.joints, q + qd * self.config.brake_s / 2, self.config.brake_s, at_rest=True
            )
        )

    def _fall_silent(self) -> None:
        self._quietly(self._brake)

    @staticmethod
    def _quietly(call: Callable[[], None]) -> None:
        try:
            call()
        except RobotError:  # whoever reads or commands next is told
            return

    def _wait_for_states(self) -> None:
        deadline = time.monotonic() + _FIRST_S
        while self._link.latest(self.config.joint_states_topic) is None:
            if time.monotonic() > deadline:
                raise RobotError(
                    f"Nothing came on {self.config.joint_states_topic} for {_FIRST_S:g} s: is the arm's "
                    "driver running, its joint_state_broadcaster active, and the ROS domain the same?"
                )
            time.sleep(0.01)

    def _check_listeners(self) -> None:
        for topic in self.config.publications:
            if self._link.listeners(topic) == 0:
                raise RobotError(
                    f"No controller listens on {topic}: is it spelt right, and is the controller active "
                    "('ros2 control list_controllers')?"
                )

    def _release(self) -> None:
        self._stopped = True
        self._heart.rest()
        self._link.close()
        self._cameras.close()
