"""The grounding audit: does the policy look, does it listen, and what throws it off?

Every arm of the audit runs the same scenes (seeds) as the plain condition, so that each difference is paired.

The grounding score is the weakest of four shares, each held between 0 and 1, of what the plain rate S is:

- looks:   1 - S(blank) / S, what success needs the cameras for;
- hears:   1 - S(no_words) / S, what it needs the instruction for;
- follows: (S(swapped) - W(swapped)) / S, where another feasible instruction is given in the same scene: W is
  how often the goal of an instruction that nobody gave was reached. A policy that does the usual thing
  whatever it is told has S(swapped) = W(swapped) = about chance and scores 0;
- rewords: S(heldout) / S, phrasings it was never taught.

Those that were not run are left out. 1 is a policy that does all of what it can because it looks and listens.

Besides, faults are named, each on evidence that no sound policy gives (``vla.eval.faults``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.eval.ablations import DEPRIVATIONS, PERTURBATIONS, perturbations_of
from vla.eval.faults import name_faults
from vla.eval.intervals import Rate
from vla.eval.paired import Pairs
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.interfaces import AuditForm, Suite, Variant, Wording, variants_of, wordings_of

#: An arm: (variant, wording, ablation); None: that of the plain condition.
Arm = tuple[Variant | None, Wording | None, str]

_SWAPPED: Arm = ("swapped", None, "none")
_HELDOUT: Arm = (None, "heldout", "none")
_DRAWS = 2000


def audit_arms(form: AuditForm, suite: Suite) -> tuple[Arm, ...]:
    """What is run besides the plain condition.

    Args:
        form: ``short``: swapped instruction, no pictures, no words, held-out words; ``full``: everything that
            the suite can do (``perturbations``) and each camera of its ``camera_roles`` hidden by itself.
        suite: one without swapped instructions or held-out words is audited without them.
    """
    if form == "off":
        return ()
    short: tuple[Arm, ...] = (
        *((_SWAPPED,) if "swapped" in variants_of(suite) else ()),
        (None, None, "blank"),
        (None, None, "no_words"),
        *((_HELDOUT,) if "heldout" in wordings_of(suite) else ()),
    )
    if form == "short":
        return short
    roles = getattr(suite, "camera_roles", ())
    cameras = [f"no_{role}" for role in roles] if len(roles) > 1 else []
    deprived = [
        name
        for name in DEPRIVATIONS
        if name not in ("blank", "no_words") and (not name.startswith("no_") or name in cameras)
    ]
    return (*short, *((None, None, name) for name in (*deprived, *perturbations_of(suite))))


def audit_seeds(form: AuditForm, num_seeds: int) -> int:
    """How many of a cell's first seeds the arms run: a fifth (but three) in the short form, else all."""
    return {"off": 0, "short": min(num_seeds, max(3, num_seeds // 5)), "full": num_seeds}[form]


def with_arm(key: EpisodeKey, arm: Arm) -> EpisodeKey:
    """The same scene under an arm of the audit."""
    variant, wording, ablation = arm
    return EpisodeKey(
        task=key.task,
        embodiment=key.embodiment,
        variant=variant or key.variant,
        wording=wording or key.wording,
        ablation=ablation,
        seed=key.seed,
    )


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm beside the plain condition on the same scenes.

    ``success`` of the arm; ``plain`` of the plain condition on these scenes; ``pairs``: A plain, B the arm;
    ``wrong``: how often the goal of an instruction that nobody gave was reached; ``same``: in how many of
    ``known`` episodes its actions were those of the plain one to the last bit.
    """

    name: str
    meaning: str
    success: Rate
    plain: Rate
    wrong: Rate
    pairs: Pairs
    same: int
    known: int

    def to_json(self) -> dict[str, Any]:
        return {
            "meaning": self.meaning,
            "same_actions": {"episodes": self.same, "of": self.known},
            "success": self.success.to_json(),
            "plain": self.plain.to_json(),
            "wrong": self.wrong.to_json(),
            "paired": self.pairs.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All arms, the four shares and the grounding score with its 95 % bootstrap interval over scenes.

    ``faults``: what is wrong with the policy, a sentence each; none where nothing is shown to be. ``shares``
    and ``score`` are None where the plain condition never succeeds: nothing to ground.
    """

    plain: str
    arms: tuple[ArmResult, ...]
    shares: Mapping[str, float] | None
    score: float | None
    low: float | None
    high: float | None
    faults: tuple[str, ...] = ()

    @property
    def weakest(self) -> str:
        """Name of the share that decides the score; empty without one."""
        return "" if not self.shares else min(self.shares, key=lambda name: (self.shares or {})[name])

    def text(self) -> str:
        """One line: the score, and the faults where there are any."""
        return " ".join([f"{self._score_text()}.", *(f"FAULT: {fault}." for fault in self.faults)])

    def _score_text(self) -> str:
        if self.shares is None or self.score is None or self.low is None or self.high is None:
            return "grounding: nothing to say, the policy never succeeds"
        parts = ", ".join(f"{name} {share:.2f}" for name, share in self.shares.items())
        bounds = f"[{self.low:.2f}, {self.high:.2f}]"
        return f"grounding {self.score:.2f} {bounds}, decided by '{self.weakest}' ({parts})"

    def to_json(self) -> dict[str, Any]:
        return {
            "plain": self.plain,
            "score": self.score,
            "low": self.low,
            "high": self.high,
            "shares": None if self.shares is None else dict(self.shares),
            "faults": list(self.faults),
            "arms": {arm.name: arm.to_json() for arm in self.arms},
        }


def audit(records: Sequence[EpisodeRecord], *, seed: int = 0) -> Audit | None:
    """The audit of an evaluation's records; None where no arm was run beside the plain condition.

    The plain condition is the first record's variant and wording without ablation. Scenes are those that both
    ran. Crashed episodes count as failures.
    """
    by_key = {record.key: record for record in records}
    plain = next((r.key for r in records if r.key.ablation == "none"), None)
    if plain is None:
        return None
    conditions: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        base = _plain_key(record.key, plain)
        if record.key != base and base in by_key:
            conditions.setdefault(record.key.condition, []).append(record)
    if not conditions:
        return None
    arms = tuple(_arm(name, found, by_key, plain) for name, found in conditions.items())
    said = (plain.variant, plain.wording)
    same = {
        found[0].key.ablation: (arm.same, arm.known)
        for found, arm in zip(conditions.values(), arms, strict=True)
        if (found[0].key.variant, found[0].key.wording) == said
    }
    shares = _shares(_table(conditions, by_key, plain))
    intervals = {} if shares is None else _intervals(conditions, by_key, plain, seed)
    low, high = intervals.get("", (None, None))
    return Audit(
        plain=plain.condition,
        arms=arms,
        shares=shares,
        score=None if shares is None else min(shares.values()),
        low=low,
        high=high,
        faults=name_faults(
            same=same,
            shares=shares or {},
            intervals=intervals,
            plain=[record for record in records if record.key == _plain_key(record.key, plain)],
        ),
    )


def _plain_key(key: EpisodeKey, plain: EpisodeKey) -> EpisodeKey:
    return with_arm(key, (plain.variant, plain.wording, "none"))


def _arm(
    name: str,
    found: Sequence[EpisodeRecord],
    by_key: Mapping[EpisodeKey, EpisodeRecord],
    plain: EpisodeKey,
) -> ArmResult:
    beside = [by_key[_plain_key(record.key, plain)] for record in found]
    key = found[0].key
    meaning = {**DEPRIVATIONS, **PERTURBATIONS}.get(key.ablation, "")
    if not meaning:
        meaning = "another feasible instruction in the same scene, scored on that one"
        meaning = meaning if key.variant != plain.variant else "phrasings it was never taught"
    digests = [(r, other) for r, other in zip(found, beside, strict=True) if r.actions and other.actions]
    return ArmResult(
        name=name,
        meaning=meaning,
        success=Rate.of(r.success for r in found),
        plain=Rate.of(r.success for r in beside),
        wrong=Rate.of(r.wrong for r in found),
        pairs=Pairs.of([r.success for r in beside], [r.success for r in found]),
        same=sum(r.actions == other.actions for r, other in digests),
        known=len(digests),
    )


#: share -> (success of the arm, wrong goals in the arm, plain success), numbers of episodes, by scene
_Table = Mapping[str, np.ndarray]


def _table(
    conditions: Mapping[str, Sequence[EpisodeRecord]],
    by_key: Mapping[EpisodeKey, EpisodeRecord],
    plain: EpisodeKey,
) -> _Table:
    """float [n 3] of every arm that a share is made of: success, wrong goal, plain success, by scene."""
    table = {}
    for found in conditions.values():
        name = _share_of(found[0].key, plain)
        if name:
            table[name] = np.array(
                [[r.success, r.wrong, by_key[_plain_key(r.key, plain)].success] for r in found], float
            )
    return table


def _share_of(key: EpisodeKey, plain: EpisodeKey) -> str:
    """The share that an arm decides; empty where none."""
    if key.ablation != "none":
        same = (key.variant, key.wording) == (plain.variant, plain.wording)
        return {"blank": "looks", "no_words": "hears"}.get(key.ablation, "") if same else ""
    if key.wording == plain.wording:
        return "follows"
    return "rewords" if key.variant == plain.variant else ""


_SHARES: Mapping[str, Callable[[float, float, float], float]] = {
    "looks": lambda success, wrong, plain: 1 - success / plain,
    "hears": lambda success, wrong, plain: 1 - success / plain,
    "follows": lambda success, wrong, plain: (success - wrong) / plain,
    "rewords": lambda success, wrong, plain: success / plain,
}


def _shares(table: _Table) -> dict[str, float] | None:
    """None where the plain condition never succeeds on the scenes of an arm, or no arm decides a share."""
    found = {}
    for name, share in _SHARES.items():
        if name not in table:
            continue
        success, wrong, plain = table[name].mean(axis=0)
        if plain <= 0:
            return None
        found[name] = float(np.clip(share(success, wrong, plain), 0, 1))
    return found or None


def _intervals(
    conditions: Mapping[str, Sequence[EpisodeRecord]],
    by_key: Mapping[EpisodeKey, EpisodeRecord],
    plain: EpisodeKey,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Of each share, and of the score under the empty name: percentile bootstrap, the scenes of each arm are
    drawn anew, with their plain outcomes.
    """
    rng, table = np.random.default_rng(seed), _table(conditions, by_key, plain)
    drawn: dict[str, list[float]] = {name: [] for name in ("", *table)}
    for _ in range(_DRAWS):
        rows = {name: rows[rng.integers(len(rows), size=len(rows))] for name, rows in table.items()}
        shares = _shares(rows)
        drawn[""].append(0.0 if shares is None else min(shares.values()))
        for name in table if shares is not None else ():
            drawn[name].append((shares or {})[name])
    bounds = {name: np.quantile(values or [0.0, 1.0], (0.025, 0.975)) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
