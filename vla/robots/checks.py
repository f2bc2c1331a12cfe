"""The contract suite of robots: what every driver must do, simulated arm, fake controller or real one alike.

It moves the arm: a little, inside its limits, towards the middle of its reach. Call it as
``vla.testing.check_robot``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vla.embodiment import Embodiment, Field
from vla.errors import ActionError, VlaError
from vla.robots import Reading, Robot
from vla.types import Observation

#: Action slot -> the state slot that shows what came of it.
SHOWN_IN = {
    "tcp_position": "tcp_position",
    "tcp_position_delta": "tcp_position",
    "joint_position": "joint_position",
    "joint_delta": "joint_position",
    "joint_velocity": "joint_position",
}
#: Size of the motion: of the range of an absolute entry, of the limit of a delta or velocity entry a step.
ABSOLUTE_SHARE, RELATIVE_SHARE = 0.03, 0.3


@dataclass(frozen=True)
class _Entry:
    """One action entry whose effect can be read: its field, component, state field and component of that."""

    index: int
    component: int
    field: Field
    state: Field
    state_component: int


@dataclass(frozen=True)
class _Pace:
    """The rate at which commands are sent, and how long an arm may take to come to rest."""

    period_s: float
    settle_steps: int
    sleep: Callable[[float], None]


def check_robot(
    robot: Robot,
    *,
    instruction: str = "reach the red dot",
    num_steps: int = 5,
    settle_s: float = 1.0,
    tolerance: float = 0.5,
    was_stopped: Callable[[], bool] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Readings, refusals, a small motion followed and held, the deadman, instructions, stop and close.

    Args:
        robot: not connected yet; left closed.
        instruction: one that it can follow.
        num_steps: commands of the small motion.
        settle_s: how long the arm may take to come to rest after the last of them.
        tolerance: largest error of each moved entry, as a share of its motion.
        was_stopped: asks the counterpart (a fake controller, a bus) whether the arm was stopped from
            outside: evidence of a deadman for arms that go to an absolute target and rest there anyway.
        sleep: how time passes between commands, for arms with a deadman; others wait for nobody.

    Raises:
        AssertionError: with what was expected.
    """
    embodiment = robot.embodiment
    assert isinstance(robot, Robot), f"{type(robot).__name__} lacks a member of vla.robots.Robot"
    deadman_s = robot.deadman_s
    assert deadman_s is None or 0 < deadman_s < np.inf, (
        f"deadman_s is {deadman_s}; expected seconds, or None where nothing moves without a command"
    )
    live = deadman_s is not None
    period_s = 1.0 / embodiment.control_hz if live else 0.0
    pace = _Pace(period_s, int(np.ceil(settle_s * embodiment.control_hz)), sleep if live else lambda _: None)
    still = np.zeros(embodiment.action_dim, np.float32)
    _refused(lambda: robot.command(still), "command() before connect()")
    try:
        check_reading(robot.connect(), embodiment)
        _check_nonsense(robot, pace)
        _check_motion(robot, pace, num_steps, tolerance)
        _check_instruction(robot, instruction)
        if deadman_s is not None:
            _check_deadman(robot, pace, deadman_s, num_steps, tolerance, was_stopped)
        robot.stop()
        robot.stop()
        _refused(lambda: robot.command(resting(embodiment, robot.read())), "command() after stop()")
        check_reading(robot.connect(), embodiment)
        robot.command(resting(embodiment, robot.read()))
    finally:
        robot.close()
    robot.close()
    _refused(lambda: robot.command(still), "command() after close()")


def check_reading(reading: Reading, embodiment: Embodiment) -> None:
    """Every declared field, finite, and every declared camera, in the declared size."""
    observation = reading.observation
    assert observation.embodiment == embodiment.name, (
        f"a reading of {observation.embodiment!r}; expected {embodiment.name!r}"
    )
    embodiment.pack_state(observation.state)
    names = {camera.name for camera in embodiment.cameras}
    assert set(observation.images) == names, (
        f"a reading with cameras {sorted(observation.images)}; declared are {sorted(names)}"
    )
    for camera in embodiment.cameras:
        image = observation.images[camera.name]
        assert image.dtype == np.uint8, f"{camera.name}: {image.dtype}; expected uint8"
        assert image.shape == (camera.height, camera.width, 3), f"{camera.name}: shape {image.shape}"
    assert np.isfinite(observation.time_s), f"time_s is {observation.time_s}"
    assert isinstance(reading.done, bool), f"done is {type(reading.done).__name__}, not bool"


def resting(embodiment: Embodiment, reading: Reading) -> np.ndarray:
    """The action that keeps the arm where the reading shows it, grippers as commanded; float32 [action_dim].

    An absolute entry that no state field shows stands in the middle of its range.
    """
    parts = []
    for field in embodiment.action:
        middle = (np.array(field.low) + np.array(field.high)) / 2
        if field.mode != "absolute":
            parts.append(np.zeros(field.size))
            continue
        arm, _, quantity = field.slot.partition(".")
        slot = f"{arm}.gripper_command" if quantity == "gripper" else field.slot
        shown = [
            _measured(embodiment, reading.observation, slot, field.slot_start + i) for i in range(field.size)
        ]
        parts.append([m if value is None else value for value, m in zip(shown, middle, strict=True)])
    return np.clip(np.concatenate(parts), embodiment.action_low, embodiment.action_high).astype(np.float32)


def _check_nonsense(robot: Robot, pace: _Pace) -> None:
    """What is not one finite action is refused before it reaches the arm."""
    embodiment = robot.embodiment
    before = robot.read()
    still = resting(embodiment, before)
    broken = np.where(np.arange(len(still)) == 0, np.nan, still).astype(np.float32)
    for what, action in (
        ("an action of another size", np.concatenate([still, still[:1]])),
        ("a batch of actions", np.stack([still, still])),
        ("an action with a NaN", broken),
    ):
        _refused(lambda action=action: robot.command(action), what, ActionError)
    assert robot.read().observation.time_s >= before.observation.time_s, "time runs backwards"
    after = _hold(robot, still, pace)
    for entry in _entries(embodiment):
        moved = abs(_seen(after, entry) - _seen(before, entry))
        limit = _motion(entry, 0.0, 1)[1]
        assert moved <= limit, (
            f"{entry.state.name}[{entry.state_component}] moved {moved:g} by refused actions"
        )


def _check_motion(robot: Robot, pace: _Pace, num_steps: int, tolerance: float) -> None:
    embodiment = robot.embodiment
    entries = _entries(embodiment)
    assert entries, (
        f"no state field of {embodiment.name!r} shows what its action fields do, so nobody can see whether "
        f"commands are followed: declare one in a slot among {sorted(set(SHOWN_IN.values()))}"
    )
    before = robot.read()
    start = [_seen(before, entry) for entry in entries]
    wanted, last = _move(robot, before, entries, num_steps, pace)
    after = _hold(robot, last, pace)
    for entry, began, goal in zip(entries, start, wanted, strict=True):
        reached = _seen(after, entry)
        assert abs(reached - goal) <= tolerance * abs(goal - began), (
            f"{entry.field.name}[{entry.component}]: {num_steps} commands were to bring "
            f"{entry.state.name}[{entry.state_component}] from {began:.4g} to {goal:.4g}; it is "
            f"{reached:.4g} ({entry.state.unit})"
        )
    later = _hold(robot, last, pace)
    for entry, began, goal in zip(entries, start, wanted, strict=True):
        drift = abs(_seen(later, entry) - _seen(after, entry))
        assert drift <= tolerance * abs(goal - began), (
            f"{entry.state.name}[{entry.state_component}] drifted {drift:.4g} {entry.state.unit} while held"
        )


def _check_deadman(
    robot: Robot,
    pace: _Pace,
    deadman_s: float,
    num_steps: int,
    tolerance: float,
    was_stopped: Callable[[], bool] | None,
) -> None:
    """Silence stops the arm: it rests once the deadman's time and the time to settle are over."""
    entries = _entries(robot.embodiment)
    before = robot.read()
    wanted, _ = _move(robot, before, entries, num_steps, pace)
    pace.sleep(deadman_s + pace.settle_steps * pace.period_s)
    silent = robot.read()
    pace.sleep(pace.settle_steps * pace.period_s)
    later = robot.read()
    for entry, goal in zip(entries, wanted, strict=True):
        moved = abs(_seen(later, entry) - _seen(silent, entry))
        assert moved <= tolerance * abs(goal - _seen(before, entry)), (
            f"{entry.state.name}[{entry.state_component}] still moves ({moved:.4g} {entry.state.unit}) "
            f"without a command for more than deadman_s = {deadman_s:g} s"
        )
    assert was_stopped is None or was_stopped(), f"nobody stopped the arm after {deadman_s:g} s of silence"
    check_reading(robot.connect(), robot.embodiment)


def _check_instruction(robot: Robot, instruction: str) -> None:
    said = robot.set_instruction(instruction).observation.instruction
    assert said == instruction, f"told {instruction!r}, the reading says {said!r}"
    assert robot.read().observation.instruction == instruction, "the next reading forgot the instruction"


def _move(
    robot: Robot, before: Reading, entries: list[_Entry], num_steps: int, pace: _Pace
) -> tuple[list[float], np.ndarray]:
    """Move every entry a little; where each shall arrive, and the command that then keeps it there."""
    still = resting(robot.embodiment, before)
    start = [_seen(before, entry) for entry in entries]
    goals = [began + _motion(entry, began, num_steps)[0] for entry, began in zip(entries, start, strict=True)]
    action = still.copy()
    for k in range(1, num_steps + 1):
        for entry, began, goal in zip(entries, start, goals, strict=True):
            step = (goal - began) / num_steps
            action[entry.index] = {
                "absolute": began + k * step,
                "delta": step,
                "velocity": step * robot.embodiment.control_hz,
            }[entry.field.mode]
        check_reading(robot.command(action.copy()), robot.embodiment)
        pace.sleep(pace.period_s)
    last = still.copy()
    for entry in entries:
        if entry.field.mode == "absolute":
            last[entry.index] = action[entry.index]
    return goals, last


def _motion(entry: _Entry, began: float, num_steps: int) -> tuple[float, float]:
    """Signed size of the small motion of an entry that stands at ``began``, and that size without a sign.

    Towards the middle of the range of an absolute entry (of the measured quantity otherwise).
    """
    low, high = entry.field.low[entry.component], entry.field.high[entry.component]
    if entry.field.mode == "absolute":
        size, middle = ABSOLUTE_SHARE * (high - low), (low + high) / 2
    else:
        size = RELATIVE_SHARE * min(high, -low) * num_steps
        middle = (entry.state.low[entry.state_component] + entry.state.high[entry.state_component]) / 2
    return (size if began <= middle else -size), size


def _hold(robot: Robot, still: np.ndarray, pace: _Pace) -> Reading:
    reading = robot.read()
    for _ in range(pace.settle_steps):
        reading = robot.command(still.copy())
        pace.sleep(pace.period_s)
    return reading


def _entries(embodiment: Embodiment) -> list[_Entry]:
    """Every action entry that moves the arm along something measured."""
    found, index = [], 0
    for field in embodiment.action:
        arm, _, quantity = field.slot.partition(".")
        slot = f"{arm}.{SHOWN_IN.get(quantity, '')}"
        for component in range(field.size):
            place = _place(embodiment, slot, field.slot_start + component)
            if place is not None:
                found.append(_Entry(index + component, component, field, *place))
        index += field.size
    return found


def _place(embodiment: Embodiment, slot: str, number: int) -> tuple[Field, int] | None:
    for field in embodiment.state:
        if field.slot == slot and 0 <= number - field.slot_start < field.size:
            return field, number - field.slot_start
    return None


def _measured(embodiment: Embodiment, seen: Observation, slot: str, number: int) -> float | None:
    place = _place(embodiment, slot, number)
    state: Mapping[str, np.ndarray] = seen.state
    return None if place is None else float(state[place[0].name][place[1]])


def _seen(reading: Reading, entry: _Entry) -> float:
    return float(reading.observation.state[entry.state.name][entry.state_component])


def _refused(call: Callable[[], object], what: str, kind: type[VlaError] = VlaError) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(
            f"{what} raised {type(error).__name__} ({error}); expected {kind.__name__}"
        ) from error
    raise AssertionError(f"{what} was accepted; expected {kind.__name__}")
