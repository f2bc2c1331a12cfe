"""An arm of smart servos as a robot: SO-100, SO-101, Koch and every other arm on a Feetech or Dynamixel bus.

What it does beyond passing numbers on, and why:

* it refuses an arm without a calibration, with other servos, or whose servos remember another calibration;
* torque is switched on where the arm stands, and never off again but by :meth:`ServoArm.release`: a limp arm
  falls;
* each target is approached in steps over the control period, and every step reads what the servos complain
  about;
* anything that goes wrong leaves the arm holding where it is, stopped until :meth:`ServoArm.connect`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.errors import ConfigError, RobotError
from vla.robots import Reading, one_action
from vla.robots.actions import action_space
from vla.robots.calibration import ArmCalibration
from vla.robots.camera_set import CameraSet
from vla.robots.cameras import CameraDevice
from vla.robots.heartbeat import Heartbeat
from vla.robots.kinematics import Kinematics
from vla.robots.servo_bus import ServoBus, ServoError, ServoState
from vla.robots.servo_checks import ServoChecks
from vla.types import Observation


class Clock(Protocol):
    """How time passes for a driver."""

    def now(self) -> float:
        """Seconds, never running backwards."""
        ...

    def sleep(self, seconds: float) -> None: ...


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class ServoArmConfig:
    """How an arm is driven.

    Args:
        deadman_s: without a command for this long the arm is held where it is and stays stopped (the host's
            own watch; Dynamixel servos watch besides, for a host that has died); None: no watch, for arms
            whose clock stands still between commands.
        max_speed_rad_s: joint targets move at most this fast, whatever is asked for.
        gripper_torque: share of the gripper servo's torque: what it grips with, and what it burns out from.
        num_steps: a target is approached in this many steps ...
        ramp_share: ... over this share of the control period.
        paces: a command returns when a control period has passed since the last one returned, with what is
            seen then; False returns after the ramp, for a loop that keeps the rate itself.
    """

    deadman_s: float | None = 0.5
    max_speed_rad_s: float = 5.0
    gripper_torque: float = 0.6
    num_steps: int = 6
    ramp_share: float = 0.6
    paces: bool = True

    def __post_init__(self) -> None:
        for name in ("max_speed_rad_s", "gripper_torque", "num_steps", "ramp_share"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"ServoArmConfig.{name} is {getattr(self, name)}; expected more than 0.")
        if self.gripper_torque > 1 or self.ramp_share > 1:
            raise ConfigError("ServoArmConfig.gripper_torque and ramp_share are shares, at most 1.")
        if self.deadman_s is not None and self.deadman_s <= 0:
            raise ConfigError(
                f"ServoArmConfig.deadman_s is {self.deadman_s}; expected seconds above 0, or None."
            )


class ServoArm:
    """See :class:`vla.robots.Robot`; ``info`` of its readings has ``voltage_v`` and ``temperature_c`` by
    joint, ``repeated`` (questions asked again since connecting) and ``limited`` (targets it slowed down or
    cut).

    Args:
        bus: the servos' bus, e.g. ``FeetechBus("/dev/ttyACM0")``; owned from here on.
        calibration: of this very arm.
        kinematics: of the arm, its joints in the calibration's order.
        embodiment: joint targets or tool steps (``vla.robots.actions``).
        cameras: by name, one for each of the embodiment's; owned from here on.
        geometry: shapes of arm and table for the safety envelope; None: collisions are not looked at.
        config: see :class:`ServoArmConfig`.
        clock: how time passes.

    Raises:
        EmbodimentError: the embodiment's fields are none that this arm has.
        UnknownNameError, ConfigError: cameras or joints do not fit the embodiment.
    """

    def __init__(
        self,
        bus: ServoBus,
        calibration: ArmCalibration,
        kinematics: Kinematics,
        embodiment: Embodiment,
        *,
        cameras: Mapping[str, CameraDevice] | None = None,
        geometry: ArmGeometry | None = None,
        config: ServoArmConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.bus, self.calibration, self.embodiment = bus, calibration, embodiment
        self.config = config or ServoArmConfig()
        self.deadman_s, self.geometry = self.config.deadman_s, geometry
        self._actions = action_space(embodiment, kinematics)
        self._joint_names = kinematics.joint_names
        self._cameras = CameraSet(embodiment, cameras)
        self._clock = clock or WallClock()
        self._lock = threading.RLock()
        self._heartbeat = Heartbeat(self.deadman_s, self._hold_for_silence)
        self._refusal = "is not connected"
        self._released = False
        self._instruction = ""
        self._started_s = self._returned_s = 0.0
        self._q, self._goals, self._limited = np.zeros(0), {}, 0
        self._checks = ServoChecks(bus, calibration, self._title)
        self._check_fit()

    # --- Robot

    def connect(self) -> Reading:
        """Open, check everything that can be checked, and hold the arm where it stands.

        Raises:
            ServoError: the port, a servo or its model; a servo that has gone limp (see :meth:`recover`).
            CalibrationError: the servos remember another calibration.
            CameraError: a camera shows nothing.
        """
        with self._lock:
            self._heartbeat.rest()
            self._refusal = "could not be connected"
            ids = self.calibration.servos
            self.bus.open()
            self._checks.models()
            self._checks.memories()
            states = self.bus.read(ids)
            self._checks.alerts(states)
            self.bus.guard(ids, None)
            self._hold(states, gripping=False)
            for servo in self.calibration:
                share = self.config.gripper_torque if servo is self.calibration.gripper else 1.0
                self.bus.limit_torque(servo.servo, share)
            self.bus.set_torque(ids, on=True)
            self._released = False
            self._hold(self.bus.read(ids), gripping=False)
            self._cameras.open()
            self._started_s = self._returned_s = self._clock.now()
            self._limited = 0
            self._refusal = ""
            return self._look()

    def read(self) -> Reading:
        with self._lock:
            if self._refusal.startswith(("is not", "could not")):
                raise RobotError(f"{self._title} {self._refusal}: call connect() first.")
            return self._guarded(self._look)

    def command(self, action: np.ndarray) -> Reading:
        wanted = one_action(self.embodiment, action)
        with self._lock:
            if self._refusal:
                raise RobotError(f"{self._title} {self._refusal}: call connect() before it may move again.")
            if not self._heartbeat.beating:
                self._guarded(self._watch)
            self._heartbeat.beat()
            reading = self._guarded(lambda: self._follow(wanted))
            self._heartbeat.beat()
            return reading

    def predict_joints(self, action: np.ndarray) -> np.ndarray:
        """float64 [n] rad: the joint targets that an action leads to; nothing moves."""
        with self._lock:
            return self._actions.predict(one_action(self.embodiment, action).astype(float))

    def set_instruction(self, text: str) -> Reading:
        self._instruction = text
        return self.read()

    def stop(self) -> None:
        """Hold where it is, torque on, gripping what it grips; refuses commands until :meth:`connect`."""
        with self._lock:
            self._heartbeat.rest()
            if not self._refusal:
                self._refusal = "was stopped"
                self._hold(self.bus.read(self.calibration.servos), gripping=True)

    def close(self) -> None:
        """Stop, and let go of port and cameras. The servos hold on: see :meth:`release`."""
        try:
            self.stop()
        finally:
            self._refusal = "is not connected"
            self._heartbeat.close()
            self.bus.close()
            self._cameras.close()

    # --- beyond

    def rest(self, q: np.ndarray, *, seconds: float = 3.0) -> Reading:
        """Go to joint angles [n] rad on a straight line through joint space, in this time; then hold."""
        with self._lock:
            if self._refusal:
                raise RobotError(f"{self._title} {self._refusal}: call connect() before it may move again.")
            self._heartbeat.rest()
            goal = np.clip(np.asarray(q, float), self.calibration.low, self.calibration.high)
            opening = self.calibration.opening(self._goals)
            steps = max(1, round(seconds * 50))
            self._guarded(lambda: self._approach(goal, opening, steps, seconds))
            self._actions.reset(goal, 1.0 - 2.0 * opening)
            return self._guarded(self._look)

    def release(self) -> None:
        """Switch the torque off: **the arm falls** unless it lies or is held.

        Commands need :meth:`connect`.
        """
        with self._lock:
            self._heartbeat.rest()
            self._refusal, self._released = "was released", True
            self.bus.set_torque(self.calibration.servos, on=False)

    def recover(self) -> list[str]:
        """Clear what servos have latched (overload, overheating); names of the joints concerned.

        Those servos are limp for a moment: **support the arm**. :meth:`connect` afterwards.
        """
        with self._lock:
            self.bus.open()
            states = self.bus.read(self.calibration.servos)
            tripped = [servo for servo in self.calibration if states[servo.servo].alerts]
            for servo in tripped:
                self.bus.recover(servo.servo)
            return [servo.name for servo in tripped]

    # --- inside

    @property
    def _title(self) -> str:
        return f"Arm {self.embodiment.name!r} on {self.bus.port}"

    def _check_fit(self) -> None:
        calibrated = tuple(joint.name for joint in self.calibration.joints)
        if len(calibrated) != len(self._joint_names):
            raise ConfigError(
                f"The arm model of {self.embodiment.name!r} has the joints {self._joint_names}, the "
                f"calibration of {self.calibration.arm!r} has {calibrated}."
            )

    def _check_health(self, states: Mapping[int, ServoState]) -> None:
        """Of an arm that is meant to hold."""
        self._checks.health(states, released=self._released)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Do it; whatever fails on the way stops the arm before the error leaves."""
        try:
            return action()
        except RobotError as error:
            self._heartbeat.rest()
            if not self._refusal:
                self._refusal = f"was stopped by an error ({type(error).__name__})"
                self._hold_blindly()
            raise

    def _watch(self) -> None:
        """The servos' own deadman, where they have one, a little behind the host's."""
        if self.deadman_s is not None:
            self.bus.guard(self.calibration.servos, 2 * self.deadman_s)

    def _follow(self, action: np.ndarray) -> Reading:
        began = self._clock.now()
        period_s = 1.0 / self.embodiment.control_hz
        wanted, gripper = self._actions.target(action)
        opening = (1.0 - gripper) / 2.0
        reach = self.config.max_speed_rad_s * period_s
        slowed = np.clip(wanted, self._q - reach, self._q + reach)
        slowed = np.clip(slowed, self.calibration.low, self.calibration.high)
        self._limited += int(np.abs(slowed - wanted).max(initial=0.0) > 1e-6)
        self._approach(slowed, opening, self.config.num_steps, self.config.ramp_share * period_s)
        if self.config.paces:
            last = self._returned_s if began - self._returned_s < period_s else began
            left_s = last + period_s - self._clock.now()
            if left_s > 0:
                self._clock.sleep(left_s)
        reading = self._look()
        self._returned_s = self._clock.now()
        return reading

    def _approach(self, q: np.ndarray, opening: float, num_steps: int, seconds: float) -> None:
        """Targets on the way from the last to ``q``, the gripper at once; alerts raise."""
        start = self._q.copy()
        for step in range(1, num_steps + 1):
            self._q = start + step / num_steps * (q - start)
            self._goals = self.calibration.counts(self._q, opening)
            self.bus.send(self._goals)
            self._clock.sleep(seconds / num_steps)
            if step < num_steps:
                self._check_health(self.bus.read(self.calibration.servos))

    def _look(self) -> Reading:
        states = self.bus.read(self.calibration.servos)
        self._check_health(states)
        counts = {servo: state.position for servo, state in states.items()}
        q, opening = self.calibration.angles(counts), self.calibration.opening(counts)
        observation = Observation(
            images=self._cameras.images(),
            state=self._actions.state(q, opening),
            instruction=self._instruction,
            embodiment=self.embodiment.name,
            time_s=self._clock.now() - self._started_s,
        )
        info = {
            "voltage_v": {s.name: states[s.servo].voltage_v for s in self.calibration},
            "temperature_c": {s.name: states[s.servo].temperature_c for s in self.calibration},
            "repeated": self.bus.repeated,
            "limited": self._limited,
        }
        return Reading(observation=observation, info=info, done=False)

    def _hold(self, states: Mapping[int, ServoState], *, gripping: bool) -> None:
        """Make where it stands what is wanted of it; ``gripping``: the gripper goes on with what it does."""
        goals = {
            s.servo: min(max(states[s.servo].position, s.min_count), s.max_count) for s in self.calibration
        }
        if gripping and self.calibration.gripper is not None:
            goals[self.calibration.gripper.servo] = self._goals[self.calibration.gripper.servo]
        self._goals = goals
        self.bus.send(self._goals)
        self._q = self.calibration.angles(self._goals)
        self._actions.reset(self._q, 1.0 - 2.0 * self.calibration.opening(self._goals))

    def _hold_blindly(self) -> None:
        """Hold without knowing where every servo is.

        Those that answer hold where they stand, the others what they were told last.
        """
        goals = dict(self._goals)
        try:
            for servo in self.calibration.joints:  # the gripper keeps what it grips
                with _unless_the_port_is_gone():
                    goals[servo.servo] = self.bus.read([servo.servo])[servo.servo].position
            self.bus.send(goals)
        except ServoError:
            return  # the port is gone: the servos hold the last goals by themselves

    def _hold_for_silence(self) -> None:
        """Called by the heartbeat's thread when no command came in time."""
        with self._lock:
            if self._refusal or self._heartbeat.beating:  # a command came while this waited
                return
            self._refusal = f"was held after {self.deadman_s:g} s without a command"
            self._hold_blindly()


class _unless_the_port_is_gone:
    """Let a servo that does not answer pass; a port that is gone does not."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, ServoError) and error.cause != "port"
