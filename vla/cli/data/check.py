"""``vla data check``: what is wrong with demonstrations, as a table, a page and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import parse

if TYPE_CHECKING:
    from vla.data.check import Report
    from vla.data.source import EpisodeSource

_SHOWN = 120  # characters of an example


@dataclass(frozen=True, kw_only=True)
class Check(Demonstrations):
    """Look for faults; exit code 1 where there is one at or above --fail-on, 2 where PATH cannot be opened.

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
    from vla.data.check import CheckConfig, check, not_opened
    from vla.data.store import EpisodeStore
    from vla.errors import DatasetError, StoreError
    from vla.text import counted, wrapped

    try:
        source = flags.open_to_look(tolerate_damage=True)
    except (DatasetError, StoreError) as error:
        _write(flags, not_opened(flags.path, error), None)
        raise
    report = check(source, CheckConfig(frames=flags.frames), progress=sys.stderr.isatty())
    if report.findings:
        _print_findings(report)
    counts = report.to_json()["counts"]
    said = ", ".join(counted(n, severity) for severity, n in counts.items()) or "no faults"
    pictures = sum(info.length * len(source.cameras(info.index)) for info in source.episodes)
    print(
        f"{flags.path}: {counted(report.num_episodes, 'episode')}, {counted(report.num_steps, 'step')}, "
        f"looked at {report.num_frames_read} of {counted(pictures, 'picture')}: {said}"
    )
    for reason, kinds in _by_reason(report.left_out).items():
        print(wrapped(f"not looked for: {', '.join(kinds)} (this takes {reason})"))
    if flags.frames == "sampled" and report.num_frames_read < pictures:
        more = "; 'vla data verify' reads every byte" if isinstance(source, EpisodeStore) else ""
        print(f"--frames all looks at every picture{more}")
    _write(flags, report, source)
    source.close()
    return int(bool(report.at_least(flags.fail_on)))


def _print_findings(report: Report) -> None:
    """A row a kind, and what can be done about each."""
    from vla.data.check import KINDS
    from vla.text import text_table, wrapped

    rows = [[*row[:4], _cut(row[4])] for row in report.rows()]
    widest = max(len(row[4]) for row in rows)
    rows = [[*row[:4], row[4].ljust(widest)] for row in rows]
    header = ["kind", "severity", "count", "episodes", "for example".ljust(widest)]
    print(text_table(header, rows))
    if any(len(row[4]) > _SHOWN for row in report.rows()):
        print(f"(examples are cut at {_SHOWN} characters: --html and --json write them whole)")
    print()
    for kind in report.kinds:
        print(wrapped(f"to mend {kind}: {KINDS[kind].remedy}"))
    print()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _write(flags: Check, report: Report, source: EpisodeSource | None) -> None:
    """The files that were asked for."""
    from vla.files import write_json
    from vla.report.data_page import write_check_page

    if flags.json is not None:
        write_json(flags.json, report.to_json())
        print(f"findings: {flags.json}")
    if flags.html is not None:
        print(f"page: {write_check_page(report, source, flags.html)}")


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    """Kinds that were not looked for, by what that would take."""
    from vla.data.undescribed import NEEDS_MEANING

    found: dict[str, list[str]] = {}
    for kind, reason in left_out.items():
        takes = "knowing what columns mean" if reason == NEEDS_MEANING.get(kind) else reason
        found.setdefault(takes, []).append(kind)
    return found
