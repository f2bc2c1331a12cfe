"""``vla eval compare``: two judged policies on the episodes that both ran."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.cli.flags import parse


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare two evaluations episode by episode: the same scene, instruction and start for both.

    Exit code 1 where B is worse, with ``--check``.

    Args:
        a, b: run directories that vla eval wrote.
        out: JSON file to write besides.
        check: exit with 1 where B is significantly worse than A, overall or in a task: for CI.
    """

    a: tyro.conf.Positional[Path]
    b: tyro.conf.Positional[Path]
    out: Path | None = None
    check: bool = False


def run_compare(argv: Sequence[str]) -> int:
    flags = parse(Compare, "eval compare", argv)
    from vla.eval.compare import compare_runs
    from vla.files import write_text

    comparison = compare_runs(flags.a, flags.b)
    print(comparison.text())
    if flags.out is not None:
        write_text(flags.out, json.dumps(comparison.to_json(), indent=1) + "\n")
    return int(flags.check and comparison.b_is_worse)
