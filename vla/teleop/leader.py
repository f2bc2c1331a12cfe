"""A leader arm: moved by hand, its torque off, followed joint by joint or by the steps of its tool."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ConfigError, RobotError
from vla.robots.calibration import ArmCalibration
from vla.robots.kinematics import Kinematics
from vla.robots.servo_bus import ServoBus, ServoError
from vla.robots.servo_checks import ServoChecks

#: Further than this in a control step (rad of any joint), and the person moves it; less for so many steps
#: hands back.
MOVED_RAD, REST_STEPS = 0.02, 20


class Leader:
    """An arm of the follower's make, held by a person.

    A follower of joint targets goes where the leader's joints are: it is approached as fast as the safety
    envelope lets it be. A follower of tool steps makes the leader's motion since it was taken over, from
    where it is: the two need not stand alike.

    Args:
        bus: of the leader's servos; owned from here on. Their torque is switched off.
        calibration: of the leader.
        kinematics: of both arms.

    Raises:
        ConfigError: the calibration has other joints than the model.
    """

    def __init__(self, bus: ServoBus, calibration: ArmCalibration, kinematics: Kinematics) -> None:
        joints = tuple(servo.name for servo in calibration if servo is not calibration.gripper)
        if joints != kinematics.joint_names:
            raise ConfigError(
                f"The leader is calibrated for {joints}; the follower has {kinematics.joint_names}."
            )
        self._bus, self._calibration, self._kinematics = bus, calibration, kinematics
        self._checks = ServoChecks(bus, calibration, f"leader on {bus.port}")
        self._arm: Embodiment | None = None
        self._last: np.ndarray | None = None
        self._began: tuple[np.ndarray, np.ndarray] | None = None
        self._rested = 0

    def connect(self, arm: Embodiment) -> None:
        names = [field.slot.removeprefix("arm0.") for field in arm.action]
        self._by_joints = names[0] == "joint_position"
        if not self._by_joints and names[0] != "tcp_position_delta":
            raise ConfigError(
                f"{arm.name!r} takes {names}: a leader leads joint targets, or steps of the tool."
            )
        if self._by_joints and arm.action[0].size != len(self._kinematics.joint_names):
            raise ConfigError(
                f"{arm.name!r} has {arm.action[0].size} joints, the leader "
                f"{len(self._kinematics.joint_names)}: they are not of one make."
            )
        self._bus.open()
        self._checks.models()
        self._checks.memories()
        self._bus.set_torque(self._calibration.servos, on=False)
        self._arm, self._last, self._began, self._rested = arm, None, None, REST_STEPS

    def read(self, state: Mapping[str, np.ndarray]) -> np.ndarray | None:
        arm = self._arm
        if arm is None:
            raise RobotError("The leader is not connected: call connect() first.")
        try:
            states = self._bus.read(self._calibration.servos)
        except ServoError as error:
            raise RobotError(f"The leader arm was lost: {error}") from error
        counts = {servo: found.position for servo, found in states.items()}
        q, opening = self._calibration.angles(counts), self._calibration.opening(counts)
        here = np.append(q, opening)
        moved = self._last is not None and float(np.abs(here - self._last).max()) > MOVED_RAD
        if self._last is None or moved:
            self._last = here
        self._rested = 0 if moved else self._rested + 1
        if self._rested >= REST_STEPS:
            self._began = None
            return None
        return self._by_joint(q, opening) if self._by_joints else self._by_tool(q, opening, state)

    def close(self) -> None:
        self._bus.close()

    def _by_joint(self, q: np.ndarray, opening: float) -> np.ndarray:
        return np.append(q, self._grip(opening)).astype(np.float32)

    def _by_tool(self, q: np.ndarray, opening: float, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """The step from where the follower is commanded to be to where the leader's motion leads."""
        arm = self._arm
        assert arm is not None
        position, _ = self._kinematics.pose(q)
        commanded = np.asarray(state["tcp_position"]) + np.asarray(state.get("tcp_error", 0.0))
        if self._began is None:
            self._began = position, commanded
        leader, follower = self._began
        action = np.zeros(arm.action_dim, np.float32)
        step = arm.field_slice("tcp_position_delta", of="action")
        action[step] = follower + (position - leader) - commanded
        action = np.clip(action, arm.action_low, arm.action_high)
        action[-1] = self._grip(opening)
        return action

    def _grip(self, opening: float) -> float:
        arm = self._arm
        assert arm is not None
        field = arm.action[-1]
        share = opening if field.gripper_sign == "positive_opens" else 1.0 - opening
        return field.low[0] + float(np.clip(share, 0, 1)) * (field.high[0] - field.low[0])
