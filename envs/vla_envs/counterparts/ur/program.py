"""The script that ur-rtde uploads, as what it does: commands in integer register 0, answers in the outputs.

The register layout is the one of ur-rtde 1.6.5 (lower range): ``input_int_register_0`` is the command,
``input_double_register_0..`` its arguments, ``output_int_register_0`` says 1 (ready) or 2 (done). A command
that
is not interpreted stops the program and says so in the log: nothing passes silently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vla.robots.kinematics import rotation_error, rotation_matrix
from vla_envs.counterparts.ur.motions import (
    NoSolutionError,
    Pose,
    Speed,
    Stop,
    move_joints,
    move_line,
    solve,
)
from vla_envs.tabletop.arms import ur5e

if TYPE_CHECKING:
    from vla_envs.counterparts.ur.controller import Controller

READY, DONE = 1, 2
#: From the flange, which the controller's poses are of, to the tool centre between the fingertips, m.
FLANGE_TO_TCP_M = ur5e.GRIPPER_STANDOFF + ur5e.GRIPPER.tcp_height
_STOP_SCRIPT = 255
_BASE = np.array(ur5e.BASE_POSITION)  # of the robot's base frame in the world; the axes are parallel
_SITE_FROM_FLANGE = np.array([0.0, 0.0, FLANGE_TO_TCP_M])


def pose_matrix(vector: np.ndarray) -> Pose:
    """UR pose [6] (m, rotation vector) as position and rotation."""
    return np.asarray(vector[:3], float), rotation_matrix(np.asarray(vector[3:], float))


def pose_vector(pose: Pose) -> np.ndarray:
    """Inverse of :func:`pose_matrix`."""
    return np.concatenate([pose[0], rotation_error(pose[1])])


class Program:
    """One run of the script, from its upload until it stops."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._kinematics = controller.plant.kinematics
        self.answers: dict[str, float | int] = {"output_int_register_0": READY}
        self._executing = False
        self._waiting: Callable[[], bool] | None = None
        self._watchdog_hz = 0.0
        c = controller
        self._realtime = {9: self._speed_j, 10: self._speed_l, 11: self._servo_j, 24: self._servo_l}
        self._regular: dict[int, Callable[[], Callable[[], bool] | None]] = {
            1: lambda: self._move(
                move_joints(c.state.q, self._doubles(0, 6), self._double(6), self._double(7))
            ),
            2: lambda: self._move(
                move_joints(c.state.q, self._inverse(self._doubles(0, 6)), self._double(6), self._double(7))
            ),
            3: lambda: self._move(self._line(self._world_pose(self._doubles(0, 6)))),
            4: lambda: self._move(self._line(self._kinematics.pose(self._doubles(0, 6)))),
            15: lambda: self._stop(self._double(0)),
            16: lambda: self._stop(self._double(0)),
            17: self._set_payload,
            26: lambda: self._answer_doubles([c.plant.period_s]),
            29: self._set_tcp,
            30: lambda: self._answer_doubles(self._inverse(self._doubles(0, 6), self._doubles(6, 6))),
            31: lambda: c.protective_stop("asked for by the program"),
            33: lambda: self._stop(5.0),
            34: lambda: self._stop(self._double(0)),
            35: self._set_watchdog,
            36: lambda: self._answer_flag(self._reachable(self._doubles(0, 6))),
            37: lambda: self._answer_flag(self._within(self._doubles(0, 6))),
            39: self._pose_trans,
            40: lambda: self._answer_doubles(c.tcp_offset),
            43: lambda: self._answer_doubles(self.tcp_pose(c, c.plant.q)),
            44: lambda: self._answer_doubles(
                self.tcp_pose(c, self._doubles(0, 6), offset=self._doubles(6, 6))
            ),
            46: lambda: self._answer_doubles(self._inverse(self._doubles(0, 6))),
            47: lambda: self._answer_flag(c.motion is None),
            60: lambda: self._answer_flag(self._reachable(self._doubles(0, 6))),
        }

    def cycle(self) -> None:
        """One turn of the script's main loop."""
        controller = self._controller
        if self._watchdog_hz > 0 and controller.time_s - controller.input_at > 1.0 / self._watchdog_hz:
            return controller.end_program(f"watchdog: no input for {1.0 / self._watchdog_hz:.3f} s")
        if self._waiting is not None:
            if self._waiting():
                self._waiting = None
                self.answers["output_int_register_0"] = DONE
            return None
        command = int(controller.inputs.get("input_int_register_0", 0))
        if command in self._realtime:
            self._realtime[command]()
            self.answers["output_int_register_0"] = READY
        elif command == 0:
            self._executing = False
            self.answers["output_int_register_0"] = READY
        elif not self._executing:
            self._executing = True
            self._start(command)
        return None

    def _start(self, command: int) -> None:
        if command == _STOP_SCRIPT:
            return self._controller.end_program("asked to by the client")
        if command not in self._regular:
            return self._controller.end_program(f"command {command} is not interpreted by this counterpart")
        self._waiting = self._regular[command]()
        if self._waiting is None:
            self.answers["output_int_register_0"] = DONE
        return None

    # --- arguments and answers

    def _double(self, index: int) -> float:
        return float(self._controller.inputs.get(f"input_double_register_{index}", 0.0))

    def _doubles(self, start: int, count: int) -> np.ndarray:
        return np.array([self._double(start + i) for i in range(count)])

    def _answer_doubles(self, values: np.ndarray | list[float]) -> None:
        for i, value in enumerate(values):
            self.answers[f"output_double_register_{i}"] = float(value)

    def _answer_flag(self, value: bool) -> None:
        self.answers["output_int_register_1"] = int(value)

    # --- poses: of the client's tcp in the robot's base frame <-> of the model's tcp site in the world

    @staticmethod
    def tcp_pose(controller: Controller, q: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
        """[6] pose of the tcp (the installation's offset, or another) in the base frame."""
        position, rotation = controller.plant.kinematics.pose(q)
        flange = position - rotation @ _SITE_FROM_FLANGE - _BASE
        shift, turn = pose_matrix(controller.tcp_offset if offset is None else offset)
        return pose_vector((flange + rotation @ shift, rotation @ turn))

    def _world_pose(self, vector: np.ndarray) -> Pose:
        position, rotation = pose_matrix(vector)
        shift, turn = pose_matrix(self._controller.tcp_offset)
        flange = rotation @ turn.T
        return position - flange @ shift + flange @ _SITE_FROM_FLANGE + _BASE, flange

    def _inverse(self, vector: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        q_near = self._controller.state.q if near is None else near
        return solve(self._kinematics, q_near, self._world_pose(vector))

    def _reachable(self, vector: np.ndarray) -> bool:
        try:
            return self._within(self._inverse(vector))
        except NoSolutionError:
            return False

    def _within(self, q: np.ndarray) -> bool:
        return bool(((q >= self._kinematics.low) & (q <= self._kinematics.high)).all())

    # --- commands

    def _move(self, motion: object) -> Callable[[], bool] | None:
        controller = self._controller
        controller.motion = motion  # type: ignore[assignment]
        if int(controller.inputs.get("input_int_register_1", 0)) == 1:  # asynchronous
            return None
        return lambda: controller.motion is not motion

    def _line(self, pose: Pose) -> object:
        return move_line(self._kinematics, self._controller.state.q, pose, self._double(6), self._double(7))

    def _stop(self, deceleration: float) -> Callable[[], bool]:
        return self._move(Stop(deceleration)) or (lambda: True)

    def _speed_j(self) -> None:
        velocity = self._doubles(0, 6)
        self._controller.motion = Speed(lambda _: velocity, self._double(6), 0.0)

    def _speed_l(self) -> None:
        twist = self._doubles(0, 6)

        def velocity(q: np.ndarray) -> np.ndarray:
            jacobian = self._kinematics.jacobian(q)
            square = jacobian @ jacobian.T + 1e-4 * np.eye(6)
            return jacobian.T @ np.linalg.solve(square, twist)

        self._controller.motion = Speed(velocity, 10.0 * self._double(6), 0.0)

    def _servo_j(self) -> None:
        self._controller.servo(self._doubles(0, 6), self._double(9), self._double(10))

    def _servo_l(self) -> None:
        self._controller.servo(self._inverse(self._doubles(0, 6)), self._double(9), self._double(10))

    def _set_watchdog(self) -> None:
        self._watchdog_hz = self._double(0)
        self._controller.input_at = self._controller.time_s

    def _set_tcp(self) -> None:
        self._controller.tcp_offset = self._doubles(0, 6)

    def _set_payload(self) -> None:
        self._controller.payload_kg = self._double(0)
        self._controller.payload_cog = self._doubles(1, 3)

    def _pose_trans(self) -> None:
        (a, turn_a), (b, turn_b) = pose_matrix(self._doubles(0, 6)), pose_matrix(self._doubles(6, 6))
        self._answer_doubles(pose_vector((a + turn_a @ b, turn_a @ turn_b)))
