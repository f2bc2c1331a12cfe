"""The report of an evaluation: one HTML file with everything in it, that asks nothing of any network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.eval.curves import time_to_success
from vla.eval.evaluate import PROVENANCE, load_summary
from vla.eval.grid import EvalConfig
from vla.eval.provenance import recall_sessions
from vla.eval.records import EpisodeRecord
from vla.eval.summary import Group, Row, Summary
from vla.eval.until import stopped_text
from vla.report.cards import CARD_BYTES, failure_cards
from vla.report.document import card, section, table, write_document
from vla.report.episodes import MEDIA_BYTES, Media, clips, failures
from vla.report.figures import curve_chart, interval_chart, phase_chart
from vla.report.plots import legend
from vla.report.tables import (
    AUDIT_NOTE,
    SAFETY_NOTE,
    audit_facts,
    cm_text,
    condition_facts,
    heldout_note,
    level_facts,
    rate_text,
    safety_facts,
    success_rows,
    version_note,
)

PHASES = {"0": "approach", "1": "at target", "2": "transport", "3": "release"}


def write_report(run: str | Path) -> Path:
    """Write ``report.html`` into a run directory, from its records and videos; returns its path.

    Raises:
        EnvError: the directory holds no evaluation.
    """
    run = Path(run)
    config, records, summary = load_summary(run)
    sessions = recall_sessions(run / PROVENANCE)
    cards = failure_cards(run)
    media = Media(run / "videos", MEDIA_BYTES - (CARD_BYTES if cards else 0))
    failed = failures(records, media)  # first: they are worth more than one more success
    filmed = clips(records, media)
    body = "\n".join(
        part
        for part in (
            _head(config, summary, stopped_text(run)),
            _cards(summary),
            section("Success by task and arm", _grids(summary)),
            section("By level", table(*level_facts(summary)) if summary.by_level else ""),
            section("Grounding audit", _audit(summary, run / "sights")),
            section("With intervals", _charts(summary)),
            section("Success against time", _curves(records, summary)),
            section("By condition", _facts(summary)),
            section("Where it thinks the target is", _localisation(summary)),
            section("Safety envelope", _safety(summary)),
            section("Episodes", filmed),
            section("Failures", failed),
            section("Failure cards", cards),
            section("Made with", _made_with(config, sessions)),
        )
        if part
    )
    return write_document(run / "report.html", title=f"{summary.policy} on {summary.suite}", body=body)


def _head(config: EvalConfig, summary: Summary, stopped: str) -> str:
    last = config.first_seed + config.num_seeds - 1
    said = (stopped, heldout_note(summary), version_note(summary))
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in said if note)
    count = f"{summary.num_episodes} of {summary.num_planned} episodes"
    facts = (
        f"{count} · seeds {config.first_seed} to {last} · replanning every {config.execution_horizon} steps"
    )
    return (
        f"<header><p class='kicker'>Closed-loop evaluation</p><h1>{html.escape(summary.policy)}</h1>"
        f"<p class='muted'>suite {html.escape(summary.suite)} · {html.escape(facts)}"
        f" · rates with 95 % Wilson intervals</p>{notes}</header>"
    )


def _cards(summary: Summary) -> str:
    cards = []
    for condition, group in summary.overall.items():
        rate, (low, high) = group.success, group.success.interval
        worst = summary.worst_cell(condition)
        small = f"[{100 * low:.0f}, {100 * high:.0f}] · n={rate.n}"
        if worst is not None:
            small += f" · worst {100 * worst[1].success.value:.0f} % ({' / '.join(worst[0])})"
        cards.append(card(condition, f"{100 * rate.value:.1f} %", small))
    first = next(iter(summary.overall.values()), None)
    if first is not None:
        cards.append(card("wrong goal", f"{100 * first.wrong.value:.1f} %", rate_text(first.wrong)))
        if first.target_error_t0_m is not None:
            cards.append(card("target off at t=0", cm_text(first.target_error_t0_m), "median over episodes"))
        p95 = f"p95 {1e3 * first.latency_p95_s:.1f} ms"
        cards.append(card("policy latency", f"{1e3 * first.latency_mean_s:.1f} ms", p95))
    return f"<div class='cards'>{''.join(cards)}</div>"


def _grids(summary: Summary) -> str:
    """One colour-coded grid a condition, tasks down and arms across, with margins."""
    parts = []
    for condition in summary.conditions:
        rows = []
        for task, task_row in summary.by_task.items():
            groups = [summary.by_cell.get((task, arm), {}).get(condition) for arm in summary.by_arm]
            rows.append((task, [*groups, task_row.get(condition)]))
        margin = [row.get(condition) for row in summary.by_arm.values()]
        rows.append(("all", [*margin, summary.overall[condition]]))
        head = "".join(f"<th>{html.escape(arm)}</th>" for arm in (*summary.by_arm, "all"))
        body = "".join(
            f"<tr><th>{html.escape(name)}</th>{''.join(map(_rate_cell, groups))}</tr>"
            for name, groups in rows
        )
        parts.append(
            f"<figure><figcaption>{html.escape(condition)}</figcaption><div class='scroll'>"
            f"<table class='grid'><tr><th></th>{head}</tr>{body}</table></div></figure>"
        )
    return f"<div class='grids'>{''.join(parts)}</div>"


def _rate_cell(group: Group | None) -> str:
    if group is None or not group.success.n:
        return "<td class='none'>-</td>"
    rate, (low, high) = group.success, group.success.interval
    hue = round(8 + 122 * rate.value**2)  # red below a half, green only near all
    return (
        f'<td style="background:hsl({hue} 65% 48% / .3)"><b>{100 * rate.value:.0f} %</b>'
        f"<small>{100 * low:.0f} to {100 * high:.0f}, n={rate.n}</small></td>"
    )


def _charts(summary: Summary) -> str:
    legend = "".join(
        f"<span><i class='series{i % 4}'></i>{html.escape(c)}</span>"
        for i, c in enumerate(summary.conditions)
    )
    cells = {f"{task} / {arm}": row for (task, arm), row in summary.by_cell.items()}
    return f"<p class='legend'>{legend}</p>" + "".join(
        f"<details{' open' if opened else ''}><summary>by {title}</summary>"
        f"{interval_chart(_rates(rows, summary.conditions))}</details>"
        for title, rows, opened in (
            ("task", summary.by_task, True),
            ("arm", summary.by_arm, True),
            ("cell", cells, False),
        )
    )


def _rates(rows: Any, conditions: Sequence[str]) -> list[tuple[str, list[tuple[str, Any]]]]:
    return [
        (name, [(c, group.success) for c, group in groups.items() if group is not None])
        for name, groups in success_rows(rows, conditions)
    ]


def _facts(summary: Summary) -> str:
    header, rows = condition_facts(summary)
    return table(["", *(row[0] for row in rows)], [list(c) for c in zip(header, *rows, strict=True)][1:])


def _localisation(summary: Summary) -> str:
    curves = [(condition, dict(group.target_error_m)) for condition, group in summary.overall.items()]
    if not any(values for _, values in curves):
        return ""
    note = "Mean distance in cm between the policy's estimate of the target position and the truth, by phase."
    chart = f"<p class='muted'>{note}</p>{phase_chart(curves, PHASES)}"
    first = summary.conditions[0]

    def t0(row: Row) -> list[str]:
        group = row.get(first)
        return [cm_text(group.target_error_t0_m), cm_text(group.goal_error_t0_m)] if group else ["-", "-"]

    rows = [[f"{task} / {arm}", *t0(row)] for (task, arm), row in summary.by_cell.items()]
    cells = table([f"before the first step ({first})", "target off", "goal off"], rows)
    return f"{chart}<details><summary>by cell</summary>{cells}</details>"


def _curves(records: Sequence[EpisodeRecord], summary: Summary) -> str:
    """How success grows with the time allowed, under the conditions that take nothing from the policy."""
    plain = [c for c in summary.conditions if c in ("base", "swapped")] or summary.conditions[:1]
    curves = [(c, time_to_success([r for r in records if r.key.condition == c])) for c in plain]
    shown = [(name, curve) for name, curve in curves if len(curve) > 1]
    if not shown:
        return ""
    note = (
        "Share of the episodes that had succeeded by then, with 95 % Wilson intervals: what a shorter time "
        "limit would have made of it."
    )
    names = legend([name for name, _ in shown])
    return f"<p class='muted'>{note}</p>{curve_chart(shown)}<p class='legend'>{names}</p>"


def _audit(summary: Summary, sights: Path) -> str:
    """The score, its arms, and what the policy was shown and told under each."""
    if summary.audit is None:
        return ""
    shown = []
    for name, meaning in [
        (summary.audit.plain, "as it is"),
        *((a.name, a.meaning) for a in summary.audit.arms),
    ]:
        path = sights / f"{name.replace(' ', '-')}.jpg"
        if path.is_file():
            told = html.escape(path.with_suffix(".txt").read_text()) or "(nothing)"
            uri = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
            shown.append(
                f'<figure><img alt="first pictures" src="{uri}"><figcaption><b>{html.escape(name)}</b>: '
                f"{html.escape(meaning)}<br>“{told}”</figcaption></figure>"
            )
    note = f"<p class='muted'>{html.escape(AUDIT_NOTE)}</p>"
    pictures = f"<div class='strips'>{''.join(shown)}</div>" if shown else ""
    score = f"<p><b>{html.escape(summary.audit.text())}</b></p>"
    return f"{score}{table(*audit_facts(summary.audit))}{note}{pictures}"


def _safety(summary: Summary) -> str:
    rows = safety_facts(summary)
    note = f"<p class='muted'>{html.escape(SAFETY_NOTE)}</p>"
    return note + table(["stage", *summary.conditions], rows) if rows else ""


def _made_with(config: EvalConfig, sessions: Sequence[dict[str, Any]]) -> str:
    """Every session that ran episodes, and the settings they share."""
    rows = [
        [f"session {number} {name}" if len(sessions) > 1 else name, str(value)]
        for number, session in enumerate(sessions, start=1)
        for name, value in _flat(session)
    ]
    settings = html.escape(json.dumps(config.to_json(), indent=2))
    facts = table(["what", ""], rows, kind="facts") if rows else ""
    return f"{facts}<details><summary>settings</summary><pre>{settings}</pre></details>"


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, value in data.items():
        out += _flat(value, f"{name} ") if isinstance(value, dict) else [(prefix + name, value)]
    return out
