"""``vla robot``: what one does with an arm before it follows a policy: calibrate it, and look at it."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vla.cli.flags import parse
from vla.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from vla.robots.servo_bus import ServoBus

Bus = Literal["feetech", "dynamixel"]


@dataclass(frozen=True)
class Calibrate:
    """Find out what a servo arm's counts mean, for its servos and a file. The arm goes limp: hold it.

    Args:
        out: the file; an existing one is replaced at the end.
        port: of the arm; the ports here are listed if it cannot be opened.
        arm: kind of arm: which joints there are and which way they count.
        bus: make of the servos.
        from_lerobot: take over a calibration file of lerobot's; nothing is asked and no servo is written.
    """

    out: Path
    port: str = "/dev/ttyACM0"
    arm: Literal["so101", "so100"] = "so101"
    bus: Bus = "feetech"
    from_lerobot: Path | None = None


@dataclass(frozen=True)
class Look:
    """Every servo of an arm: model, angle, voltage, temperature. Nothing moves; exit code 1 on a complaint.

    Args:
        calibration: file that vla robot calibrate wrote.
        port: of the arm.
        bus: make of the servos.
    """

    calibration: Annotated[Path, tyro.conf.Positional]
    port: str = "/dev/ttyACM0"
    bus: Bus = "feetech"


ACTIONS = {
    "calibrate": "what a servo arm's counts mean: guided, by hand; once for each arm",
    "look": "voltage, temperature, angles and complaints of every servo; moves nothing",
}


def run(argv: Sequence[str]) -> int:
    """``argv`` begins with the action."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: vla robot ACTION [flags]        vla robot ACTION --help lists the flags\n")
        print("\n".join(f"  {name:<11}{summary}" for name, summary in ACTIONS.items()))
        return 0 if argv else 2
    name, *rest = argv
    if name not in ACTIONS:
        raise UnknownNameError("action of vla robot", name, ACTIONS)
    return run_calibrate(rest) if name == "calibrate" else run_look(rest)


def run_calibrate(argv: Sequence[str]) -> int:
    flags = parse(Calibrate, "robot calibrate", argv)
    from vla.robots.calibrating import SO101, calibrate
    from vla.robots.calibration import from_lerobot

    if flags.from_lerobot is not None:
        found = from_lerobot(flags.from_lerobot, arm=flags.arm, model="sts3215")
        found.save(flags.out)
        print(
            f"{flags.out}: taken over from lerobot. Directions are not in its file: see docs/robots/so101.md."
        )
        return 0
    if not sys.stdin.isatty():
        raise ConfigError("A calibration asks a person to move the arm: run it in a terminal.")
    bus = open_bus(flags.bus, flags.port)
    try:
        calibrate(bus, SO101, flags.arm, Terminal()).save(flags.out)
    finally:
        bus.close()
    print(f"{flags.out}: written, as are the servos' own memories. The arm is limp: hold it or lay it down.")
    return 0


def run_look(argv: Sequence[str]) -> int:
    flags = parse(Look, "robot look", argv)
    from vla.report.tables import text_table
    from vla.robots.calibration import ArmCalibration

    calibration = ArmCalibration.load(flags.calibration)
    bus = open_bus(flags.bus, flags.port)
    try:
        bus.open()
        models = {servo: bus.ping(servo) for servo in calibration.servos}
        memories = {servo: bus.read_memory(servo) for servo in calibration.servos}
        states = bus.read(calibration.servos)
    finally:
        bus.close()
    rows, complaints = [], calibration.contradictions(memories)
    for servo in calibration:
        state, model = states[servo.servo], models[servo.servo]
        name = bus.models.get(model, f"model {model}")
        if name != servo.model:
            complaints.append(f"servo {servo.servo} ({servo.name}) is a {name}, calibrated as {servo.model}")
        complaints += [f"servo {servo.servo} ({servo.name}) reports {alert}" for alert in state.alerts]
        is_gripper = servo is calibration.gripper
        stands = (
            f"{100 * servo.opening(state.position):.0f} % open"
            if is_gripper
            else f"{servo.angle(state.position):+.3f} rad"
        )
        rows.append(
            [
                servo.name, str(servo.servo), name, str(state.position), stands, f"{state.voltage_v:.1f} V",
                f"{state.temperature_c:.0f} C", "holding" if state.holding else "limp",
            ]
        )  # fmt: skip
    print(text_table(["joint", "id", "servo", "count", "stands at", "supply", "inside", "torque"], rows))
    for complaint in complaints:
        print(f"! {complaint}")
    return int(bool(complaints))


def open_bus(kind: Bus, port: str) -> ServoBus:
    """The bus of that make, not open yet."""
    if kind == "feetech":
        from vla.robots.feetech import FeetechBus

        return FeetechBus(port)
    from vla.robots.dynamixel import DynamixelBus

    return DynamixelBus(port)


class Terminal:
    """A person at a terminal; see ``vla.robots.calibrating.Person``."""

    def do(self, what: str) -> None:
        input(f"{what}\n  Enter when done ... ")

    def doing(self, what: str) -> Callable[[], bool]:
        print(f"{what}\n  Enter when done ... ", end="", flush=True)

        def done() -> bool:
            if not select.select([sys.stdin], [], [], 0.0)[0]:
                return False
            sys.stdin.readline()
            return True

        return done
