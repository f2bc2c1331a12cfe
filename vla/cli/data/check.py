"""``vla data check``: what is wrong with demonstrations, as a table, a page and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import parse


@dataclass(frozen=True, kw_only=True)
class Check(Demonstrations):
    """Look for faults; exit code 1 where there is one at or above --fail-on.

    Args:
        html: write a page with a picture of each sort of finding.
        json: write all findings, for programs.
        fail_on: the mildest severity that gives exit code 1.
        frames: look at a few pictures of each camera and episode, at all (slow), or at none.
    """

    html: Path | None = None
    json: Path | None = None
    fail_on: Literal["error", "warning", "note"] = "error"
    frames: Literal["sampled", "all", "none"] = "sampled"


def run_check(argv: Sequence[str]) -> int:
    flags = parse(Check, "data check", argv)
    from vla.data.check import CheckConfig, check
    from vla.data.store import EpisodeStore
    from vla.files import write_json
    from vla.report.data_page import write_check_page
    from vla.text import text_table, wrapped

    source = flags.open_to_look(tolerate_damage=True)
    report = check(source, CheckConfig(frames=flags.frames), progress=sys.stderr.isatty())
    if report.findings:
        rows = [[*row[:4], row[4] if len(row[4]) < 120 else row[4][:117] + "..."] for row in report.rows()]
        widest = max(len(row[4]) for row in rows)
        rows = [[*row[:4], row[4].ljust(widest)] for row in rows]
        header = ["kind", "severity", "count", "episodes", "for example".ljust(widest)]
        print(text_table(header, rows) + "\n")
    counts = report.to_json()["counts"]
    said = ", ".join(f"{n} {severity}{'s' if n > 1 else ''}" for severity, n in counts.items()) or "no faults"
    pictures = sum(info.length * len(source.cameras(info.index)) for info in source.episodes)
    print(
        f"{flags.path}: {report.num_episodes} episodes, {report.num_steps} steps, looked at "
        f"{report.num_frames_read} of {pictures} pictures: {said}"
    )
    if report.left_out:
        print(wrapped(f"not looked for: {', '.join(report.left_out)} (they take knowing what columns mean)"))
    if flags.frames == "sampled" and report.num_frames_read < pictures:
        more = "; 'vla data verify' reads every byte" if isinstance(source, EpisodeStore) else ""
        print(f"--frames all looks at every picture{more}")
    if flags.json is not None:
        write_json(flags.json, report.to_json())
        print(f"findings: {flags.json}")
    if flags.html is not None:
        print(f"page: {write_check_page(report, source, flags.html)}")
    source.close()
    return int(bool(report.at_least(flags.fail_on)))
