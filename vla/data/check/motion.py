"""Checks of one episode's numbers: time stamps, jumps, outliers, ranges, clipping, idle stretches, length."""

from __future__ import annotations

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.check.signals import (
    Signals,
    Typical,
    asked,
    change,
    displacement,
    entry_names,
    is_gripper,
    moving_fields,
    runs,
    slices,
)

#: Of its own length, by which a displacement that is a jump differs from those beside it; a right angle in
#: two steps makes 0.8.
_UNLIKE = 0.9


def check_time(index: int, time_s: np.ndarray, control_hz: float, config: CheckConfig) -> list[Finding]:
    """Time stamps [T] of an episode that go back, leave steps out, or tell another rate."""
    if len(time_s) < 2:
        return []
    gaps, period, found = np.diff(time_s), 1 / control_hz, []
    back = np.flatnonzero(gaps <= 0)
    if len(back):
        found.append(
            Finding(
                kind="time_backwards",
                episode=index,
                first=int(back[0]),
                last=int(back[-1]) + 1,
                where="time_s",
                value=float(gaps[back[0]]),
                threshold=0.0,
                message=f"{len(back)} of {len(gaps)} steps do not go forward in time",
                evidence={"steps": back.tolist()},
            )
        )
    usual = float(np.median(gaps))
    if usual <= 0:
        return found
    returns = np.append(False, gaps[:-1] <= 0)  # the way back up from a step into the past is no gap
    for at in np.flatnonzero((gaps > config.gap_factor * usual) & ~returns):
        found.append(
            Finding(
                kind="time_gap",
                episode=index,
                first=int(at),
                last=int(at) + 1,
                where="time_s",
                value=float(gaps[at]),
                threshold=config.gap_factor * usual,
                message=f"{gaps[at]:.3f} s between two steps that are usually {usual:.3f} s apart",
                evidence={"steps": [int(at)]},
            )
        )
    if abs(usual / period - 1) > config.rate_tolerance:
        found.append(
            Finding(
                kind="wrong_rate",
                episode=index,
                where="time_s",
                value=1 / usual,
                threshold=control_hz,
                message=f"{1 / usual:.4g} Hz by its time stamps, control_hz is {control_hz:g}",
            )
        )
    return found


def check_jumps(s: Signals, usual: Typical, config: CheckConfig) -> list[Finding]:
    """Steps in which a state field moves much farther than it ever does.

    Less is enough for a step that does not go on as those beside it do; it is compared with nearly all
    episodes, not with all steps, among which an episode full of jumps would make jumps usual.
    """
    found = []
    for member, place in moving_fields(s.arm):
        steps = displacement(s.state[:, place], member)
        moved, q99 = np.linalg.norm(steps, axis=1), usual.step_q99[member.name]
        of_most = usual.step_usual[member.name] or q99
        limits = (config.jump_factor * q99, config.lone_jump_factor * of_most)
        alone = _apart(steps) & (moved > limits[1]) & (limits[1] > 0)
        far = alone | ((moved > limits[0]) & (limits[0] > 0))
        if not far.any():
            continue
        worst = int(np.argmax(np.where(far, moved, 0)))
        below = of_most if alone[worst] else q99
        found.append(
            Finding(
                kind="jump",
                episode=s.info.index,
                first=int(np.flatnonzero(far)[0]),
                last=int(np.flatnonzero(far)[-1]) + 1,
                where=f"state/{member.name}",
                value=float(moved[worst]),
                threshold=limits[1] if alone[worst] else limits[0],
                message=f"{moved[worst]:.4g} {member.unit} from step {worst} to {worst + 1}; 99 % of steps "
                f"stay below {below:.4g}" + (f"; {far.sum()} such" if far.sum() > 1 else ""),
                evidence={"steps": np.flatnonzero(far).tolist()},
            )
        )
    return found


def _apart(steps: np.ndarray) -> np.ndarray:
    """bool [T-1]: whether a displacement [n] goes on neither from the one before nor to the one after.

    It does where it differs from one of them by less than its own length, and in a turn, which is slower.
    """
    if len(steps) < 2:
        return np.zeros(len(steps), bool)
    far, off = np.linalg.norm(steps, axis=1), np.linalg.norm(np.diff(steps, axis=0), axis=1)
    unlike = np.minimum(np.append(np.inf, off), np.append(off, np.inf)) > _UNLIKE * far
    return unlike & (far > 0.5 * np.maximum(np.append(0, far[:-1]), np.append(far[1:], 0)))


def check_values(s: Signals, usual: Typical, config: CheckConfig) -> list[Finding]:
    """Numbers outside the declared range, or far from all others of their entry."""
    found = []
    for column, fields in (("state", s.arm.state), ("action", s.arm.action)):
        values, names = getattr(s, column), entry_names(s.arm, column)
        low = np.array([x for f in fields for x in f.low])
        high = np.array([x for f in fields for x in f.high])
        beyond = np.maximum(values - high, low - values) / (high - low)
        spread = usual.high[column] - usual.low[column]
        away = np.maximum(values - usual.high[column], usual.low[column] - values)
        limit = np.maximum(config.outlier_factor * spread, config.outlier_range * (high - low))
        known = held_entries(s) if column == "action" else np.zeros(len(names), bool)
        for i, name in enumerate(names):
            outside = np.flatnonzero((beyond[:, i] > config.range_tolerance) & ~known[i])
            if len(outside):
                worst = outside[np.argmax(beyond[outside, i])]
                found.append(
                    Finding(
                        kind=f"{column}_out_of_range",
                        episode=s.info.index,
                        first=int(outside[0]),
                        last=int(outside[-1]),
                        where=name,
                        value=float(values[worst, i]),
                        threshold=float(high[i] if values[worst, i] > high[i] else low[i]),
                        message=f"{values[worst, i]:.4g} at step {worst}, declared {low[i]:g} to {high[i]:g} "
                        f"({len(outside)} of {len(s)} steps)",
                        evidence={"steps": outside.tolist()},
                    )
                )
            odd = np.flatnonzero(away[:, i] > limit[i])
            if 0 < len(odd) < len(s):  # where all of it is far off, the episode as a whole is reported
                worst = odd[np.argmax(away[odd, i])]
                found.append(
                    Finding(
                        kind="outlier",
                        episode=s.info.index,
                        first=int(odd[0]),
                        last=int(odd[-1]),
                        where=name,
                        value=float(values[worst, i]),
                        threshold=float(limit[i]),
                        message=f"{values[worst, i]:.4g} at step {worst}; 98 % of all "
                        + interval(usual.low[column][i], usual.high[column][i]),
                        evidence={"steps": odd.tolist()},
                    )
                )
    return found


def interval(low: float, high: float) -> str:
    """``lie in 0 to 0.25``, with as many digits as tell the ends apart; ``are 0`` where they are one."""
    if low == high:
        return f"are {low:.4g}"
    digits = next((n for n in range(4, 17) if f"{low:.{n}g}" != f"{high:.{n}g}"), 17)
    return f"lie in {low:.{digits}g} to {high:.{digits}g}"


def held_entries(s: Signals) -> np.ndarray:
    """bool [A]: entries of fields that are executed at the end of their range, as the layout says."""
    return np.array([member.name in s.held for member in s.arm.action for _ in range(member.size)], bool)


def at_limits(s: Signals) -> np.ndarray:
    """Steps at the low and at the high end of each action entry's range, [2 A]."""
    low, high = s.arm.action_low.astype(float), s.arm.action_high.astype(float)
    near = 1e-3 * (high - low)
    return np.stack([(s.action <= low + near).sum(axis=0), (s.action >= high - near).sum(axis=0)])


def held_steps(s: Signals, config: CheckConfig) -> np.ndarray:
    """Steps at which each action entry is a little beyond its range and was executed at the end of it, [A].

    What is farther beyond is ``action_out_of_range``, unless the layout says that it is held.
    """
    low, high = s.arm.action_low.astype(float), s.arm.action_high.astype(float)
    near, far = 1e-6 * (high - low), config.range_tolerance * (high - low)
    off = np.maximum(s.action - high, low - s.action)
    held = np.abs(s.executed - np.clip(s.action, low, high)) <= near
    return ((off > near) & ((off <= far) | held_entries(s)) & held).sum(axis=0)


def check_idle(s: Signals, usual: Typical, config: CheckConfig) -> list[Finding]:
    """Stretches in which the arm neither moves nor is asked to."""
    if not s.arm.state_dim or len(s) < config.idle_steps:
        return []
    still = still_steps(s, usual, config) & _quiet_actions(s, config)
    found, hz, last = [], s.arm.control_hz, len(s) - 1
    for a, b in runs(still):
        length = b - a + 1
        kind = "idle_start" if a == 0 else "idle_end" if b == last else "idle_middle"
        needed = config.idle_middle_s if kind == "idle_middle" else config.idle_edge_s
        if length < max(config.idle_steps, needed * hz):
            continue
        found.append(
            Finding(
                kind=kind,
                episode=s.info.index,
                first=a,
                last=b,
                where=f"state/{moving_fields(s.arm)[0][0].name}" if moving_fields(s.arm) else "state",
                value=length / hz,
                threshold=needed,
                message=f"{length / hz:.1f} s ({length} of {len(s)} steps) without a motion or a command",
            )
        )
    return found


def still_steps(s: Signals, usual: Typical, config: CheckConfig) -> np.ndarray:
    """bool [T]: from this step to the next no state field moves; the last step is like the one before."""
    if len(s) < 2:
        return np.ones(len(s), bool)
    still = np.ones(len(s) - 1, bool)
    for member, place in moving_fields(s.arm):
        fast = max(usual.step_q75[member.name], config.moving_share * usual.step_q90[member.name])
        still &= change(s.state[:, place], member) <= config.moving * fast
    for member, place in slices(s.arm.state):
        if is_gripper(member):
            span = np.subtract(member.high, member.low)
            still &= (np.abs(np.diff(s.state[:, place], axis=0)) <= 0.01 * span).all(axis=1)
    return np.append(still, still[-1])


def _quiet_actions(s: Signals, config: CheckConfig) -> np.ndarray:
    """bool [T]: the action asks for no motion (a change near 0, or the same target as before)."""
    quiet = np.ones(len(s), bool)
    for member, place in slices(s.arm.action):
        values, span = s.action[:, place], np.subtract(member.high, member.low)
        quiet &= (np.abs(asked(values, member)) <= config.quiet_action * span).all(axis=1)
    return quiet


def check_length(s: Signals, usual: Typical, config: CheckConfig) -> list[Finding]:
    """Episodes far shorter or longer than the others of their embodiment."""
    short = max(config.min_steps, config.short_factor * usual.median_length)
    long = config.long_factor * usual.median_length
    if short <= len(s) <= long:
        return []
    return [
        Finding(
            kind="short_episode" if len(s) < short else "long_episode",
            episode=s.info.index,
            value=float(len(s)),
            threshold=short if len(s) < short else long,
            message=f"{len(s)} steps; the median is {usual.median_length:g}",
        )
    ]
