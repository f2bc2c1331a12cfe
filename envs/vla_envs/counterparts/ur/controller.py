"""The controller itself: modes, safety, the running script and its motions; no sockets, no clock."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vla_envs.counterparts.table import TabletopPlant
from vla_envs.counterparts.ur.motions import JointState, Motion, NoSolutionError, Servo, Stop
from vla_envs.counterparts.ur.program import FLANGE_TO_TCP_M, Program
from vla_envs.counterparts.ur.rtde import OUTPUT_TYPES

ROBOT_MODES = {
    "NO_CONTROLLER": -1, "DISCONNECTED": 0, "CONFIRM_SAFETY": 1, "BOOTING": 2, "POWER_OFF": 3, "POWER_ON": 4,
    "IDLE": 5, "BACKDRIVE": 6, "RUNNING": 7,
}  # fmt: skip
SAFETY_MODES = {
    "NORMAL": 1, "REDUCED": 2, "PROTECTIVE_STOP": 3, "RECOVERY": 4, "SAFEGUARD_STOP": 5,
    "SYSTEM_EMERGENCY_STOP": 6, "ROBOT_EMERGENCY_STOP": 7, "VIOLATION": 8, "FAULT": 9,
}  # fmt: skip
STOPPED, PLAYING, PAUSED = 1, 2, 4
JOINT_SPEED_LIMIT = np.pi  # rad/s, UR5e data sheet
DEVIATION_LIMIT_RAD = 0.35  # between target and measured: something is in the way
UNLOCK_AFTER_S = 5.0  # a protective stop cannot be unlocked sooner
_STOP_DECELERATION = 60.0  # rad/s^2, of a protective stop
_POWER_ON_S, _BRAKES_S, _BOOT_S = 0.5, 0.5, 1.5  # the real ones take several times as long


class Controller:
    """A UR5e controller of PolyScope 5 in front of a plant; everything happens in :meth:`cycle`."""

    version = (5, 12, 4, 1101661)

    def __init__(self, plant: TabletopPlant) -> None:
        self.plant = plant
        self.remote = True
        self.robot_mode, self.safety_mode = "RUNNING", "NORMAL"
        self.runtime = STOPPED
        self.program: Program | None = None
        self.motion: Motion | None = None
        self.inputs: dict[str, Any] = {}
        self.tcp_offset = np.array([0.0, 0.0, FLANGE_TO_TCP_M, 0.0, 0.0, 0.0])
        self.payload_kg, self.payload_cog = 0.95, np.array([0.0, 0.0, 0.05])
        self.gripper_target, self.gripper_speed = 0.0, 1.0
        self.input_at = 0.0
        self.time_s = 0.0
        self.events: deque[tuple[float, str]] = deque(maxlen=10_000)
        self._stopped_at = 0.0
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.state = JointState(plant.q)
        self._values: dict[str, Any] = {}

    # --- what operators and clients do

    def say(self, event: str) -> None:
        """Note an event in the log."""
        self.events.append((round(self.time_s, 3), event))

    def set_scene(self, *args: Any) -> dict[str, Any]:
        """Put up another scene: whatever ran is over."""
        self.end_program("another scene")
        told = self.plant.set_scene(*args)
        self.state, self.motion = JointState(self.plant.q), None
        self.gripper_target = 0.0
        return told

    def start_script(self, text: str) -> None:
        """A script came in: refused in local control, without power or after a stop, as the real one does."""
        if not self.remote:
            return self.say("script refused: local control")
        if self.robot_mode != "RUNNING" or self.safety_mode not in ("NORMAL", "REDUCED"):
            return self.say(f"script refused: {self.robot_mode}, {self.safety_mode}")
        if "rtde_control" not in text:
            return self.say("script ignored: only the register loop of ur-rtde is interpreted")
        self.end_program("replaced")
        self.program, self.runtime = Program(self), PLAYING
        self.input_at = self.time_s
        return self.say("program started")

    def end_program(self, why: str) -> None:
        """The script ends and the arm comes to rest."""
        if self.program is None:
            return
        self.program, self.runtime = None, STOPPED
        self.motion = Stop(10.0)
        self.say(f"program stopped: {why}")

    def protective_stop(self, why: str) -> None:
        if self.safety_mode != "NORMAL":
            return
        self.end_program(f"protective stop ({why})")
        self.safety_mode, self.motion = "PROTECTIVE_STOP", Stop(_STOP_DECELERATION)
        self._stopped_at = self.time_s
        self.say(f"protective stop: {why}")

    def unlock(self) -> bool:
        """Unlock a protective stop; False before its waiting time is over, or where there is none."""
        if self.safety_mode != "PROTECTIVE_STOP" or self.time_s - self._stopped_at < UNLOCK_AFTER_S:
            return False
        self.safety_mode = "NORMAL"
        self.state = JointState(self.plant.q)
        self.say("protective stop unlocked")
        return True

    def emergency_stop(self, pressed: bool) -> None:
        """The red button: power goes at once, and stays off when it is released."""
        if pressed:
            self.end_program("emergency stop")
            self.safety_mode, self.robot_mode = "ROBOT_EMERGENCY_STOP", "POWER_OFF"
            self.motion = Stop(_STOP_DECELERATION)
        elif self.safety_mode == "ROBOT_EMERGENCY_STOP":
            self.safety_mode = "NORMAL"
        self.say(f"emergency stop {'pressed' if pressed else 'released'}")

    def reboot(self) -> None:
        """Everything ends; the controller is back, without power on the arm, after its boot time."""
        self.end_program("reboot")
        self.robot_mode, self.safety_mode = "BOOTING", "NORMAL"
        self.motion = Stop(_STOP_DECELERATION)
        self.say("reboot")
        self.after(_BOOT_S, lambda: self._become("POWER_OFF"))

    def power_on(self) -> bool:
        if self.robot_mode != "POWER_OFF" or self.safety_mode != "NORMAL":
            return False
        self._become("POWER_ON")
        self.after(_POWER_ON_S, lambda: self._become("IDLE"))
        return True

    def power_off(self) -> None:
        self.end_program("power off")
        self._become("POWER_OFF")

    def release_brakes(self) -> bool:
        """Also powers on first, as the real command does."""
        if self.safety_mode != "NORMAL" or self.robot_mode in ("BOOTING", "NO_CONTROLLER"):
            return False
        wait = 0.0
        if self.robot_mode == "POWER_OFF":
            self.power_on()
            wait = _POWER_ON_S
        self.after(wait + _BRAKES_S, lambda: self._become("RUNNING"))
        return True

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later, in controller time."""
        self._later.append((self.time_s + delay_s, action))

    def _become(self, mode: str) -> None:
        if self.safety_mode == "NORMAL":
            self.robot_mode = mode
            self.say(f"robot mode {mode}")

    def take_inputs(self, values: Mapping[str, Any]) -> None:
        """A packet of input registers came in."""
        self.inputs.update(values)
        if "input_int_register_0" in values:
            self.input_at = self.time_s

    # --- the cycle

    def cycle(self) -> None:
        """2 ms: the script's turn, the motion's, the plant's."""
        due = [action for when, action in self._later if when <= self.time_s]
        self._later = [(when, action) for when, action in self._later if when > self.time_s]
        for action in due:
            action()
        try:
            if self.program is not None:
                self.program.cycle()
            self._advance()
        except NoSolutionError as error:
            self.end_program(f"no inverse kinematics solution: {error}")
        self.plant.step(self.state.q, self.state.qd, self.gripper_target, self.gripper_speed)
        self.time_s += self.plant.period_s
        self._values.clear()

    def _advance(self) -> None:
        if self.motion is None:
            return
        if self.motion.advance(self.state, self.plant.period_s):
            self.motion, self.state.qd = None, np.zeros(6)
        if not isinstance(self.motion, Stop) and self.safety_mode == "NORMAL":
            fastest = int(np.abs(self.state.qd).argmax())
            if abs(self.state.qd[fastest]) > JOINT_SPEED_LIMIT:
                self.protective_stop(f"joint {fastest} at {self.state.qd[fastest]:.2f} rad/s")
                self.state.qd *= JOINT_SPEED_LIMIT / abs(self.state.qd[fastest])
        deviation = np.abs(self.state.q - self.plant.q)
        if float(deviation.max()) > DEVIATION_LIMIT_RAD and self.safety_mode == "NORMAL":
            self.state = JointState(self.plant.q)
            self.protective_stop(f"joint {int(deviation.argmax())} deviates from its path: collision")

    def servo(self, target: np.ndarray, lookahead_s: float, gain: float) -> None:
        """servoj with another target."""
        if isinstance(self.motion, Servo):
            self.motion.retarget(target, lookahead_s, gain)
        else:
            self.motion = Servo(target, lookahead_s, gain)

    # --- what RTDE reports

    def outputs(self) -> Mapping[str, Any]:
        """The current value of every output variable."""
        if not self._values:
            self._values.update(_NOTHING)
            self._values.update(self._measured())
        return self._values

    def status_bits(self) -> tuple[int, int]:
        """``robot_status_bits`` and ``safety_status_bits``."""
        powered = self.robot_mode in ("POWER_ON", "IDLE", "BACKDRIVE", "RUNNING")
        robot = int(powered) | (int(self.runtime == PLAYING) << 1)
        mode = self.safety_mode
        safety = {
            "NORMAL": 1 << 0, "REDUCED": 1 << 1, "PROTECTIVE_STOP": 1 << 2 | 1 << 10,
            "SAFEGUARD_STOP": 1 << 4 | 1 << 10, "ROBOT_EMERGENCY_STOP": 1 << 6 | 1 << 7 | 1 << 10,
        }.get(mode, 1 << 9)  # fmt: skip
        return robot, safety

    def _measured(self) -> dict[str, Any]:
        q, qd = self.plant.q, self.plant.qd
        robot, safety = self.status_bits()
        program = self.program
        pose = Program.tcp_pose(self, q)
        return {
            "timestamp": self.time_s,
            "target_q": self.state.q, "target_qd": self.state.qd,
            "actual_q": q, "actual_qd": qd, "target_moment": self.plant.torque,
            "actual_current": self.plant.torque / 10.0,  # about 10 Nm/A: no motor model here
            "actual_TCP_pose": pose, "target_TCP_pose": Program.tcp_pose(self, self.state.q),
            "actual_TCP_speed": self.plant.kinematics.jacobian(q) @ qd,
            "tcp_offset": self.tcp_offset, "payload": self.payload_kg, "payload_cog": self.payload_cog,
            "speed_scaling": 1.0, "target_speed_fraction": 1.0,
            "robot_mode": ROBOT_MODES[self.robot_mode], "safety_mode": SAFETY_MODES[self.safety_mode],
            "safety_status": SAFETY_MODES[self.safety_mode], "runtime_state": self.runtime,
            "joint_mode": (253 if self.robot_mode == "RUNNING" else 239,) * 6,  # RUNNING, POWER_OFF
            "robot_status_bits": robot, "safety_status_bits": safety,
            "actual_execution_time": 0.1, "actual_main_voltage": 48.0, "actual_robot_voltage": 48.0,
            "joint_temperatures": (30.0,) * 6, "actual_joint_voltage": (48.0,) * 6,
            **({} if program is None else program.answers),
        }  # fmt: skip


def _zero(kind: str) -> Any:
    zero = False if kind == "BOOL" else 0.0 if kind in ("DOUBLE", "VECTOR6D", "VECTOR3D") else 0
    count = 6 if kind.startswith("VECTOR6") else 3 if kind == "VECTOR3D" else 1
    return zero if count == 1 else tuple(itertools.repeat(zero, count))


_NOTHING = {name: _zero(kind) for name, kind in OUTPUT_TYPES.items()}
