"""``vla eval cards``: why episodes failed, by going on from their middle under something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.cli.flags import parse, policy_spec


@dataclass(frozen=True, kw_only=True)
class CardsFlags:
    """Explain failures of an evaluation, and write its report anew with a card for each.

    Args:
        run: run directory that vla eval wrote.
        count: how many failures, one of each task and arm before a second of any.
        other: another policy to go on with, as for vla eval --policy.
        demos: data sets that the policy was trained on, to show the episodes nearest to each failure.
    """

    run: tyro.conf.Positional[Path]
    count: int = 3
    other: str | None = None
    demos: tuple[Path, ...] = ()


def run_cards(argv: Sequence[str]) -> int:
    flags = parse(CardsFlags, "eval cards", argv)
    from vla.data.mixture import SourceConfig, open_sources
    from vla.eval.cards import make_cards
    from vla.report.page import write_report

    sources = open_sources([SourceConfig(path=str(path)) for path in flags.demos]) if flags.demos else []
    try:
        other = None if flags.other is None else policy_spec(flags.other)
        cards = make_cards(flags.run, count=flags.count, other=other, demonstrations=sources)
    finally:
        for source in sources:
            source.close()
    if not cards:
        print("No episode failed (crashes are not explained).")
    for card in cards:
        if not card.reproduced:
            print(f"{card.key.label}: the replay ended otherwise; nothing else was tried.")
            continue
        last = card.last_chance
        when = "never" if last is None else f"until {last / card.control_hz:.1f} s"
        done = [branch.name for branch in card.branches if branch.success]
        print(
            f"{card.key.label}: possible {when}; done, from there or before, by: {', '.join(done) or 'none'}"
        )
    print(f"report:  {write_report(flags.run)}")
    return 0
