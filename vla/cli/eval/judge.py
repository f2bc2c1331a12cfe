"""``vla eval``: a policy in closed loop over a grid of held-out scenes, with records and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla.cli.flags import Arms, parse, policy_spec
from vla.interfaces import AuditForm, Engine, Variant, Wording


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Judge a policy closed-loop; the same command on the same directory runs what is missing.

    Args:
        policy: default (shipped), a directory that vla train wrote, expert, random, zero, or NAME:PATH.
        head: which of the policy's action heads decides; its default if not given.
        out: run directory.
        suite: registered suite.
        tasks: or groups of them; empty for all of the suite's.
        arms: empty for all of the suite's.
        episodes: held-out seeds of each task with each arm, under each condition.
        until: stop as soon as the success rate is known to plus or minus this (0.03), whatever is left of
            the episodes; its interval holds at any time.
        first_seed: seeds first_seed .. first_seed + episodes - 1.
        variants: base, and/or swapped (same scene, another feasible instruction).
        wordings: train, and/or heldout (phrasings absent from the demonstrations).
        ablations: also run all seeds without something (blank, no_words, shuffled, frozen ...).
        audit: does it look and listen: a few arms on a fifth of the seeds (short), everything (full), or off.
        execution_horizon: steps of each chunk to run before thinking again; the policy's own if not given.
        image_size: camera height and width, px; the policy's own if not given.
        detailed: wear the detailed menagerie model of the arm, where it is on this machine.
        batch: episodes that a worker runs side by side, asking the policy about all of them at once; it
            changes the last bit of what a network computes, so a run keeps to one number.
        workers: processes; 0 runs in this one.
        engine: what runs the workers: processes of this machine, or ray (many machines).
        cluster: address of a running Ray cluster; one on this machine if not given.
        videos: first episodes of each cell and condition to film.
        failure_videos: failures of each cell and condition to film besides.
        record: episode store that every episode, successful or not, is added to (made if missing).
        quiet: no progress bar.
    """

    policy: str = "default"
    head: str | None = None
    out: Path = Path("runs/eval")
    suite: str = "tabletop"
    tasks: tuple[str, ...] = ()
    arms: Arms = ()
    episodes: int = 25
    until: float | None = None
    first_seed: int = 0
    variants: tuple[Variant, ...] = ("base",)
    wordings: tuple[Wording, ...] = ("train",)
    ablations: tuple[str, ...] = ()
    audit: AuditForm = "short"
    execution_horizon: int | None = None
    image_size: int | None = None
    detailed: bool = False
    batch: int | None = None
    workers: int = 2
    engine: Engine = "processes"
    cluster: str = ""
    videos: int = 0
    failure_videos: int = 1
    record: Path | None = None
    quiet: bool = False


def run_judge(argv: Sequence[str]) -> int:
    flags = parse(Eval, "eval", argv)
    from vla.data.recorder import check_recordable
    from vla.eval.evaluate import evaluate
    from vla.eval.grid import EvalConfig
    from vla.eval.until import evaluate_until
    from vla.report.page import write_report
    from vla.report.tables import summary_text
    from vla.text import wrapped

    if flags.record is not None:
        check_recordable(flags.record)
    config = EvalConfig(
        suite=flags.suite,
        policy=policy_spec(flags.policy, flags.head),
        tasks=flags.tasks,
        embodiments=flags.arms,
        first_seed=flags.first_seed,
        num_seeds=flags.episodes,
        variants=flags.variants,
        wordings=flags.wordings,
        ablations=("none", *flags.ablations),
        audit=flags.audit,
        execution_horizon=flags.execution_horizon,
        image_size=flags.image_size,
        detailed=flags.detailed,
        batch=flags.batch,
        workers=flags.workers,
        engine=flags.engine,
        cluster=flags.cluster,
        videos_per_cell=flags.videos,
        failure_videos_per_cell=flags.failure_videos,
        record=str(flags.record or ""),
    )
    if flags.until is None:
        summary, known = evaluate(config, flags.out, progress=not flags.quiet), None
    else:
        summary, known = evaluate_until(config, flags.out, half_width=flags.until, progress=not flags.quiet)
    print(summary_text(summary))
    if known is not None:
        print(f"\n{wrapped(known.text())}")
    print(f"\nrecords: {flags.out / 'records.jsonl'}\nreport:  {write_report(flags.out)}")
    return 0
