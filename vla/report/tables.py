"""Tables of an evaluation as plain text; the page draws the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vla.eval.audit import Audit
from vla.eval.intervals import Rate
from vla.eval.summary import SAFETY_COUNTS, Group, Row, Summary
from vla.text import text_table, wrapped


def rate_text(rate: Rate) -> str:
    """``96.0 % [90, 98] n=100``."""
    if not rate.n:
        return "-"
    low, high = rate.interval
    return f"{100 * rate.value:.1f} % [{100 * low:.0f}, {100 * high:.0f}] n={rate.n}"


def cm_text(distance_m: float | None) -> str:
    return "-" if distance_m is None else f"{100 * distance_m:.1f} cm"


def success_rows(
    rows: Mapping[str, Row], conditions: Sequence[str]
) -> list[tuple[str, dict[str, Group | None]]]:
    """Each name with its group under each condition (None: not run)."""
    return [(name, {c: row.get(c) for c in conditions}) for name, row in rows.items()]


def level_facts(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the groups of tasks that the suite gives results by, then their mean."""
    means = [summary.mean_of_levels(condition) for condition in summary.conditions]
    mean = ["mean of levels", *("-" if value is None else f"{100 * value:.1f} %" for value in means)]
    body = [*_success_body(summary.by_level, summary.conditions), mean]
    return ["level", *summary.conditions], body


def _success_body(rows: Mapping[str, Row], conditions: Sequence[str]) -> list[list[str]]:
    return [
        [name, *("-" if group is None else rate_text(group.success) for group in groups.values())]
        for name, groups in success_rows(rows, conditions)
    ]


def condition_facts(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one line a condition with everything that is not the success rate of a cell."""
    header = [
        "condition",
        "success",
        "mean of cells",
        "worst cell",
        "wrong goal",
        "errors",
        "time to success",
    ]
    header += ["target off at t=0", "goal off at t=0", "latency mean", "latency p95"]
    rows = []
    for condition, group in summary.overall.items():
        mean, worst = summary.mean_of_cells(condition), summary.worst_cell(condition)
        named = "-" if worst is None else f"{100 * worst[1].success.value:.0f} % {'/'.join(worst[0])}"
        time = group.time_to_success_s
        rows.append(
            [
                condition,
                rate_text(group.success),
                "-" if mean is None else f"{100 * mean:.1f} %",
                named,
                rate_text(group.wrong),
                str(group.errors),
                "-" if time is None else f"{time:.1f} s",
                cm_text(group.target_error_t0_m),
                cm_text(group.goal_error_t0_m),
                f"{1e3 * group.latency_mean_s:.1f} ms",
                f"{1e3 * group.latency_p95_s:.1f} ms",
            ]
        )
    return header, rows


SAFETY_NOTE = (
    "Share of control steps whose action the safety envelope changed. 'material': by more than the tolerance "
    "(1 % of the entry's range unless set otherwise); the plain rows count every change, however small, as a "
    "learned action near its limit overshoots it by a little half of the time. 'env_clipped' is what the "
    "simulation still clipped behind the envelope: anything but 0 is a fault."
)


def safety_facts(summary: Summary) -> list[list[str]]:
    """Rows: each count of the envelope, the material ones first, with its share under each condition."""
    groups = list(summary.overall.values())
    known = [name for name in SAFETY_COUNTS if any(name in group.safety for group in groups)]
    return [
        [name.replace("_material", ", material"), *(_share_text(group.safety.get(name)) for group in groups)]
        for name in known
    ]


def _share_text(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


AUDIT_NOTE = (
    "Each arm of the audit runs the same scenes as the plain condition. The grounding score is the weakest "
    "of: looks, 1 - success without pictures over plain success; hears, the same without words; follows, "
    "success minus wrong goals under another instruction in the same scene, over plain success; rewords, "
    "success with phrasings never taught over plain success."
)


def audit_facts(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one line an arm of the audit, beside the plain condition on the same scenes."""
    header = ["arm of the audit", "success", "plain, same scenes", "difference, points", "p", "wrong goal"]
    rows = []
    for arm in audit.arms:
        low, high = arm.pairs.interval
        gap = f"{-100 * arm.pairs.difference:+.1f} [{-100 * high:+.1f}, {-100 * low:+.1f}]"
        rates = [rate_text(arm.success), f"{100 * arm.plain.value:.1f} %"]
        rows.append([arm.name, *rates, gap, f"{arm.pairs.p_value:.2g}", rate_text(arm.wrong)])
    return header, rows


def version_note(summary: Summary) -> str:
    """A warning where more than one program made the records, else empty."""
    if len(summary.code_versions) < 2:
        return ""
    return (
        f"Note: the records come from {len(summary.code_versions)} code versions, so no rate here is of one "
        f"program: {'; '.join(summary.code_versions)}. See provenance.json, or run anew in another folder."
    )


def heldout_note(summary: Summary) -> str:
    """Which arms the suite keeps out of training, where any of them was run, else empty."""
    if not summary.heldout_arms:
        return ""
    arms = ", ".join(summary.heldout_arms)
    return (
        f"{summary.suite} keeps {arms} out of training: new to a policy that was not taught it on purpose. "
        "The means count it like the others; the row of the arm is its own."
    )


def summary_text(summary: Summary) -> str:
    """Everything a console shows after an evaluation."""
    count = f"{summary.num_episodes} of {summary.num_planned} episodes"
    if not summary.num_episodes:
        return f"{summary.policy} on {summary.suite}: {count}"
    conditions = summary.conditions
    parts = [f"{summary.policy} on {summary.suite}: {count}; rates with 95 % Wilson intervals"]
    cells = {f"{task} / {arm}": row for (task, arm), row in summary.by_cell.items()}
    for title, rows in (("cell", cells), ("task", summary.by_task), ("arm", summary.by_arm)):
        parts.append(text_table([title, *conditions], _success_body(rows, conditions)))
    if summary.by_level:
        parts.append(text_table(*level_facts(summary)))
    header, facts = condition_facts(summary)
    columns = [list(column) for column in zip(header, *facts, strict=True)]
    parts.append(text_table(columns[0], columns[1:]))
    if summary.audit is not None:
        parts.append(text_table(*audit_facts(summary.audit)))
        parts += [wrapped(summary.audit.text()), wrapped(AUDIT_NOTE)]
    parts.append(text_table(["steps changed by the safety envelope", *conditions], safety_facts(summary)))
    parts.append(wrapped(SAFETY_NOTE))
    parts += [wrapped(note) for note in (heldout_note(summary), version_note(summary)) if note]
    return "\n\n".join(parts)
