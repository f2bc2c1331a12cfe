"""``vla demo``: demonstrations by the suite's scripted experts, into an episode store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla.cli.flags import Arms, parse


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Make demonstrations with the scripted experts; the same command continues a stopped run.

    Args:
        out: episode store to create or extend.
        suite: registered suite.
        tasks: or groups of them; empty for all of the suite's.
        arms: empty for all of the suite's but those that it keeps out of training.
        episodes: successful demonstrations of each task with each arm.
        workers: processes.
        image_size: camera height and width, px.
        noise: how much what the expert does is disturbed (its label never is); 1: as the tabletop's experts
            stand it, 0: not at all.
        quiet: no progress bar.
    """

    out: Path = Path("runs/demos")
    suite: str = "tabletop"
    tasks: tuple[str, ...] = ()
    arms: Arms = ()
    episodes: int = 200
    workers: int = 2
    image_size: int = 64
    noise: float = 1.0
    quiet: bool = False


def run(argv: Sequence[str]) -> int:
    flags = parse(Demo, "demo", argv)
    from vla import registry
    from vla.data.generate import generate
    from vla.data.record import NoiseConfig
    from vla.interfaces import Cell, heldout_embodiments_of, tasks_of
    from vla.text import text_table

    suite = registry.suite(flags.suite)
    heldout = heldout_embodiments_of(suite)
    arms = flags.arms or tuple(arm for arm in suite.embodiments if arm not in heldout)
    for arm in heldout:
        so = "with these demonstrations it is no new arm" if arm in arms else "none unless it is named"
        if arm in arms or not flags.arms:
            print(f"note: {suite.name} keeps {arm} out of training: {so}.")
    report = generate(
        flags.suite,
        [Cell(task=task, embodiment=arm) for task in tasks_of(suite, flags.tasks) for arm in arms],
        flags.episodes,
        flags.out,
        image_size=flags.image_size,
        num_workers=flags.workers,
        noise=NoiseConfig().times(flags.noise),
        progress=not flags.quiet,
    )
    rows = [
        [f"{c.cell.task} / {c.cell.embodiment}", str(c.existing), str(c.added), str(c.rejected)]
        for c in report.cells
    ]
    print(text_table(["cell", "were there", "added", "rejected (expert failed)"], rows))
    print(f"\n{report.added} episodes added in {report.wall_s:.0f} s: {report.path}")
    return 0
