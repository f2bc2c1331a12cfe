"""``vla eval race``: two policies on the same scenes until one is shown to be better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla.cli.flags import Arms, parse, policy_spec
from vla.interfaces import Variant, Wording


@dataclass(frozen=True, kw_only=True)
class RaceFlags:
    """Run two policies side by side, a few seeds at a time, and stop as soon as one is shown to be better.

    The error rate holds whenever it stops; with the same folder it goes on where it was.

    Args:
        a, b: policies, as for vla eval --policy.
        out: folder of both evaluations and race.json.
        suite: registered suite.
        tasks: empty for all of the suite's.
        arms: empty for all of the suite's.
        episodes: held-out seeds of each task with each arm, at most.
        first_seed: the first of them.
        variant: base, or swapped (same scene, another feasible instruction).
        wording: train, or heldout.
        alpha: probability of naming a winner of two equal policies.
        round_seeds: seeds of each task with each arm between two looks.
        workers: processes; 0 runs in this one.
        quiet: no progress bar.
    """

    a: str
    b: str
    out: Path = Path("runs/race")
    suite: str = "tabletop"
    tasks: tuple[str, ...] = ()
    arms: Arms = ()
    episodes: int = 100
    first_seed: int = 0
    variant: Variant = "base"
    wording: Wording = "train"
    alpha: float = 0.05
    round_seeds: int = 5
    workers: int = 2
    quiet: bool = False


def run_race(argv: Sequence[str]) -> int:
    flags = parse(RaceFlags, "eval race", argv)
    from dataclasses import replace

    from vla.eval.grid import EvalConfig
    from vla.eval.until import race

    a = EvalConfig(
        suite=flags.suite,
        policy=policy_spec(flags.a),
        tasks=flags.tasks,
        embodiments=flags.arms,
        first_seed=flags.first_seed,
        num_seeds=flags.episodes,
        variants=(flags.variant,),
        wordings=(flags.wording,),
        workers=flags.workers,
    )
    ended = race(
        a,
        replace(a, policy=policy_spec(flags.b)),
        flags.out,
        alpha=flags.alpha,
        round_seeds=flags.round_seeds,
        progress=not flags.quiet,
    )
    print(ended.text())
    return 0
