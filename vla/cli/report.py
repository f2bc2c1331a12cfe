"""``vla report``: the HTML page of an evaluation, from its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.cli.flags import parse


@dataclass(frozen=True)
class Report:
    """Write the HTML report of an evaluation again.

    Args:
        run_dir: directory that vla eval wrote.
    """

    run_dir: tyro.conf.Positional[Path]


def run(argv: Sequence[str]) -> int:
    flags = parse(Report, "report", argv)
    from vla.eval.evaluate import load_summary
    from vla.eval.latency import is_study, load_study
    from vla.report.latency import write_latency_report
    from vla.report.page import write_report
    from vla.report.tables import summary_text

    if is_study(flags.run_dir):
        print(load_study(flags.run_dir).text())
        print(f"\nreport: {write_latency_report(flags.run_dir)}")
        return 0
    _, _, summary = load_summary(flags.run_dir)
    print(summary_text(summary))
    print(f"\nreport: {write_report(flags.run_dir)}")
    return 0
