"""The report of a latency study: its curve, its table, and the evaluations it is made of."""

from __future__ import annotations

import html
from pathlib import Path

from vla.control.chunks import EXECUTIONS
from vla.eval.latency import load_study
from vla.report.document import section, table, write_document
from vla.report.figures import curve_chart
from vla.report.plots import legend


def write_latency_report(out: str | Path) -> Path:
    """Write ``report.html`` into the directory of a study; returns its path.

    Raises:
        ConfigError: the directory holds no study.
    """
    study = load_study(out)
    curves = [(name, curve) for name, curve in study.curves() if len({p.time_s for p in curve}) > 1]
    note = (
        "Share of episodes that succeeded, against the mean time that the policy takes for a chunk, with "
        "95 % Wilson intervals. Every point ran the same scenes."
    )
    chart = ""
    if curves:
        names = legend([name for name, _ in curves])
        drawing = curve_chart(curves, label="success against latency")
        chart = f"<p class='muted'>{note}</p>{drawing}<p class='legend'>{names}</p>"
    meant = [[name, EXECUTIONS[name]] for name in dict.fromkeys(p.execution for p in study.points)]
    subtitle = f"suite {study.suite} · asked again after {study.execution_horizon} steps"
    body = "\n".join(
        (
            f"<header><p class='kicker'>Success against latency</p><h1>{html.escape(study.policy)}</h1>"
            f"<p class='muted'>{html.escape(subtitle)}</p></header>",
            section("Success against latency", chart),
            section("Each execution beside the synchronous one", table(*study.rows())),
            section(
                "While the policy thinks", table(["execution", "what the arm does"], meant, kind="facts")
            ),
        )
    )
    title = f"{study.policy} on {study.suite}: latency"
    return write_document(Path(out) / "report.html", title=title, body=body)
