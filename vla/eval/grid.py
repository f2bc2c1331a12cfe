"""What an evaluation runs: its configuration, and the grid of episodes that follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, get_args

from vla.control.chunks import Execution
from vla.control.latency import checked_trace
from vla.control.safety import SafetyConfig
from vla.errors import ConfigError, UnknownNameError
from vla.eval.ablations import check_ablation
from vla.eval.audit import audit_arms, audit_seeds, with_arm
from vla.eval.records import EpisodeKey
from vla.files import read_json, write_json
from vla.interfaces import (
    TRAIN_SEED,
    AuditForm,
    Engine,
    Suite,
    Variant,
    Wording,
    tasks_of,
    variants_of,
    wordings_of,
)

_WEIGHTS = "policy_weights_sha256"
_REMEDY = "Remove it and run 'vla eval' again with the settings it held: finished episodes are kept."

#: Fields of the configuration that do not change what an episode does.
_INCIDENTAL = (
    "workers",
    "engine",
    "cluster",
    "videos_per_cell",
    "failure_videos_per_cell",
    "max_errors",
    "record",
)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """An evaluation.

    Args:
        suite: registered suite.
        policy: ``expert``, ``zero``, ``random``, ``learned:PATH`` (see ``PolicySpec``).
        tasks, embodiments: empty for all of the suite's.
        first_seed, num_seeds: the held-out seeds of every cell.
        variants: ``base`` and/or ``swapped`` (same scene, another feasible instruction).
        wordings: ``train`` and/or ``heldout`` phrasings.
        ablations: ``none`` and/or what is taken from the policy or changed under it
            (``vla.eval.ablations``); run on the first variant and wording only.
        audit: arms of the grounding audit that are run besides: none, a few on some of the seeds, or all on
            all (``vla.eval.audit``).
        execution_horizon: steps of each chunk to run before replanning; None takes the policy's own.
        execution: what the arm does while the policy thinks (``vla.control.chunks.EXECUTIONS``).
        latency_s: how long that takes, one question after the other; empty: no time passes.
        image_size: camera pixels; None takes the policy's own, or the suite's default.
        detailed: the suite's detailed looks of the arms (the suite must have them).
        safety: limits of the envelope.
        batch: episodes that a worker runs side by side and asks the policy about in one batch; None: 1
            (a batch changes the last bit of what is computed, so it belongs to what an episode is).
        workers: processes; 0 runs in this one.
        engine: ``processes`` of this machine, or ``ray``.
        cluster: address of a running Ray cluster (``auto``, ``host:6379``); empty: one on this machine.
        videos_per_cell: how many first episodes of each cell and condition to film.
        failure_videos_per_cell: how many failures to film besides.
        max_errors: crashed episodes after which something is wrong with the set-up, and the run stops.
        record: episode store that every episode run is added to (made if missing); empty: none.
    """

    suite: str = "tabletop"
    policy: str = "expert"
    tasks: tuple[str, ...] = ()
    embodiments: tuple[str, ...] = ()
    first_seed: int = 0
    num_seeds: int = 25
    variants: tuple[Variant, ...] = ("base",)
    wordings: tuple[Wording, ...] = ("train",)
    ablations: tuple[str, ...] = ("none",)
    audit: AuditForm = "off"
    execution_horizon: int | None = None
    execution: Execution = "sync"
    latency_s: tuple[float, ...] = ()
    image_size: int | None = None
    detailed: bool = False
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    batch: int | None = None
    workers: int = 2
    engine: Engine = "processes"
    cluster: str = ""
    videos_per_cell: int = 0
    failure_videos_per_cell: int = 1
    max_errors: int = 10
    record: str = ""

    def __post_init__(self) -> None:
        if self.num_seeds < 1 or self.first_seed < 0:
            raise ConfigError(
                f"Seeds {self.first_seed} and {self.num_seeds} more: expected at least one, from 0."
            )
        if self.first_seed + self.num_seeds > TRAIN_SEED:
            raise ConfigError(
                f"Seeds {self.first_seed} .. {self.first_seed + self.num_seeds - 1} reach into those of "
                f"demonstrations, which begin at {TRAIN_SEED}: choose smaller ones."
            )
        horizon = 1 if self.execution_horizon is None else self.execution_horizon
        if self.workers < 0 or horizon < 1 or self.max_errors < 1:
            raise ConfigError(
                f"workers={self.workers} (>= 0), execution_horizon={self.execution_horizon} (>= 1), "
                f"max_errors={self.max_errors} (>= 1): one is out of range."
            )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; episodes side by side are counted from 1.")
        if self.record and (self.batch or 1) > 1:
            raise ConfigError("An episode store is written by one episode at a time: record with batch 1.")
        if self.engine not in get_args(Engine):
            raise UnknownNameError("engine of the workers", self.engine, get_args(Engine))
        if self.engine == "ray" and (self.workers < 1 or self.record):
            raise ConfigError("Ray's workers are processes, elsewhere: workers >= 1, and no store (record).")
        if self.cluster and self.engine != "ray":
            raise ConfigError(f"The cluster {self.cluster!r} is one of Ray's: engine must be 'ray'.")
        if not self.ablations:
            raise ConfigError("EvalConfig.ablations is empty; ('none',) takes nothing away.")
        for name in self.ablations:
            check_ablation(name)
        if self.execution not in get_args(Execution):
            raise UnknownNameError("execution", self.execution, get_args(Execution))
        checked_trace(self.latency_s)
        if self.audit not in get_args(AuditForm):
            raise UnknownNameError("audit", self.audit, get_args(AuditForm))
        for name, allowed in (("variants", Variant), ("wordings", Wording)):
            given = getattr(self, name)
            if not given:
                raise ConfigError(f"EvalConfig.{name} is empty; known: {get_args(allowed)}.")
            for value in given:
                if value not in get_args(allowed):
                    raise UnknownNameError(name.removesuffix("s"), str(value), get_args(allowed))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EvalConfig:
        """Strict inverse of :meth:`to_json`."""
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise UnknownNameError("evaluation setting", name, known)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        if "safety" in values:
            values["safety"] = SafetyConfig.from_json(values["safety"])
        return cls(**values)


def plan(config: EvalConfig, suite: Suite) -> list[EpisodeKey]:
    """Every episode of the evaluation; an unknown task or arm raises with the known ones.

    Seeds vary slowest inside a cell, so that an interrupted run has all conditions of its first seeds.
    """
    tasks, embodiments = tasks_of(suite, config.tasks), config.embodiments or suite.embodiments
    for kind, given, known in (
        ("arm", embodiments, suite.embodiments),
        ("variant", config.variants, variants_of(suite)),
        ("wording", config.wordings, wordings_of(suite)),
    ):
        for name in given:
            if name not in known:
                raise UnknownNameError(f"{kind} of suite {suite.name!r}", name, known)
    seeds = range(config.first_seed, config.first_seed + config.num_seeds)
    plain = (config.variants[0], config.wordings[0])
    audited, arms = audit_seeds(config.audit, config.num_seeds), audit_arms(config.audit, suite)
    keys: dict[EpisodeKey, None] = {}
    for task, arm, seed in product(tasks, embodiments, seeds):
        key = EpisodeKey(task=task, embodiment=arm, seed=seed, variant=plain[0], wording=plain[1])
        for variant, wording, ablation in product(config.variants, config.wordings, config.ablations):
            if ablation == "none" or (variant, wording) == plain:
                keys[with_arm(key, (variant, wording, ablation))] = None
        if seed - config.first_seed < audited:
            keys.update({with_arm(key, under): None for under in arms})
    return list(keys)


def remember_config(config: EvalConfig, path: Path, weights_sha256: str = "") -> None:
    """Write the (resolved) configuration beside the records; an earlier one of another kind raises.

    More seeds, tasks or arms may be added to an evaluation; what an episode is may not change, nor may
    the policy's weights under the same path.
    """
    content = {**config.to_json(), _WEIGHTS: weights_sha256}
    if path.exists():
        added = {  # earlier versions had no such
            "detailed": False,
            "execution": "sync",
            "latency_s": [],
            "batch": 1,
        }
        earlier = {**added, **read_json(path, ConfigError, _REMEDY)}
        if "safety" in earlier:  # they may have had fewer settings
            earlier["safety"] = json.loads(json.dumps(asdict(SafetyConfig.from_json(earlier["safety"]))))
        now = json.loads(json.dumps(content))
        names = [k for k in now if k not in _INCIDENTAL and k not in ("tasks", "embodiments", "num_seeds")]
        changed = [
            f"{k}: {earlier.get(k)!r} there, {now[k]!r} now" for k in names if earlier.get(k) != now[k]
        ]
        if changed:
            listing = "".join(f"\n  - {line}" for line in changed)
            raise ConfigError(f"{path.parent} holds another evaluation; choose a new folder:{listing}")
    write_json(path, content)


def recall_config(path: Path) -> EvalConfig:
    """What :func:`remember_config` wrote."""
    content = read_json(path, ConfigError, _REMEDY)
    content.pop(_WEIGHTS, None)
    try:
        return EvalConfig.from_json(content)
    except TypeError as error:
        raise ConfigError(f"{path} is damaged: {error}. {_REMEDY}") from error
