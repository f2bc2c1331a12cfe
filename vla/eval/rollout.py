"""One episode in closed loop, from reset to its record."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla.control.chunks import ChunkExecutor, Execution, holding
from vla.control.latency import Replayed
from vla.control.loop import Hook, Tick, run_loop
from vla.control.policies import check_contract
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.eval.ablations import PERTURBATIONS, DeprivedPolicy
from vla.eval.records import ENV_CLIPPED, EpisodeKey, EpisodeRecord
from vla.interfaces import Env, Policy
from vla.robots import Reading
from vla.robots.sim import SimRobot
from vla.types import ActionChunk, Observation


def run_episode(
    env: Env,
    policy: Policy,
    *,
    suite: str,
    key: EpisodeKey,
    execution_horizon: int = 2,
    execution: Execution = "sync",
    latency_s: Sequence[float] = (),
    safety: SafetyConfig | None = None,
    max_steps: int = 10_000,
    hooks: Sequence[Hook] = (),
    first_sight: Callable[[Observation], None] | None = None,
) -> EpisodeRecord:
    """Reset the env to ``key`` exactly, close the loop until it ends, and say how it went.

    Args:
        env: an env of ``key.task`` and ``key.embodiment``.
        policy: bare; chunk execution, ablation and safety envelope are added here.
        suite: name for the record.
        key: seed, variant, wording and ablation.
        execution_horizon: steps of each chunk to run before replanning.
        execution: what the arm does while the policy thinks (``vla.control.chunks.EXECUTIONS``).
        latency_s: how long that takes on the simulator's clock, one question after the other; the episode
            says where in it it begins.
        safety: limits of the envelope.
        max_steps: guard against an env without a time limit of its own.
        hooks: recorders that watch the loop.
        first_sight: told once what the policy is shown and told first, ablation included.

    Raises:
        ContractError, IncompatibleError: the policy must not drive this arm; the env was not touched.
    """
    check_contract(policy, env.embodiment)
    seen = DeprivedPolicy(policy, key.ablation, env.embodiment, key.seed, first_sight)
    options = {"variant": key.variant, "wording": key.wording}
    if key.ablation in PERTURBATIONS:
        options["perturbation"] = key.ablation
    robot = SimRobot(env, seed=key.seed, options=options)
    envelope = SafetyEnvelope.of(robot, safety)
    probe = Probe()
    result = run_loop(
        robot,
        ChunkExecutor(
            seen,
            execution_horizon,
            execution=execution,
            thinking=Replayed(latency_s, (key.seed, zlib.crc32(f"{key.task}/{key.embodiment}".encode()))),
            hold=holding(envelope),
        ),
        envelope,
        max_steps=max_steps,
        hooks=(probe, *hooks),
    )
    latency = probe.latency_s or [0.0]
    return EpisodeRecord(
        suite=suite,
        key=key,
        instruction=probe.instruction,
        success=result.success,
        wrong=result.wrong,
        steps=result.steps,
        time_to_success_s=result.steps / env.embodiment.control_hz if result.success else None,
        latency_mean_s=float(np.mean(latency)),
        latency_p95_s=float(np.percentile(latency, 95)),
        safety={**envelope.counts, **probe.env_clipped},
        target_error_t0_m=probe.target_error_t0_m,
        goal_error_t0_m=probe.goal_error_t0_m,
        target_error_m={
            phase: float(np.mean(values)) for phase, values in sorted(probe.target_error_m.items())
        },
        unknown_words=tuple(probe.unknown_words),
        head=probe.head,
        actions=probe.digest.hexdigest()[:16] if seen.took else "",
        unfamiliar={name: n / len(probe.latency_s) for name, n in sorted(probe.unfamiliar.items())},
    )


@dataclass
class Probe:
    """Hook that measures the policy: its latency, and how far off it thinks target and goal are.

    Only steps at which the policy was asked count; its estimates are compared with ``Observation.aux``,
    which it is not shown. Besides: the words it does not know, the entries of the state that it says lie far
    outside its statistics, a digest of what was executed, and the steps whose action the env clipped once
    more (none, behind an envelope that knows the ranges).
    """

    instruction: str = ""
    latency_s: list[float] = field(default_factory=list)
    target_error_t0_m: float | None = None
    goal_error_t0_m: float | None = None
    target_error_m: dict[str, list[float]] = field(default_factory=dict)
    unknown_words: list[str] = field(default_factory=list)
    env_clipped: dict[str, int] = field(default_factory=dict)
    head: str = ""
    unfamiliar: Counter[str] = field(default_factory=Counter)
    digest: Any = field(default_factory=hashlib.sha256)

    def started(self, reading: Reading) -> None:
        self.instruction = reading.observation.instruction

    def ticked(self, tick: Tick) -> None:
        self.digest.update(tick.safe.action.tobytes())
        if "clipped" in tick.reading.info:
            steps = self.env_clipped.get(ENV_CLIPPED, 0)
            self.env_clipped[ENV_CLIPPED] = steps + bool(tick.reading.info["clipped"])
        if tick.chunk is None or not tick.chunk.info["replanned"]:
            return
        self.latency_s.append(float(tick.chunk.info["latency_s"]))
        self.head = str(tick.chunk.info.get("head", ""))
        self.unfamiliar.update(tick.chunk.info.get("unfamiliar", ()))
        words = tick.chunk.info.get("unknown_words", ())
        self.unknown_words += [word for word in words if word not in self.unknown_words]
        target = localisation_error(tick.observation, tick.chunk, "target_position")
        if tick.index == 0:
            self.target_error_t0_m = target
            self.goal_error_t0_m = localisation_error(tick.observation, tick.chunk, "goal_position")
        phase = tick.observation.aux.get("phase")
        if target is not None and phase is not None and np.isfinite(phase).all():
            self.target_error_m.setdefault(str(int(np.ravel(phase)[0])), []).append(target)


def localisation_error(observation: Observation, chunk: ActionChunk, name: str) -> float | None:
    """Distance in m between the policy's estimate and the truth; None where either is missing."""
    if name not in chunk.info or name not in observation.aux:
        return None
    distance = float(np.linalg.norm(np.asarray(chunk.info[name]) - np.asarray(observation.aux[name])))
    return distance if np.isfinite(distance) else None
