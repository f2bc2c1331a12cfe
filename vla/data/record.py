"""Recording an episode: a policy acts in an env, optionally disturbed, and labels stay what it wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vla.data.episode_recorder import EpisodeRecorder, copied, scene_facts
from vla.embodiment import Embodiment
from vla.errors import ConfigError, EnvError
from vla.interfaces import Env, Policy, observation_from_gym
from vla.types import Episode

_STEP_LIMIT = 10_000


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Disturbance of what is executed, so that demonstrations hold mistakes and their recovery.

    After DART (Laskey et al. 2017): the label is always the demonstrator's action for the state it
    meets. Only delta and velocity fields are disturbed; units are half the field's range.

    Args:
        burst_probability: chance per step that a random burst begins.
        burst_steps: shortest and longest burst, steps; a burst repeats one uniformly random action.
        position_std: standard deviation of the Gaussian on translations at every step.
        gripper_flip_probability: chance per burst that the gripper command is reversed as well.
    """

    burst_probability: float = 0.12
    burst_steps: tuple[int, int] = (1, 3)
    position_std: float = 0.08
    gripper_flip_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in ("burst_probability", "gripper_flip_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"NoiseConfig.{name} is {getattr(self, name)}, expected 0..1.")
        if not 1 <= self.burst_steps[0] <= self.burst_steps[1] or self.position_std < 0:
            raise ConfigError(f"NoiseConfig needs 1 <= shortest <= longest burst and std >= 0: {self}.")

    def times(self, factor: float) -> NoiseConfig | None:
        """This much of it: rarer or more frequent bursts, weaker or stronger jitter. None of it at 0."""
        if not 0 <= factor * self.burst_probability <= 1:
            most = 1 / max(self.burst_probability, 1e-9)
            raise ConfigError(f"Noise times {factor}: expected a factor from 0 to {most:.3g}.")
        if factor == 0:
            return None
        shares = (self.burst_probability * factor, self.position_std * factor)
        return replace(self, burst_probability=shares[0], position_std=shares[1])


class ActionNoise:
    """Disturbs the actions of one episode; keeps the burst that is going on."""

    def __init__(self, config: NoiseConfig, embodiment: Embodiment, rng: np.random.Generator) -> None:
        self._config, self._rng = config, rng
        self._low, self._high = embodiment.action_low, embodiment.action_high
        sizes = [f.size for f in embodiment.action]
        grips = [f.gripper_sign != "none" for f in embodiment.action]
        moves = [f.mode != "absolute" and not grip for f, grip in zip(embodiment.action, grips, strict=True)]
        shifts = [move and f.unit.startswith("m") for f, move in zip(embodiment.action, moves, strict=True)]
        self._grip, self._move, self._shift = (np.repeat(flags, sizes) for flags in (grips, moves, shifts))
        if not self._move.any():
            raise ConfigError(
                f"Noise disturbs delta and velocity fields, {embodiment.name!r} has none: pass noise=None."
            )
        self._left, self._burst, self._flip = 0, np.zeros(len(self._low)), False

    def disturb(self, action: np.ndarray) -> np.ndarray:
        """What to execute in place of ``action``, inside the fields' ranges."""
        config, rng = self._config, self._rng
        if not self._left and rng.random() < config.burst_probability:
            self._left = int(rng.integers(config.burst_steps[0], config.burst_steps[1] + 1))
            self._burst = rng.uniform(self._low, self._high)
            self._flip = bool(rng.random() < config.gripper_flip_probability)
        half = (self._high - self._low) / 2
        gaussian = rng.normal(0.0, config.position_std, len(action)) * half
        if self._left:
            self._left -= 1
            executed = np.where(self._move, self._burst, action)
            if self._flip:
                executed = np.where(self._grip, self._low + self._high - action, executed)
        else:
            executed = action + np.where(self._shift, gaussian, 0.0)
        return np.clip(executed, self._low, self._high).astype(np.float32)


def record_episode(
    env: Env,
    policy: Policy,
    *,
    seed: int,
    options: Mapping[str, Any] | None = None,
    noise: NoiseConfig | None = None,
    rng: np.random.Generator | None = None,
    max_steps: int | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Episode:
    """Let ``policy`` act until the env reports success, ends the episode, or ``max_steps`` are done.

    Args:
        env: where; its observations are copied.
        policy: whom to record; the first action of each chunk is taken, and it is asked at every step.
        seed, options: of ``env.reset``.
        noise: disturbance of what is executed; needs ``rng``.
        rng: generator of the noise.
        max_steps: limit of steps (None: the env's own).
        provenance: facts stored with the episode beside seed, options and noise.
    """
    if noise is not None and rng is None:
        raise ConfigError("record_episode was given noise but no rng: pass a numpy Generator.")
    embodiment = env.embodiment
    disturbance = ActionNoise(noise, embodiment, rng) if noise is not None and rng is not None else None
    obs, info = env.reset(seed=seed, options=dict(options or {}))
    named = scene_facts(info)
    policy.reset()
    recorder = EpisodeRecorder(
        embodiment,
        {
            **(provenance or {}),
            "seed": seed,
            **(options or {}),
            "noise": None if noise is None else asdict(noise),
            **named,
        },
    )
    done = False
    while not done and len(recorder) < (max_steps or _STEP_LIMIT):
        seen = observation_from_gym(
            obs, embodiment, time_s=len(recorder) / embodiment.control_hz, aux=info.get("aux")
        )
        seen = copied(seen)  # the env's next step writes into the same buffers
        wanted = embodiment.check_action(policy.act([seen])[0].actions[0])
        label = np.clip(wanted, embodiment.action_low, embodiment.action_high)
        executed = label if disturbance is None else disturbance.disturb(label)
        obs, _, terminated, truncated, info = env.step(executed)
        recorder.add(seen, wanted, executed, success=bool(info["success"]))
        done = terminated or truncated or bool(info["success"])
    if not done and max_steps is None:
        raise EnvError(
            f"An episode did not end within {_STEP_LIMIT} steps: the env never truncates; pass max_steps."
        )
    return recorder.episode()
