"""Which entries are the gripper, and which of their values is open.

A gripper is commanded from one side of its range to the other. Three things tell the sides apart: an
episode that grasps begins open; what is lifted is held closed; and a gripper that closes on things of many
sizes stops at many widths, one that opens always stops at the same. An entry that switches is a gripper's
command only where an entry of the state moves when it switches and rests otherwise: flags, modes and joints
that happen to go along do not. What moves the arm is no gripper however it switches, and an entry of the
state that only repeats the command says nothing of the fingers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.data.solve.answers import Answer, accept, refuse
from vla.data.solve.kinematics import place
from vla.data.solve.motion import COPY, copied
from vla.data.solve.tracks import Block, Tracks

_DELAY = 3  # steps after which a gripper has answered
_LINKED = 0.6
_RESPONDS = 0.5  # share of the motion, beyond that of any motion, that lies about the switches
_FLAG_STEPS = 5  # an entry that switches for no more than so many last steps, always as many, marks the end
_DRIVES = 0.9  # correlation of an entry with the speed of what it moves: a gripper rests most of the time
_OWN = 0.1  # share of its deviation that an entry must have for itself
_REPEATS = 1e-3  # of its range, that a record of the command is from it
_AGREE = 0.1  # at least, of what else tells the sides apart than how episodes begin
_MIN_SWITCHES = 5
_FULL_SWITCHES = 8.0


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Evidence that the high side of a command is the closed one: each in -1..1, and what was counted."""

    starts: float
    rises: float
    stops: float
    switches: int
    lifts: int

    @property
    def total(self) -> float:
        return (2 * self.starts + self.rises + self.stops) / 4

    def text(self) -> str:
        closed, opened, sign = ("high", "low", 1) if self.total > 0 else ("low", "high", -1)
        begun, rising = (f"{50 * (1 + sign * vote):.0f} %" for vote in (self.starts, self.rises))
        lifted = f", {rising} rise more while {closed}" if self.lifts else ""
        return (
            f"the {closed} side is closed: of {self.switches} episodes that switch {begun} begin {opened}"
            f"{lifted}; where it stops spreads x{3 ** (sign * self.stops):.2g} as far when {closed}"
        )


def gripper_answers(
    tracks: Tracks,
    without: tuple[Block | None, ...],
    height: list[np.ndarray] | None,
    lag: int,
) -> list[Answer]:
    """Questions ``gripper_action`` and ``gripper_state``.

    Args:
        without: blocks that mean something else.
        height: the tool's height of each episode, where it is known.
    """
    switching = [b for b in tracks.action_blocks(1, without=without) if _two_sided(tracks.stacked(b))]
    states = [b for b in tracks.state_blocks(1, without=without) if tracks.stacked(b).std() > 1e-6]
    actions = tracks.episodes.get(tracks.action_column or "", [])
    states = [s for s in states if not any(_repeats(tracks.parts(b), tracks.parts(s)) for b in switching)]
    driving = [b for b in switching if any(_drives(actions, b.start, tracks.parts(s), lag) for s in states)]
    commands = [b for b in switching if b not in driving and not _marks_an_end(tracks.parts(b))]
    if not commands:
        flags = f", entry {switching[0].start} only at the ends of episodes" if switching else ""
        flags = f", entry {driving[0].start} moves something all the while" if driving else flags
        return _refused(f"no other entry of the action switches between two sides{flags}")
    links = {(c, s): _link(tracks.parts(c), tracks.parts(s), lag) for c in commands for s in states}
    answering = {pair: link for pair, link in links.items() if abs(link) >= _LINKED}
    moves = {(c, s): _responds(tracks.parts(c), tracks.parts(s), lag) for c, s in answering}
    answering = {pair: link for pair, link in answering.items() if moves[pair] >= _RESPONDS}
    if not answering:
        where = ", ".join(str(c.start) for c in commands)
        link, move = max(map(abs, links.values()), default=0.0), max(moves.values(), default=0.0)
        why = "nothing in the state moves when, and only when, the entry switches: a flag looks the same"
        said = f"entries {where} switch; best correlation {link:.2f}"
        return _refused(why, f"{said}, of its motion {100 * move:.0f} % at the switches beyond chance")
    grippers = sorted({c.start for c, _ in answering})
    if len(grippers) > 1:
        return _refused(f"entries {grippers} of the action each move something in the state: two grippers?")
    command, state = max(answering, key=lambda pair: abs(answering[pair]))
    link = answering[command, state]
    if copied(tracks.parts(command), tracks.parts(state)):
        return _refused(COPY)
    side = _sides(tracks.parts(command), tracks.parts(state), height, lag)
    sure = abs(side.total) * (1 - np.exp(-side.switches / _FULL_SWITCHES)) * 1.4
    if side.switches < _MIN_SWITCHES or (side.rises + side.stops) * np.sign(side.starts) < _AGREE:
        sure = 0.0
    low, high = _range(tracks.stacked(command))
    value = {
        **place(command),
        "open": low if side.total > 0 else high,
        "closed": high if side.total > 0 else low,
    }
    doubt = "it cannot be told which side is open"
    answers = [accept("gripper_action", value, sure, side.text(), doubt)]
    low, high = _range(tracks.stacked(state))
    opens_high = (side.total > 0) == (link < 0)
    value = {**place(state), "open": high if opens_high else low, "closed": low if opens_high else high}
    said = f"follows the command with correlation {link:+.2f}; {side.text()}"
    answers.append(accept("gripper_state", value, min(sure, abs(link) * 1.2), said, doubt))
    return answers


def _sides(
    commands: list[np.ndarray],
    states: list[np.ndarray],
    height: list[np.ndarray] | None,
    lag: int,
) -> _Side:
    middle = sum(_range(np.concatenate(commands))) / 2
    starts, rises, lifts = [], [], 0
    settled: dict[bool, list[float]] = {True: [], False: []}
    for e, command in enumerate(commands):
        high = command[max(lag, 0) :, 0] > middle
        if high.all() or not high.any():
            continue
        first = int(np.argmax(high != high[0]))
        starts.append(-1.0 if high[0] else 1.0)
        if height is not None:
            z = height[e][: len(high)]
            climbs = np.diff(z)[first:]
            sides = high[first : first + len(climbs)]
            if climbs.size and sides.any() and (~sides).any():
                gap = climbs[sides].mean() - climbs[~sides].mean()
            elif climbs.size:
                before = np.diff(z)[:first].mean() if first else 0.0
                gap = (climbs.mean() - before) * (1 if sides.all() else -1)
            else:
                gap = 0.0
            rises.append(float(np.sign(gap)))
            lifts += 1
        for side in (True, False):
            steady = _steady(high, side)
            if steady.size:
                settled[side].append(float(np.median(states[e][: len(high)][steady, 0])))
    stops = 0.0
    if min(len(settled[True]), len(settled[False])) >= _MIN_SWITCHES:
        wide = {side: _width(np.array(values)) for side, values in settled.items()}
        stops = float(np.clip(np.log((wide[True] + 1e-6) / (wide[False] + 1e-6)) / np.log(3.0), -1, 1))
    return _Side(
        starts=float(np.mean(starts)) if starts else 0.0,
        rises=float(np.mean(rises)) if rises else 0.0,
        stops=stops,
        switches=len(starts),
        lifts=lifts,
    )


def _steady(high: np.ndarray, side: bool) -> np.ndarray:
    """Steps at which the command has been on ``side`` for a while."""
    on = high == side
    run = np.ones(len(on), bool)
    for back in range(_DELAY + 2):
        run &= np.concatenate([np.zeros(back, bool), on[: len(on) - back]])
    return np.flatnonzero(run)


def _drives(actions: list[np.ndarray], entry: int, states: list[np.ndarray], lag: int) -> bool:
    """Whether the state's speed follows an entry of the action, as an axis does, beyond what all others
    explain of both: a hand that is open on its way down and closed on its way up moves nothing up or down."""
    late, x, y = max(lag, 0), [], []
    for action, state in zip(actions, states, strict=True):
        speed = np.diff(state[:, 0])
        n = min(len(action) - late, len(speed))
        x.append(action[late : late + n])
        y.append(speed[:n])
    a = np.concatenate(x).astype(np.float64)
    a, speed = a - a.mean(0), np.concatenate(y).astype(np.float64)
    both = np.column_stack([a[:, entry], speed - speed.mean()])
    others = np.delete(a, entry, axis=1)
    both -= others @ np.linalg.lstsq(others, both, rcond=None)[0]
    own, moved = both.std(axis=0)
    if own <= _OWN * a[:, entry].std() or moved <= 1e-9:
        return False
    return bool(abs(np.corrcoef(both.T)[0, 1]) >= _DRIVES)


def _repeats(commands: list[np.ndarray], states: list[np.ndarray]) -> bool:
    """Whether the state is the command of some rows away, in whatever numbers: a record of it. Rows before,
    or after where actions were written late."""
    for shift in range(-_DELAY, _DELAY + 1):
        ahead, behind = max(-shift, 0), max(shift, 0)
        x = np.concatenate([c[ahead : max(len(c) - behind, 0), 0] for c in commands])
        y = np.concatenate([s[behind : max(len(s) - ahead, 0), 0] for s in states])
        if len(x) == len(y) and len(x) > 2 and x.std() > 1e-9:
            slope, offset = np.polyfit(x, y, 1)
            if np.quantile(np.abs(slope * x + offset - y), 0.98) <= _REPEATS * np.ptp(y):
                return True
    return False


def _link(commands: list[np.ndarray], states: list[np.ndarray], lag: int) -> float:
    """Correlation of the command with the state a little later."""
    late, x, y = max(lag, 0), [], []
    for command, state in zip(commands, states, strict=True):
        n = len(command) - late - _DELAY
        if n > 0:
            x.append(command[late : late + n, 0])
            y.append(state[_DELAY : _DELAY + n, 0])
    if not x:
        return 0.0
    a, b = np.concatenate(x), np.concatenate(y)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else 0.0


def _responds(commands: list[np.ndarray], states: list[np.ndarray], lag: int) -> float:
    """How far the state's motion lies about the switches of the command: 0 as any motion would, 1 all of it.

    Steps are weighed by the square of the motion, so that a slow finger counts and noise does not.
    """
    middle, late = sum(_range(np.concatenate(commands))) / 2, max(lag, 0)
    moved = moved_near = steps = steps_near = 0.0
    for command, state in zip(commands, states, strict=True):
        high = command[late:, 0] > middle
        squares = np.diff(state[: len(high), 0]) ** 2
        near = np.zeros(len(squares), bool)
        for switch in np.flatnonzero(high[1:] != high[:-1]) + 1:
            near[max(switch - _DELAY, 0) : switch + _DELAY + 1 + len(high) // 10] = True
        moved, moved_near = moved + squares.sum(), moved_near + squares[near].sum()
        steps, steps_near = steps + len(near), steps_near + near.sum()
    if moved <= 0 or steps_near >= steps:
        return 0.0
    by_chance = steps_near / steps
    return float((moved_near / moved - by_chance) / (1 - by_chance))


def _marks_an_end(parts: list[np.ndarray]) -> bool:
    """Whether an entry only says that an episode begins or ends: it switches for the same few steps there."""
    middle, runs = sum(_range(np.concatenate(parts))) / 2, list[tuple[int, int]]()
    for values in parts:
        high = values[:, 0] > middle
        switches = np.flatnonzero(high[1:] != high[:-1]) + 1
        if len(switches):
            runs.append((int(switches[0]), len(high) - int(switches[-1])) if len(switches) == 1 else (0, 0))
    for side in (0, 1):
        steps = [run[side] for run in runs]
        usual = max(set(steps), key=steps.count, default=0)
        if 0 < usual <= _FLAG_STEPS and steps.count(usual) >= 0.9 * len(steps):
            return True
    return False


def _refused(why: str, evidence: str = "") -> list[Answer]:
    return [refuse("gripper_action", why, evidence), refuse("gripper_state", why, evidence)]


def _two_sided(values: np.ndarray) -> bool:
    """Whether most values lie near one of two ends."""
    low, high = values.min(), values.max()
    if high - low < 1e-6:
        return False
    share = (values - low) / (high - low)
    near = (share < 0.2) | (share > 0.8)
    return bool(near.mean() > 0.75 and (share < 0.2).mean() > 0.03 and (share > 0.8).mean() > 0.03)


def _range(values: np.ndarray) -> tuple[float, float]:
    """The ends of the stored range: a usual one where the data fill it, else what was seen."""
    low, high = (float(x) for x in np.quantile(values, [0.005, 0.995]))
    for a, b in ((0.0, 1.0), (-1.0, 1.0), (0.0, 100.0), (0.0, 255.0)):
        if abs(high - b) < 0.1 * (b - a) and a - 0.1 * (b - a) <= low < a + 0.6 * (b - a):
            return a, b
    return low, high


def _width(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.8) - np.quantile(values, 0.2))
