"""Evaluations that stop as soon as they have said enough, at an error rate that holds whenever they stop.

Seeds are run in rounds, each round under every cell, so that what has been seen at any look is the same
mixture of tasks and arms as the whole. A run that is stopped and called again ends at the same place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vla.errors import ConfigError
from vla.eval.compare import compare_runs
from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.eval.paired import Pairs
from vla.eval.sequential import StopRule, Verdict, anytime_interval, evidence
from vla.eval.summary import Summary
from vla.files import read_json, write_json

#: Seeds of every cell between two looks.
ROUND = 5
STOPPED = "stopped.json"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A success rate, and how well it was known when the run ended.

    Args:
        rate: under the first condition, over all cells.
        low, high: interval that holds whenever one stops (wider than Wilson's, which does not).
        half_width: what was asked for.
        alpha: probability that the interval misses, over all looks together.
        seeds: of every cell, that were run; of how many at most.
    """

    rate: Rate
    low: float
    high: float
    half_width: float
    alpha: float
    seeds: int
    most: int

    @property
    def met(self) -> bool:
        return self.high - self.low <= 2 * self.half_width

    def text(self) -> str:
        """One sentence."""
        found = f"{100 * self.rate.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        asked = f"plus or minus {100 * self.half_width:g} points"
        how = f"known to {asked}" if self.met else f"not yet known to {asked}: raise --episodes"
        return (
            f"{found} at any time (n={self.rate.n}), {how}; {self.seeds} of at most {self.most} seeds a cell."
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate.to_json(), "met": self.met}


def evaluate_until(
    config: EvalConfig,
    out: str | Path,
    *,
    half_width: float,
    alpha: float = 0.05,
    round_seeds: int = ROUND,
    progress: bool = True,
) -> tuple[Summary, Known]:
    """Run seeds of every cell, at most ``config.num_seeds``, until the success rate is known well enough.

    Writes ``stopped.json`` beside what :func:`~vla.eval.evaluate.evaluate` writes.

    Args:
        half_width: well enough is to plus or minus this.
        alpha: probability that the interval misses, over all looks together.
        round_seeds: seeds of every cell between two looks.

    Raises:
        ConfigError: a width or a probability outside its range; what ``evaluate`` raises.
    """
    rule = _rule(alpha=alpha, half_width=half_width)
    if not half_width:
        raise ConfigError("half_width is 0: no number of episodes knows a rate exactly; e.g. 0.03.")
    for seeds in _rounds(config.num_seeds, round_seeds):
        summary = evaluate(replace(config, num_seeds=seeds), out, progress=progress)
        rate = next(iter(summary.overall.values())).success
        low, high = anytime_interval(rate.successes, rate.n, 1 - alpha)
        asked = {"half_width": half_width, "alpha": alpha, "most": config.num_seeds}
        known = Known(rate=rate, low=low, high=high, seeds=seeds, **asked)
        if rule.known(rate.successes, rate.n):
            break
    write_json(Path(out) / STOPPED, known.to_json())
    return summary, known


def stopped_text(out: str | Path) -> str:
    """What :func:`evaluate_until` left beside an evaluation, in words; empty where nothing did."""
    path = Path(out) / STOPPED
    if not path.exists():
        return ""
    found = read_json(path, ConfigError, "Remove it: the records are what counts.")
    rate = Rate(found["rate"]["successes"], found["rate"]["n"])
    return Known(**{**{k: v for k, v in found.items() if k != "met"}, "rate": rate}).text()


@dataclass(frozen=True, kw_only=True)
class Race:
    """How a comparison that may stop at any time ended.

    Args:
        a, b: the policies, as they were named.
        verdict: who is better, or that it could not be told.
        pairs: under the first condition, of the episodes that both ran.
        alpha: probability of naming a winner of two equal policies, over all looks together.
        seeds: of every cell, that were run; of how many at most.
    """

    a: str
    b: str
    verdict: Verdict
    pairs: Pairs
    alpha: float
    seeds: int
    most: int

    @property
    def evidence(self) -> float:
        """See :func:`vla.eval.sequential.evidence`; 1 / alpha names a winner."""
        return evidence(self.pairs.only_a, self.pairs.only_b)

    def text(self) -> str:
        """What was seen, and what it says."""
        pairs, n = self.pairs, self.pairs.n
        rates = [Rate(pairs.both + only, n).value for only in (pairs.only_a, pairs.only_b)]
        lines = [
            f"A: {self.a}: {100 * rates[0]:.1f} %",
            f"B: {self.b}: {100 * rates[1]:.1f} %",
            f"{n} episodes run by both ({self.seeds} of at most {self.most} seeds a cell): only A "
            f"{pairs.only_a}, only B {pairs.only_b}.",
            f"Evidence {self.evidence:.3g}; {1 / self.alpha:.3g} names a winner, wrongly in at most "
            f"{100 * self.alpha:g} % of races between equals.",
        ]
        won = {"A": "A is better.", "B": "B is better.", "undecided": "It cannot be told yet who is better."}
        return "\n".join([*lines, won[self.verdict]])

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "pairs": self.pairs.to_json(), "evidence": self.evidence}


def race(
    a: EvalConfig,
    b: EvalConfig,
    out: str | Path,
    *,
    alpha: float = 0.05,
    round_seeds: int = ROUND,
    progress: bool = True,
) -> Race:
    """Run two policies on the same scenes, round by round, until one is shown to be better.

    Args:
        a, b: alike but for the policy.
        out: holds the evaluations ``a`` and ``b`` and ``race.json``.

    Raises:
        ConfigError: configurations that judge different things; what ``evaluate`` raises.
    """
    if replace(a, policy=b.policy) != b:
        raise ConfigError("The two configurations of a race differ in more than the policy.")
    out, rule = Path(out), _rule(alpha=alpha)
    for seeds in _rounds(a.num_seeds, round_seeds):
        for name, config in (("a", a), ("b", b)):
            evaluate(replace(config, num_seeds=seeds), out / name, progress=progress)
        pairs = next(iter(compare_runs(out / "a", out / "b").conditions.values()))
        verdict = rule.verdict(pairs)
        if verdict != "undecided":
            break
    ended = Race(
        a=a.policy, b=b.policy, verdict=verdict, pairs=pairs, alpha=alpha, seeds=seeds, most=a.num_seeds
    )
    write_json(out / "race.json", ended.to_json())
    return ended


def _rounds(most: int, size: int) -> Iterator[int]:
    """Seeds at each look: ``size``, twice that, ... and ``most``."""
    if size < 1:
        raise ConfigError(f"Seeds of a round are counted from 1: {size}.")
    yield from range(size, most, size)
    yield most


def _rule(**given: float) -> StopRule:
    try:
        return StopRule(**given)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(str(error)) from error
