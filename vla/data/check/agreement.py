"""Whether the arm does what the actions say: lag, sign and scale of all episodes, and odd ones out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.check.signals import Signals, entry_names, is_gripper, slices
from vla.embodiment import Embodiment

_MIN_STEPS = 200  # of motion, before anything is said of an entry
_MIN_EPISODE_STEPS = 10
_MIN_EPISODES = 8
_EARLIEST = -4  # steps

#: action slot -> state slot that it moves
_MOVES = {
    "tcp_position_delta": "tcp_position",
    "tcp_position": "tcp_position",
    "joint_position": "joint_position",
    "joint_delta": "joint_position",
    "joint_velocity": "joint_position",
}


@dataclass(frozen=True)
class Pair:
    """An action entry and the state entry it moves; ``per_step`` is the motion one unit asks for, or None."""

    action: int
    state: int
    name: str
    absolute: bool
    per_step: float | None


def pairs(arm: Embodiment) -> list[Pair]:
    """Entries of the action that say where entries of the state go."""
    places = {
        (member.slot, member.slot_start + i): (place.start + i, member)
        for member, place in slices(arm.state)
        for i in range(member.size)
    }
    found = []
    for member, place in slices(arm.action):
        side, _, quantity = member.slot.partition(".")
        if is_gripper(member) or quantity not in _MOVES or member.frame == "tool":
            continue
        for i in range(member.size):
            key = (f"{side}.{_MOVES[quantity]}", member.slot_start + i)
            if key not in places:
                continue
            state, moved = places[key]
            units = {moved.unit: 1.0, f"{moved.unit}/step": 1.0, f"{moved.unit}/s": 1 / arm.control_hz}
            found.append(
                Pair(
                    action=place.start + i,
                    state=state,
                    name=f"action/{member.name}[{i}]",
                    absolute=member.mode == "absolute",
                    per_step=units.get(member.unit),
                )
            )
    return found


@dataclass
class Agreement:
    """Sums of the correlation between what was asked and what moved, by entry and lag; memory is fixed."""

    arm: Embodiment
    config: CheckConfig
    episodes: list[tuple[int, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pairs = pairs(self.arm)
        latest = max(2, round(2 * self.config.max_lag_s * self.arm.control_hz))
        self._lags = range(_EARLIEST, latest + 1)
        # n, sum a, sum b, sum aa, sum bb, sum ab
        self._sums = np.zeros((len(self._pairs), len(self._lags), 6))

    def add(self, s: Signals) -> None:
        """Take an episode in."""
        total = np.zeros(6)
        for p, pair in enumerate(self._pairs):
            asked, moved = _asked_and_moved(s, pair)
            for k, lag in enumerate(self._lags):
                sums = _sums(*_shifted(asked, moved, lag))
                self._sums[p, k] += sums
                if lag == 0:
                    scale = max(float(np.abs(asked).max(initial=0)), 1e-12)
                    total += sums / np.array([1, scale, scale, scale**2, scale**2, scale**2])
        if self._pairs and total[0] >= _MIN_EPISODE_STEPS * len(self._pairs):
            self.episodes.append((s.info.index, _correlation(total), int(total[0])))

    def conclude(self) -> list[Finding]:
        """What is found when all were seen."""
        found = []
        for p, pair in enumerate(self._pairs):
            curve = np.array([_correlation(sums) for sums in self._sums[p]])
            best = int(np.argmax(np.abs(curve)))
            if self._sums[p, best, 0] < _MIN_STEPS or abs(curve[best]) < self.config.min_correlation:
                continue
            found += self._judge(pair, curve, best, self._sums[p, best])
        return [*found, *self._odd_ones()]

    def _judge(self, pair: Pair, curve: np.ndarray, best: int, sums: np.ndarray) -> list[Finding]:
        """Lag, sign and scale of one entry at the lag where action and motion agree best."""
        found, lag, arm = [], self._lags[best], self.arm
        at_zero = abs(curve[self._lags.index(0)])
        evidence = {
            "embodiment": arm.name,
            "lags": list(self._lags),
            "correlation": [round(float(c), 4) for c in curve],
        }
        late = self.config.max_lag_s * arm.control_hz
        if (lag < 0 or lag > late) and abs(curve[best]) > at_zero + self.config.lag_margin:
            found.append(
                Finding(
                    kind="action_late" if lag < 0 else "action_early",
                    where=pair.name,
                    value=float(lag),
                    threshold=0.0 if lag < 0 else late,
                    message=f"the motion fits the action of {abs(lag)} steps "
                    f"{'later' if lag < 0 else 'before'} best (correlation {abs(curve[best]):.2f}, "
                    f"{at_zero:.2f} at its own step)",
                    evidence=evidence,
                )
            )
        if curve[best] < 0:
            found.append(
                Finding(
                    kind="opposite_sign",
                    where=pair.name,
                    value=float(curve[best]),
                    threshold=-self.config.min_correlation,
                    message=f"correlation of action and motion {curve[best]:.2f}",
                    evidence=evidence,
                )
            )
        gain = _gain(sums)
        strong = abs(curve[best]) > 2 * self.config.min_correlation
        if pair.per_step is not None and strong:
            ratio = abs(gain) / pair.per_step
            if not 1 / self.config.scale_factor < ratio < self.config.scale_factor:
                found.append(
                    Finding(
                        kind="wrong_scale",
                        where=pair.name,
                        value=ratio,
                        threshold=self.config.scale_factor,
                        message=f"the state moves {ratio:.3g} times as far as the action asks",
                        evidence=evidence,
                    )
                )
        return found

    def _odd_ones(self) -> list[Finding]:
        """Episodes in which motion and action do not agree although they do in the others."""
        if len(self.episodes) < _MIN_EPISODES:
            return []
        usual = float(np.quantile([c for _, c, _ in self.episodes], 0.1))
        if usual < 0.6:
            return []
        limit = self.config.mismatch_correlation
        return [
            Finding(
                kind="mismatch",
                episode=index,
                where=self._pairs[0].name,
                evidence={"moved": entry_names(self.arm, "state")[self._pairs[0].state]},
                value=correlation,
                threshold=limit,
                message=f"correlation of actions and motion {correlation:.2f}; in 90 % of the episodes it is "
                f"above {usual:.2f}",
            )
            for index, correlation, _ in self.episodes
            if correlation < limit
        ]


def _asked_and_moved(s: Signals, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """What the action asks for in each step and what the state does, both [T-1]."""
    action, state = s.executed[:, pair.action], s.state[:, pair.state]
    moved = np.diff(state)
    if not pair.absolute:
        return action[:-1], moved
    asked = np.diff(action, prepend=action[:1])[:-1]  # a target: it asks for motion where it changes
    asked[:1] = np.nan
    return asked, moved


def _shifted(asked: np.ndarray, moved: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """``asked[t]`` beside ``moved[t + lag]``."""
    n = len(asked) - abs(lag)
    if n <= 0:
        return asked[:0], moved[:0]
    a, b = (asked[:n], moved[lag:]) if lag >= 0 else (asked[-lag:], moved[:n])
    known = np.isfinite(a)
    return a[known], b[known]


def _sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([len(a), a.sum(), b.sum(), a @ a, b @ b, a @ b])


def _correlation(sums: np.ndarray) -> float:
    n, a, b, aa, bb, ab = sums
    if n < 2:
        return 0.0
    variance = (aa - a * a / n) * (bb - b * b / n)
    return float((ab - a * b / n) / np.sqrt(variance)) if variance > 1e-24 * max(aa * bb, 1e-300) else 0.0


def _gain(sums: np.ndarray) -> float:
    """Least-squares motion for one unit of action."""
    n, a, b, aa, _, ab = sums
    return float((ab - a * b / n) / max(aa - a * a / n, 1e-300))
