"""``vla eval spread``: one recipe, several training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.cli.flags import parse
from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far policies differ that one recipe trained with different seeds.

    Args:
        runs: two or more run directories that vla eval wrote, one for each training seed.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]


def run_spread(argv: Sequence[str]) -> int:
    flags = parse(Spread, "eval spread", argv)
    if len(flags.runs) < 2:
        raise ConfigError(f"{len(flags.runs)} run given: a spread takes two or more, one a training seed.")
    from vla.eval.compare import overall_rates
    from vla.eval.spread import RunSpread
    from vla.text import text_table

    rates = overall_rates(flags.runs)
    print(text_table(["run", "success"], [[str(run), str(rate)] for run, rate in rates.items()]))
    print(RunSpread.of(list(rates.values())).text())
    return 0
