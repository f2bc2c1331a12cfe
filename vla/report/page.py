"""The report of an evaluation: one HTML file with everything in it, that asks nothing of any network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.eval.evaluate import PROVENANCE, load_summary
from vla.eval.grid import EvalConfig
from vla.eval.provenance import recall_sessions
from vla.eval.records import EpisodeRecord
from vla.eval.summary import Group, Row, Summary
from vla.report.document import card, section, table, write_document
from vla.report.figures import film_strip, interval_chart, jpeg_uri, mp4_uri, phase_chart
from vla.report.tables import (
    AUDIT_NOTE,
    SAFETY_NOTE,
    audit_facts,
    cm_text,
    condition_facts,
    rate_text,
    safety_facts,
    success_rows,
    version_note,
)
from vla.report.video import CAPTION_PX, read_frames

#: Embedded pictures and videos together stay below this, so that the page can be sent by mail.
MEDIA_BYTES = 8_000_000
MAX_CLIPS, MAX_FAILURES = 12, 16
PHASES = {"0": "approach", "1": "at target", "2": "transport", "3": "release"}


def write_report(run: str | Path) -> Path:
    """Write ``report.html`` into a run directory, from its records and videos; returns its path.

    Raises:
        EnvError: the directory holds no evaluation.
    """
    run = Path(run)
    config, records, summary = load_summary(run)
    sessions = recall_sessions(run / PROVENANCE)
    media = _Media(run / "videos", MEDIA_BYTES)
    failures = _failures(records, media)  # first: they are worth more than one more success
    clips = _clips(records, media)
    body = "\n".join(
        part
        for part in (
            _head(config, summary),
            _cards(summary),
            section("Success by task and arm", _grids(summary)),
            section("Grounding audit", _audit(summary, run / "sights")),
            section("With intervals", _charts(summary)),
            section("By condition", _facts(summary)),
            section("Where it thinks the target is", _localisation(summary)),
            section("Safety envelope", _safety(summary)),
            section("Episodes", clips),
            section("Failures", failures),
            section("Made with", _made_with(config, sessions)),
        )
        if part
    )
    return write_document(run / "report.html", title=f"{summary.policy} on {summary.suite}", body=body)


@dataclass
class _Media:
    """Embeds files until the budget is spent."""

    folder: Path
    left: int

    def clip(self, name: str) -> str:
        """A video element; empty where the file is missing or too large for what is left."""
        path = self.folder / name
        if not name or not path.is_file() or path.stat().st_size * 4 // 3 > self.left:
            return ""
        uri = mp4_uri(path)
        self.left -= len(uri)
        return f'<video controls loop muted playsinline preload="metadata" src="{uri}"></video>'

    def strip(self, name: str) -> str:
        """A film strip of a video as an image element; empty as above."""
        path = self.folder / name
        if not name or not path.is_file():
            return ""
        uri = jpeg_uri(film_strip([frame[:-CAPTION_PX] for frame in read_frames(path)]))
        if len(uri) > self.left:
            return ""
        self.left -= len(uri)
        return f'<img class="strip" alt="film strip" src="{uri}">'


def _head(config: EvalConfig, summary: Summary) -> str:
    last, note = config.first_seed + config.num_seeds - 1, version_note(summary)
    count = f"{summary.num_episodes} of {summary.num_planned} episodes"
    facts = (
        f"{count} · seeds {config.first_seed} to {last} · replanning every {config.execution_horizon} steps"
    )
    return (
        f"<header><p class='kicker'>Closed-loop evaluation</p><h1>{html.escape(summary.policy)}</h1>"
        f"<p class='muted'>suite {html.escape(summary.suite)} · {html.escape(facts)}"
        f" · rates with 95 % Wilson intervals</p>{f'<p>{html.escape(note)}</p>' if note else ''}</header>"
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


def _clips(records: Sequence[EpisodeRecord], media: _Media) -> str:
    """Filmed successes: first one of each task and condition, then more as the budget allows."""
    filmed = [r for r in records if r.success and r.video]
    chosen = _spread(filmed, lambda r: (r.key.task, r.key.condition))[:MAX_CLIPS]
    return _figures([(record, media.clip(record.video)) for record in chosen], "clips")


def _failures(records: Sequence[EpisodeRecord], media: _Media) -> str:
    failed = [r for r in records if not r.success]
    if not failed:
        return "<p>None.</p>" if records else ""
    filmed = _spread([r for r in failed if r.video], lambda r: (r.key.task, r.key.embodiment))[:MAX_FAILURES]
    strips = _figures([(record, _strip_and_clip(record, media)) for record in filmed], "strips")
    wrong, crashed = sum(r.wrong for r in failed), sum(bool(r.error) for r in failed)
    text = f"{len(failed)} episodes failed; {wrong} met the goal of another instruction; {crashed} crashed."
    rows = [
        [r.key.task, r.key.embodiment, r.key.condition, str(r.key.seed), r.instruction, _fate(r)]
        for r in failed[:200]
    ]
    listing = table(["task", "arm", "condition", "seed", "instruction", "how"], rows)
    count = f"{len(rows)} of {len(failed)}" if len(rows) < len(failed) else str(len(rows))
    return f"<p>{text}</p>{strips}<details><summary>list ({count})</summary>{listing}</details>"


def _strip_and_clip(record: EpisodeRecord, media: _Media) -> str:
    strip, clip = media.strip(record.video), media.clip(record.video)
    return strip + (f"<details><summary>play</summary>{clip}</details>" if strip and clip else "")


def _fate(record: EpisodeRecord) -> str:
    if record.error:
        return record.error
    return f"{'wrong goal' if record.wrong else 'not done'} after {record.steps} steps"


def _spread(
    records: Sequence[EpisodeRecord], kind: Callable[[EpisodeRecord], tuple[str, str]]
) -> list[EpisodeRecord]:
    """Reordered so that every kind comes once before any comes twice."""
    seen: dict[tuple[str, str], int] = {}
    ranked = []
    for record in records:
        rank = seen.get(kind(record), 0)
        seen[kind(record)] = rank + 1
        ranked.append((rank, len(ranked), record))
    return [record for _, _, record in sorted(ranked, key=lambda item: item[:2])]


def _figures(items: Sequence[tuple[EpisodeRecord, str]], kind: str) -> str:
    shown = [
        f"<figure>{element}<figcaption>“{html.escape(r.instruction)}” <span class='muted'>"
        f"{html.escape(f'{r.key.task} · {r.key.embodiment} · {r.key.condition} · seed {r.key.seed}')}"
        f"{'' if r.success else html.escape(' · ' + _fate(r))}</span></figcaption></figure>"
        for r, element in items
        if element
    ]
    return f"<div class='{kind}'>{''.join(shown)}</div>" if shown else ""


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
