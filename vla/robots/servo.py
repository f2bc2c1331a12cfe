"""A driver that wants targets at 100-500 Hz, driven at a policy's 5-50 Hz.

Between two actions of the policy the target goes straight from one to the next; at the driver's own rate it
passes the whole safety envelope (``vla.control.safety``), limits of motion and looks at the pose included.
The loop's envelope, at the policy's rate, keeps what is left of it: range and change.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.embodiment import MOTION_LIMITS, Embodiment
from vla.errors import ConfigError, RobotError, VlaError
from vla.robots import Reading, Robot, one_action

#: Control periods of the policy after which silence stops the arm, where the driver has no deadman itself.
DEADMAN_PERIODS = 3


class Servo:
    """Targets at a policy's rate in, commands at the driver's rate out; knows no clock of its own.

    Args:
        robot: connected; ``embodiment.control_hz`` is the driver's rate.
        envelope: of the robot, at that rate.
        period_s: the policy's.
        now_s: any clock's.
    """

    def __init__(self, robot: Robot, envelope: SafetyEnvelope, period_s: float, now_s: float) -> None:
        self._robot, self._envelope, self._period_s = robot, envelope, period_s
        self.reading = robot.read()
        envelope.reset()
        rest = envelope.hold(self.reading.observation.state).astype(np.float64)
        self._aimed = (rest, rest, now_s)

    @property
    def heard_s(self) -> float:
        """When it was aimed last."""
        return self._aimed[2]

    def aim(self, action: np.ndarray, now_s: float) -> None:
        """From where the target is now to this one within a period; grippers at once."""
        self._aimed = (self._target(now_s), np.asarray(action, np.float64), now_s)

    def turn(self, now_s: float) -> None:
        """One command at the driver's rate."""
        safe = self._envelope(self._target(now_s), self.reading.observation.state)
        self.reading = self._robot.command(safe.action)

    def _target(self, now_s: float) -> np.ndarray:
        begin, end, since_s = self._aimed
        target = begin + (end - begin) * min(1.0, (now_s - since_s) / self._period_s)
        grips = [f.gripper_sign != "none" for f in self._robot.embodiment.action for _ in range(f.size)]
        return np.where(grips, end, target)


class ServoRobot:
    """A robot at a policy's rate around one at its driver's rate.

    A thread sends the commands; run it in a process of its own (``vla.robots.process``), so that no policy
    shares its interpreter. Whatever goes wrong in the thread stops the arm, and the next call says what.

    Args:
        robot: whose action fields are absolute and declare limits of motion (grippers need not).
        control_hz: the policy's rate, at most the driver's.
        safety: of the envelope at the driver's rate.

    Raises:
        ConfigError: a field that cannot be moved in between, or a rate above the driver's.
    """

    def __init__(self, robot: Robot, control_hz: float, safety: SafetyConfig | None = None) -> None:
        arm = robot.embodiment
        wrong = [f.name for f in arm.action if f.gripper_sign == "none" and not f.max_velocity]
        if wrong or not 0 < control_hz <= arm.control_hz:
            raise ConfigError(
                f"{arm.name!r} runs at {arm.control_hz:g} Hz; a policy at {control_hz:g} Hz can drive it "
                "where each action field is absolute and declares max_velocity and max_acceleration: "
                f"{wrong} do not."
            )
        self._robot, self._envelope = robot, SafetyEnvelope.of(robot, safety)
        self.embodiment = _without_motion(arm, control_hz)
        self.deadman_s: float | None = robot.deadman_s or DEADMAN_PERIODS / control_hz
        self.geometry: ArmGeometry | None = None  # its poses are looked at inside, at the driver's rate
        self._lock, self._servo = threading.Lock(), None
        self._over, self._thread, self._fault = threading.Event(), None, ""

    def connect(self) -> Reading:
        self._end()
        self._robot.connect()
        self._servo = Servo(self._robot, self._envelope, 1.0 / self.embodiment.control_hz, time.monotonic())
        self._over, self._fault = threading.Event(), ""
        self._thread = threading.Thread(target=self._run, args=(self._servo, self._over), daemon=True)
        self._thread.start()
        return self.read()

    def read(self) -> Reading:
        if self._servo is None:
            raise RobotError(f"{self.embodiment.name!r} is not connected: call connect() first.")
        reading = self._servo.reading
        return replace(reading, info={**reading.info, "servo_safety": dict(self._envelope.counts)})

    def command(self, action: np.ndarray) -> Reading:
        value = one_action(self.embodiment, action)
        if self._servo is None or self._thread is None:
            raise RobotError(f"{self.embodiment.name!r} is stopped: call connect() to start again.")
        with self._lock:
            if self._fault:
                raise RobotError(f"{self._fault} Call connect() to start again.")
            self._servo.aim(value, time.monotonic())
        return self.read()

    def set_instruction(self, text: str) -> Reading:
        if self._servo is None:
            raise RobotError(f"{self.embodiment.name!r} is not connected: call connect() first.")
        with self._lock:
            self._servo.reading = self._robot.set_instruction(text)
        return self.read()

    def stop(self) -> None:
        self._end()
        self._robot.stop()

    def close(self) -> None:
        self._end()
        self._robot.close()

    def _end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _run(self, servo: Servo, over: threading.Event) -> None:
        period_s = 1.0 / self._robot.embodiment.control_hz
        deadline = time.monotonic()
        while not over.wait(max(0.0, deadline - time.monotonic())):
            deadline = max(deadline + period_s, time.monotonic())
            with self._lock:
                now_s = time.monotonic()
                try:
                    if self.deadman_s is not None and now_s - servo.heard_s > self.deadman_s:
                        raise RobotError(
                            f"The arm was stopped: no action came for {now_s - servo.heard_s:.2f} s "
                            f"(deadman_s is {self.deadman_s:g})."
                        )
                    servo.turn(now_s)
                except Exception as error:  # noqa: BLE001  # thread edge: the arm stops, the next call says why
                    self._fault = str(error) if isinstance(error, VlaError) else f"{error!r}."
                    self._robot.stop()
                    return


def _without_motion(arm: Embodiment, control_hz: float) -> Embodiment:
    plain = tuple(replace(f, **dict.fromkeys(MOTION_LIMITS, ())) for f in arm.action)
    # the box of a joint-space arm is kept inside, by its pose
    moved_by_tool = any(f.slot.endswith(("tcp_position", "tcp_position_delta")) for f in arm.action)
    box = {} if moved_by_tool else {"workspace_low": (), "workspace_high": ()}
    return replace(arm, action=plain, control_hz=control_hz, **box)
