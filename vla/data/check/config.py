"""The thresholds of a check, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vla.data.time_stamps import GAP_FACTOR
from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Defaults find planted faults and nothing in clean demonstrations of four simulated arms.

    Args:
        frames: ``sampled`` looks at a few pictures of each camera, ``all`` at every one, ``none`` at none.
        sampled_frames: pictures a camera and episode; a stretch that seems frozen is then read whole.
        typical_episodes: episodes, evenly spread, from which is learnt what is usual.
        blank_std: grey levels; no camera that sees anything has less (a lens cap has sensor noise of 1).
        frozen_difference: mean grey levels between pictures; sensor noise and video coding make more.
        frozen_steps: shortest run of equal pictures; cameras of half the control rate repeat one.
        odd_difference: grey levels by which one picture differs from both neighbours ...
        odd_factor: ... and how many times that is what the neighbours differ from each other.
        jump_factor: times the 99 % quantile of the change in one step; an arm that starts, stops and
            touches things stays below 3, a lost step of an encoder or a wrong row does not.
        lone_jump_factor: likewise for a step that goes on neither from the one before nor to the one after;
            clean ones stay below 1.3, also of people (BridgeData, robosuite: 0.7).
        jump_sigma: standard deviations of a column's changes, where nobody says what it means.
        frozen_state_s: seconds in which commands go on and the state stays as it was to the last bit; longer
            than any arm takes to follow (``max_lag_s``) ...
        frozen_state_factor: ... and this many times as long as it does in four of five episodes.
        commanded: share of the 90 % quantile of what is asked from which an action counts as a command ...
        commanded_range: ... and this share of the range, where it is a change.
        moving: share of the 75 % quantile of the change in one step below which an arm stands still ...
        moving_share: ... or of this share of the 90 % quantile, where arms wait most of the time.
        quiet_action: share of the range within which an action asks for nothing.
        idle_edge_s: seconds of standing still at start or end.
        idle_middle_s: seconds of it in between: longer than a gripper takes to close.
        idle_steps: and never fewer steps than these.
        gap_factor: of the usual time between steps; a late step of a busy computer stays below.
        rate_tolerance: relative difference of the median rate from ``control_hz``.
        range_tolerance: share of the range that a number may lie outside (rounding).
        saturated_share: of steps at an end of the range. Demonstrators that hurry reach 0.3 to 0.4.
        outlier_factor: times the distance from 1 % to 99 % quantile that a number may lie outside of it ...
        outlier_range: ... and this share of the declared range: entries that rest near 0 have long tails.
        episode_factor: likewise for the mean of an episode, of the 5 % to 95 % distance of such means.
        constant_std: of the range; below it the entry says nothing.
        min_steps: fewer make no window.
        short_factor, long_factor: of the median length.
        near_duplicate: largest difference, in standard deviations of each entry, over a whole episode. Two
            takes of one person differ by 0.1 and more.
        max_lag_s: between action and motion that controllers and cameras explain.
        min_correlation: between action and motion, below which nothing is said of lag, sign and scale.
        lag_margin: how much better another lag must fit.
        scale_factor: by which motion may differ from what an action in the same unit asks.
        mismatch_correlation: of one episode, where 90 % reach 0.6; clean ones stay above 0.5.
        placeholder_share: of what an action entry spans, below which a first or last action is empty; people
            and planners begin with more, recorders that put a row of zeros there with rounding errors.
        edge_episodes: share of the episodes whose first (last) action is empty or far from all others.
    """

    frames: Literal["sampled", "all", "none"] = "sampled"
    sampled_frames: int = 8
    typical_episodes: int = 256
    blank_std: float = 0.8
    frozen_difference: float = 0.02
    frozen_steps: int = 3
    odd_difference: float = 20.0
    odd_factor: float = 4.0
    jump_factor: float = 5.0
    lone_jump_factor: float = 2.5
    jump_sigma: float = 20.0
    frozen_state_s: float = 1.0
    frozen_state_factor: float = 3.0
    commanded: float = 0.2
    commanded_range: float = 0.005
    moving: float = 0.05
    moving_share: float = 0.2
    quiet_action: float = 0.05
    idle_edge_s: float = 1.0
    idle_middle_s: float = 2.0
    idle_steps: int = 5
    gap_factor: float = GAP_FACTOR
    rate_tolerance: float = 0.05
    range_tolerance: float = 0.01
    saturated_share: float = 0.6
    outlier_factor: float = 3.0
    outlier_range: float = 0.1
    episode_factor: float = 3.0
    constant_std: float = 1e-6
    min_steps: int = 3
    short_factor: float = 0.15
    long_factor: float = 6.0
    near_duplicate: float = 0.02
    max_lag_s: float = 0.5
    min_correlation: float = 0.3
    lag_margin: float = 0.05
    scale_factor: float = 4.0
    mismatch_correlation: float = 0.25
    placeholder_share: float = 1e-3
    edge_episodes: float = 0.9

    def __post_init__(self) -> None:
        if self.frames not in ("sampled", "all", "none"):
            raise ConfigError(f"frames is {self.frames!r}, expected sampled, all or none.")
        if self.sampled_frames < 2 or self.typical_episodes < 1:
            raise ConfigError("sampled_frames must be at least 2 and typical_episodes at least 1.")
