"""Franka arms (FR3, and Panda with FCI 5) through franka-rs: joint targets, tracked at 1 kHz outside Python.

Protocol-tested against franka-sim, not hardware-tested: read ``docs/robots/franka.md`` before you connect an
arm.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.errors import ConfigError, MissingExtraError, RobotError
from vla.robots import Reading, check_deadman, one_action
from vla.robots.actions import action_space
from vla.robots.camera_set import CameraSet
from vla.robots.cameras import CameraDevice
from vla.robots.franka_hand import FrankaHand
from vla.robots.kinematics import Kinematics
from vla.types import Observation

_AGAIN = "then connect()"
#: What to do in each mode that is not ``idle``.
MODES: Mapping[str, str] = {
    "reflex": f"a reflex stopped it: look at what it met, clear the way, call recover(), {_AGAIN}",
    "user_stopped": f"the user stop is pressed: make the scene safe, release it, {_AGAIN}",
    "guiding": f"it is being guided by hand: let go of it, {_AGAIN}",
    "other": f"it is not ready: unlock the joints and activate FCI in Desk, {_AGAIN}",
    "move": f"another program moves it: end that, {_AGAIN}",
    "automatic_error_recovery": f"it is recovering: wait, {_AGAIN}",
}


@dataclass(frozen=True, kw_only=True)
class FrankaConfig:
    """How to reach and move a Franka arm.

    Args:
        host: address of the control box.
        base_position: of the arm's base in the world of the embodiment, m; the axes are parallel.
        flange_to_tcp: of the model's tool centre from the flange, m along the flange's z axis.
        speed: share of the arm's joint velocity, acceleration and jerk limits that it may use, 0..1.
        collision: torque (Nm) and force (N) at which the arm's own reflex stops it.
        deadman_s: without a command for this long the arm is stopped.
        stale_s: a robot state older than this means that the connection is lost.
        agreement: largest distance, m, between the arm's flange and the model's.
        realtime: ``enforce`` needs a real-time kernel, as Franka asks for; ``ignore`` is for simulators.
        gripper: a Franka Hand is mounted, and homed.
        hand_force: N, at which it closes.
    """

    host: str
    base_position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flange_to_tcp: float = 0.1034
    speed: float = 0.3
    collision: tuple[float, float] = (40.0, 40.0)
    deadman_s: float = 0.4
    stale_s: float = 0.1
    agreement: float = 0.005
    realtime: Literal["enforce", "ignore"] = "enforce"
    gripper: bool = True
    hand_force: float = 20.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("speed", 0.01, 1.0),
            ("deadman_s", 0.05, 2.0),
            ("stale_s", 0.02, 1.0),
            ("hand_force", 1.0, 70.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"FrankaConfig.{name} is {getattr(self, name)}; expected {low:g}..{high:g}."
                )


class FrankaRobot:
    """A Franka arm as a robot; see :class:`vla.robots.Robot`.

    Args:
        config: see :class:`FrankaConfig`.
        embodiment: tool deltas or joint targets (``vla.robots.actions``).
        kinematics: of the arm with its tool, in the embodiment's world.
        cameras: one for each of the embodiment's, by name.
        geometry: shapes of arm and table for the safety envelope; None: collisions are not looked at.

    Raises:
        MissingExtraError: franka-rs is not installed.
        UnknownNameError, ConfigError: cameras do not fit the embodiment; a deadman that is too short.
    """

    def __init__(
        self,
        config: FrankaConfig,
        embodiment: Embodiment,
        kinematics: Kinematics,
        cameras: Mapping[str, CameraDevice] | None = None,
        geometry: ArmGeometry | None = None,
    ) -> None:
        if importlib.util.find_spec("franka") is None:
            raise MissingExtraError("franka-rs", "franka", "driving a Franka arm")
        self._cameras = CameraSet(embodiment, cameras)
        check_deadman("FrankaConfig.deadman_s", config.deadman_s, embodiment)
        self.config, self.embodiment = config, embodiment
        self.deadman_s: float | None = config.deadman_s
        self.geometry = geometry
        self.record: dict[str, Any] = {}
        self._kinematics = kinematics
        self._space = action_space(embodiment, kinematics)
        self._robot: Any = None
        self._motion: Any = None
        self._hand: FrankaHand | None = None
        self._fault = "it was told to stop: connect() starts again"
        self._reflex = ""  # of a motion here, until recover(): a person has looked at it
        self._lock = threading.RLock()
        self._heard = self._began = self._fresh = time.monotonic()
        self._robot_time: Any = None
        self._instruction = ""

    def connect(self) -> Reading:
        """Check the arm, set its reflexes, take over where it is; nothing moves.

        Raises:
            RobotError: unreachable; stopped by a reflex or by hand, not unlocked; its flange disagrees with
                the model's. Each says what to do.
        """
        import franka

        if self._reflex:
            raise RobotError(f"{self._name}: {self._reflex}: {MODES['reflex']}.")
        self._release()
        with self._errors("connect"):
            self._robot = franka.Robot(self.config.host, realtime=self.config.realtime)
            state = self._robot.read_once()
        self._check_ready(state)
        self._check_agreement(state)
        torque, force = self.config.collision
        with self._errors("set its reflexes"):
            self._robot.set_collision_behavior_simple([torque] * 7, [torque] * 7, [force] * 6, [force] * 6)
            if self.config.gripper:
                self._hand = FrankaHand(self._robot.gripper(), self.config.hand_force)
        self._cameras.open()
        with self._errors("start"):
            self._motion = self._robot.joint_targets(fraction=self.config.speed, velocity_feedforward=True)
            q = np.array(self._motion.target())
        self._space.reset(q, -1.0 if self._opening() > 0.95 else 1.0 - 2.0 * self._opening())
        self._fault = ""
        self._heard = self._began = self._fresh = time.monotonic()
        threading.Thread(target=self._watch, args=(self._motion,), daemon=True).start()
        return self.read()

    def read(self) -> Reading:
        """Where the arm is and what the cameras see; ``info["fault"]`` says why it stands still, if it does.

        Raises:
            RobotError: the arm or a camera is lost, stale or frozen.
        """
        if self._robot is None:
            raise RobotError(f"{self._name} is not connected: call connect() first.")
        state = self._state()
        observation = Observation(
            images=self._cameras.images(),
            state=self._space.state(np.array(state.q), self._opening()),
            instruction=self._instruction,
            embodiment=self.embodiment.name,
            time_s=time.monotonic() - self._began,
        )
        info = {"fault": self._fault, "controller": self.record}
        return Reading(observation=observation, info=info, done=False)

    def command(self, action: np.ndarray) -> Reading:
        """Go on to the action's target; does not wait for it.

        Raises:
            ActionError: not one finite action of this arm.
            RobotError: the arm stands still, and why; what to do before it moves again.
        """
        wanted = one_action(self.embodiment, action)
        with self._lock:
            if self._motion is not None and not self._fault and not self._motion.running:
                self._end("")
            if self._fault or self._motion is None:
                raise RobotError(f"{self._name}: {self._fault}.")
            self._heard = time.monotonic()
            q, gripper = self._space.target(wanted.astype(float))
            with self._errors("move"):
                self._motion.move_to(q)
        if self._hand is not None:
            self._hand.go((1.0 - gripper) / 2.0)
        return self.read()

    def predict_joints(self, action: np.ndarray) -> np.ndarray:
        """float64 [n] rad: the joint targets that an action leads to; nothing moves."""
        return self._space.predict(one_action(self.embodiment, action).astype(float))

    def set_instruction(self, text: str) -> Reading:
        """Any sentence: what it means is the policy's to know."""
        self._instruction = text
        return self.read()

    def stop(self) -> None:
        """Come to rest and stay; the hand keeps what it holds."""
        self._end("it was told to stop: connect() starts again")

    def recover(self) -> str:
        """After a reflex, when its cause is gone: the arm's own recovery. It stays still: :meth:`connect`.

        Returns:
            The mode that was found.

        Raises:
            RobotError: it is not ready afterwards, and why.
        """
        import franka

        with self._errors("recover"):
            robot = self._robot or franka.Robot(self.config.host, realtime=self.config.realtime)
            found = str(robot.read_once().robot_mode)
            if found == "reflex":
                robot.automatic_error_recovery()
            after = str(robot.read_once().robot_mode)
        self._release()
        if after != "idle":
            raise RobotError(f"{self._name} is in mode {after!r}: {MODES.get(after, 'see Desk')}.")
        self._reflex = ""
        return found

    def close(self) -> None:
        self._release()

    # --- inside

    @property
    def _name(self) -> str:
        return f"{self.embodiment.name!r} at {self.config.host}"

    @contextlib.contextmanager
    def _errors(self, what: str) -> Any:
        import franka

        try:
            yield
        except franka.ControlException as error:
            raise RobotError(
                f"{self._name} could not {what}: {str(error).strip()}; {MODES['reflex']}."
            ) from error
        except franka.FrankaError as error:
            raise RobotError(
                f"{self._name} could not {what}: {str(error).strip()}. Check the cable, that the control box "
                "is up, the joints unlocked and FCI activated in Desk, and that no other program is "
                "connected; then connect()."
            ) from error

    def _state(self) -> Any:
        """The latest state; RobotError where it is old."""
        import franka

        motion = self._motion
        if motion is not None:
            with contextlib.suppress(franka.FrankaError):  # the deadman may end it at this moment
                return self._fresh_state(motion)
        with self._errors("say where it is"):
            return self._robot.read_once()

    def _fresh_state(self, motion: Any) -> Any:
        state, now = motion.state(), time.monotonic()
        if state.time != self._robot_time or not motion.running:
            self._robot_time, self._fresh = state.time, now
        elif now - self._fresh > self.config.stale_s:
            self._fault = self._fault or (
                "no state from the arm any more; it stops itself after 20 lost packets. Check the network, "
                "then connect()"
            )
            raise RobotError(f"{self._name}: {self._fault}.")
        return state

    def _opening(self) -> float:
        return 1.0 if self._hand is None else self._hand.opening()

    def _watch(self, motion: Any) -> None:
        """The deadman: silence ends the motion."""
        while self._motion is motion and not self._fault:
            if time.monotonic() - self._heard > self.config.deadman_s:
                self._end("no command came in time, so the arm was stopped (deadman): connect() starts again")
            time.sleep(self.config.deadman_s / 10)

    def _end(self, why: str) -> None:
        """End the motion; a reflex that ended it says more than ``why``."""
        import franka

        with self._lock:
            motion = self._motion
            if motion is None or self._fault:
                return
            self._fault, self._motion = why or "its motion ended: connect() starts again", None
            try:
                motion.stop()
            except franka.ControlException as error:
                self._reflex = ", ".join(error.errors) or str(error).strip()
                self._fault = f"{self._reflex}: {MODES['reflex']}"
            except franka.FrankaError as error:
                self._fault = (
                    f"the connection is lost ({str(error).strip()}); the arm stops itself. Check the network "
                    "and the control box, then connect()"
                )

    def _release(self) -> None:
        self._end("it was told to stop: connect() starts again")
        if self._hand is not None:
            self._hand.close()
        self._cameras.close()
        self._robot = self._motion = self._hand = None
        self._fault = "it is not connected: call connect() first"

    def _check_ready(self, state: Any) -> None:
        mode = str(state.robot_mode)
        self.record = {
            "server_version": self._robot.server_version,
            "fci_version": self._robot.fci_version,
            "load_kg": float(state.m_load),
            "ee_kg": float(state.m_ee),
            "flange_to_ee": np.array(state.F_T_EE).tolist(),
        }
        if mode != "idle":
            errors = ", ".join(state.current_errors)
            told = f" ({errors})" if errors else ""
            self._robot = None
            raise RobotError(f"{self._name} is in mode {mode!r}{told}: {MODES.get(mode, 'see Desk')}.")

    def _check_agreement(self, state: Any) -> None:
        """The arm and our model must mean the same flange by the same angles."""
        position, rotation = self._kinematics.pose(np.array(state.q))
        ours = position - rotation[:, 2] * self.config.flange_to_tcp
        flange = np.array(state.O_T_EE) @ np.linalg.inv(np.array(state.F_T_EE))
        theirs = flange[:3, 3] + np.array(self.config.base_position)
        metres = float(np.linalg.norm(ours - theirs))
        self.record["disagreement"] = metres
        if metres > self.config.agreement:
            self._robot = None
            raise RobotError(
                f"{self._name}: the arm has its flange at {np.round(theirs, 4).tolist()} m, the model at "
                f"{np.round(ours, 4).tolist()} m: {metres:.4f} m apart, at most {self.config.agreement} are "
                "allowed. Check FrankaConfig.base_position and flange_to_tcp, that the model is of this arm."
            )
