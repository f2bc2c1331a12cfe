"""Judging while training: a small closed-loop evaluation with its grounding audit, every so many minutes.

A loss falls while a policy learns to ignore what it is told; the audit says so at the checkpoint at which it
begins. The scenes are not those of a later report: choosing a checkpoint by them would flatter it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vla import registry
from vla.errors import ConfigError, VlaError
from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig, plan
from vla.eval.summary import Summary
from vla.interfaces import AuditForm
from vla.report.page import write_report

FOLDER = "judged"


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """What is run at a checkpoint.

    Args:
        suite: registered suite.
        tasks, embodiments: empty for all that the policy was taught.
        episodes: scenes of each task with each arm.
        first_seed: of them; reports are best made on others.
        audit: arms besides (``vla.eval.audit``).
        every_minutes: wall time between two evaluations; the last checkpoint is always judged. Their time is
            not charged to the budget.
        workers: processes; 0 runs in the training process.
    """

    suite: str = "tabletop"
    tasks: tuple[str, ...] = ()
    embodiments: tuple[str, ...] = ()
    episodes: int = 4
    first_seed: int = 90_000
    audit: AuditForm = "short"
    every_minutes: float = 30.0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.every_minutes < float("inf"):
            raise ConfigError(
                f"Minutes between evaluations are finite and not negative: {self.every_minutes}."
            )
        self.evaluation("random")  # refuses what an evaluation refuses

    def evaluation(self, policy: str) -> EvalConfig:
        """As ``vla eval`` would run it."""
        return EvalConfig(
            suite=self.suite,
            policy=policy,
            tasks=self.tasks,
            embodiments=self.embodiments,
            first_seed=self.first_seed,
            num_seeds=self.episodes,
            audit=self.audit,
            workers=self.workers,
        )

    def check(self) -> None:
        """Raise for a suite, task or arm that is not there, before a run begins."""
        plan(self.evaluation("random"), registry.suite(self.suite))


class Judge:
    """Called at checkpoints; evaluates where it is time and returns what metrics should remember.

    Evaluations and reports lie in ``<run>/judged/<step>``. One that fails is told and costs nothing else.
    """

    def __init__(self, config: JudgeConfig, run: Path) -> None:
        self._config, self._run, self._last = config, run, time.monotonic()

    def __call__(self, policy: Path, step: int, last: bool) -> dict[str, float] | None:
        if not last and time.monotonic() - self._last < 60 * self._config.every_minutes:
            return None
        out = self._run / FOLDER / f"{step:06d}"
        try:
            # its files change under the same name at the next checkpoint, hence a folder of its own
            summary = evaluate(self._config.evaluation(f"learned:{policy}"), out, progress=False)
            report = write_report(out)
        except VlaError as error:
            tqdm.write(f"step {step}: not judged: {error}")
            return None
        finally:
            self._last = time.monotonic()
        tqdm.write(f"step {step}: {judged_text(summary)}; {report}")
        return judged_metrics(summary)


def judged_metrics(summary: Summary) -> dict[str, float]:
    """Success, episodes and grounding for a line of metrics."""
    rate = next(iter(summary.overall.values())).success
    found = {"judged/success": rate.value, "judged/episodes": float(rate.n)}
    if summary.audit is not None and summary.audit.score is not None:
        found["judged/grounding"] = summary.audit.score
        found |= {f"judged/{name}": share for name, share in (summary.audit.shares or {}).items()}
    return found


def judged_text(summary: Summary) -> str:
    """The same for people."""
    rate = next(iter(summary.overall.values())).success
    return f"success {rate}" + (f", {summary.audit.text()}" if summary.audit is not None else "")
