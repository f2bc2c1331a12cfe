"""The guided calibration of a servo arm: a person moves the limp arm by hand, and the encoders are read.

1. every joint in the middle of its range: homing offsets put the encoders' middle there;
2. every joint through its whole range: the limits;
3. every joint a little in the direction that the guide calls positive: the direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vla.robots.calibration import ArmCalibration, CalibrationError, ServoCalibration
from vla.robots.servo_bus import COUNTS, RAD_PER_COUNT, ServoBus, ServoMemory

HALF = COUNTS // 2 - 1
#: Fewer counts (8 degrees) say nothing about a direction, or about a range.
LEAST_MOTION = 91


@dataclass(frozen=True, kw_only=True)
class JointGuide:
    """What a person has to know of a joint.

    Args:
        name: as in the model of the arm.
        servo: id on the bus.
        positive: how to move it so that its angle grows, in words.
        middle_rad: its angle in the middle of its range, as in the model of the arm.
        endless: it has no stops to be moved between: its range is what the encoder can show, and its zero
            where it stood in the middle pose.
        is_gripper: it opens and closes; positive is opening.
    """

    name: str
    servo: int
    positive: str
    middle_rad: float = 0.0
    endless: bool = False
    is_gripper: bool = False


class Person(Protocol):
    """Who moves the arm."""

    def do(self, what: str) -> None:
        """Ask for something; returns once it is done."""
        ...

    def doing(self, what: str) -> Callable[[], bool]:
        """Ask for something that takes its time; the answer tells whether it is done."""
        ...


SO101 = (
    JointGuide(
        name="shoulder_pan", servo=1, positive="turn the arm to its left (counter-clockwise from above)"
    ),
    JointGuide(name="shoulder_lift", servo=2, positive="lean the upper arm forward and down"),
    JointGuide(name="elbow_flex", servo=3, positive="bend the forearm down"),
    JointGuide(name="wrist_flex", servo=4, positive="bend the gripper down"),
    JointGuide(
        name="wrist_roll", servo=5, positive="turn the gripper clockwise, seen from behind it", endless=True
    ),
    JointGuide(name="gripper", servo=6, positive="open the gripper", is_gripper=True),
)


def calibrate(bus: ServoBus, guide: Sequence[JointGuide], arm: str, person: Person) -> ArmCalibration:
    """Guide a person through the calibration; writes the servos' memories at the end.

    Args:
        bus: opened here, left open, its servos limp.
        guide: every servo of the arm, from the base on.
        arm: kind of arm, for the file.
        person: asked to move it.

    Raises:
        CalibrationError: a joint that was not moved; nothing but homing offsets has been written.
        ServoError: a servo that does not answer.
    """
    bus.open()
    ids = [joint.servo for joint in guide]
    models = {servo: bus.models.get(bus.ping(servo), "unknown") for servo in ids}
    person.do("Hold the arm: its servos go limp now.")
    bus.guard(ids, None)
    bus.set_torque(ids, on=False)
    person.do("Put every joint in the middle of its range, the gripper half open.")
    for servo, offset in _homing(bus, ids).items():
        bus.write_memory(servo, ServoMemory(homing_offset=offset, min_count=0, max_count=COUNTS - 1))
    offsets = {servo: bus.read_memory(servo).homing_offset for servo in ids}
    ranges = _ranges(bus, guide, person)
    directions = {joint.servo: _direction(bus, joint, person) for joint in guide}
    servos = []
    for joint in guide:
        low, high = ranges[joint.servo]
        middle = HALF if joint.endless else round((low + high) / 2)
        zero = round(middle - directions[joint.servo] * joint.middle_rad / RAD_PER_COUNT)
        servos.append(
            ServoCalibration(
                name=joint.name,
                servo=joint.servo,
                model=models[joint.servo],
                direction=directions[joint.servo],
                zero_count=zero,
                homing_offset=offsets[joint.servo],
                min_count=low,
                max_count=high,
            )
        )
    for servo in servos:
        bus.write_memory(servo.servo, servo.memory)
    grippers = [s for s, joint in zip(servos, guide, strict=True) if joint.is_gripper]
    joints = tuple(s for s in servos if s not in grippers)
    return ArmCalibration(arm=arm, joints=joints, gripper=grippers[0] if grippers else None)


def _homing(bus: ServoBus, ids: Sequence[int]) -> dict[int, int]:
    """Offsets that make the present position the middle of the encoder."""
    states = bus.read(ids)
    found = {}
    for servo in ids:
        before = bus.read_memory(servo).homing_offset
        position = states[servo].position
        raw = position + before if bus.encoder_minus_offset else position - before
        offset = raw - HALF if bus.encoder_minus_offset else HALF - raw
        found[servo] = (offset + COUNTS // 2) % COUNTS - COUNTS // 2
    return found


def _ranges(bus: ServoBus, guide: Sequence[JointGuide], person: Person) -> dict[int, tuple[int, int]]:
    moved = [joint for joint in guide if not joint.endless]
    ids = [joint.servo for joint in moved]
    names = ", ".join(joint.name for joint in moved)
    done = person.doing(f"Move each of these through its whole range, from stop to stop: {names}.")
    seen: dict[int, list[int]] = {servo: [] for servo in ids}
    finished = False
    while not finished:
        finished = done()  # one last look after the word
        for servo, state in bus.read(ids).items():
            seen[servo] = [min([state.position, *seen[servo]]), max([state.position, *seen[servo]])]
    for joint in moved:
        low, high = seen[joint.servo]
        if high - low < LEAST_MOTION:
            raise CalibrationError(
                f"Joint {joint.name!r} (servo {joint.servo}) moved by {high - low} counts only: begin again "
                f"and move every joint from stop to stop."
            )
        if low < 0 or high >= COUNTS:
            raise CalibrationError(
                f"Joint {joint.name!r} (servo {joint.servo}) went past the end of its encoder "
                f"({low}..{high}): it was not in the middle of its range when asked. Begin again."
            )
    whole = {joint.servo: (0, COUNTS - 1) for joint in guide if joint.endless}
    return {servo: (low, high) for servo, (low, high) in seen.items()} | whole


def _direction(bus: ServoBus, joint: JointGuide, person: Person) -> int:
    person.do(f"{joint.name}: put it near the middle of its range.")
    before = bus.read([joint.servo])[joint.servo].position
    person.do(f"{joint.name}: {joint.positive}, by about 20 degrees, and leave it there.")
    moved = bus.read([joint.servo])[joint.servo].position - before
    if abs(moved) < LEAST_MOTION:
        raise CalibrationError(
            f"Joint {joint.name!r} (servo {joint.servo}) moved by {moved} counts only, which says nothing "
            f"about its direction: begin again and move it by about 20 degrees."
        )
    return 1 if moved > 0 else -1
