"""Which entries are the gripper, and which of their values is open.

A gripper is commanded from one side of its range to the other. Three things tell the sides apart: an
episode that grasps begins open; what is lifted is held closed; and a gripper that closes on things of many
sizes stops at many widths, one that opens always stops at the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.data.solve.answers import Answer, accept, refuse
from vla.data.solve.kinematics import place
from vla.data.solve.tracks import Block, Tracks

_DELAY = 3  # steps after which a gripper has answered
_LINKED = 0.6
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
        return (
            f"{self.switches} episodes switch; begins open {self.starts:+.2f}, lifts closed "
            f"{self.rises:+.2f}, stops at many widths {self.stops:+.2f} (+: the high side is closed)"
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
    commands = [b for b in tracks.action_blocks(1, without=without) if _two_sided(tracks.stacked(b))]
    if not commands:
        why = "no other entry of the action switches between two sides"
        return [refuse("gripper_action", why), refuse("gripper_state", why)]
    states = [b for b in tracks.state_blocks(1, without=without) if tracks.stacked(b).std() > 1e-6]
    links = {(c, s): _link(tracks.parts(c), tracks.parts(s), lag) for c in commands for s in states}
    best = max(links, key=lambda pair: abs(links[pair]), default=None)
    if best is not None and abs(links[best]) >= _LINKED:
        command, state, link = best[0], best[1], links[best]
    elif len(commands) == 1:
        command, state, link = commands[0], None, 0.0
    else:
        why = f"{len(commands)} entries of the action switch, and none moves anything in the state"
        return [refuse("gripper_action", why), refuse("gripper_state", why)]
    side = _sides(tracks.parts(command), tracks.parts(state) if state else None, height, link, lag)
    sure = abs(side.total) * (1 - np.exp(-side.switches / _FULL_SWITCHES)) * 1.4
    if side.switches < _MIN_SWITCHES:
        sure = 0.0
    low, high = _range(tracks.stacked(command))
    value = {
        **place(command),
        "open": low if side.total > 0 else high,
        "closed": high if side.total > 0 else low,
    }
    doubt = "it cannot be told which side is open"
    answers = [accept("gripper_action", value, sure, side.text(), doubt)]
    if state is None:
        answers.append(refuse("gripper_state", "no entry of the state follows the gripper's command"))
        return answers
    low, high = _range(tracks.stacked(state))
    opens_high = (side.total > 0) == (link < 0)
    value = {**place(state), "open": high if opens_high else low, "closed": low if opens_high else high}
    said = f"follows the command with correlation {link:+.2f}; {side.text()}"
    answers.append(accept("gripper_state", value, min(sure, abs(link) * 1.2), said, doubt))
    return answers


def _sides(
    commands: list[np.ndarray],
    states: list[np.ndarray] | None,
    height: list[np.ndarray] | None,
    link: float,
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
        if states is not None:
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
