"""The page of a quality check: what was found, with a picture of each sort, and what was looked at."""

from __future__ import annotations

import html
from pathlib import Path

import cv2
import numpy as np

from vla.data.check.findings import KINDS, SEVERITIES, Finding, Report, episodes_of
from vla.data.check.signals import DAMAGE, entry_names, one_line
from vla.data.source import EpisodeSource
from vla.report.data_overview import overview
from vla.report.document import card, section, table, write_document
from vla.report.figures import film_strip, jpeg_uri
from vla.report.plots import bar_plot, legend, line_plot
from vla.text import counted

#: Findings of a kind that are drawn, and that are listed.
PICTURED, LISTED = 4, 300
_AROUND = 20  # steps before and after a place in a plot
_STRIP_FRAMES = 7
_MARK = (234, 88, 12)


def write_check_page(report: Report, source: EpisodeSource | None, path: str | Path) -> Path:
    """Write the page of ``report`` on ``source``; pictures and numbers are read from it again.

    None: it could not be opened, the page says why.
    """
    name = Path(report.path).name
    kinds = report.kinds
    cards = [
        card(
            severity + ("s" if (n := sum(f.severity == severity for f in report.findings)) != 1 else ""),
            str(n),
            _whose([f for f in report.findings if f.severity == severity]),
        )
        for severity in SEVERITIES
    ]
    looked = f"{report.num_steps} steps, {report.num_frames_read} pictures looked at"
    cards.append(card("episodes", str(report.num_episodes), looked))
    head = (
        f"<header><p class='kicker'>Quality of demonstrations</p><h1>{html.escape(name)}</h1>"
        f"<p class='muted'>{html.escape(report.path)}</p></header><div class='cards'>{''.join(cards)}</div>"
    )
    findings = (
        table(
            ["kind", "severity", "count", "episodes", "what it is"],
            [_row(kind, found) for kind, found in kinds.items()],
            kind="facts",
        )
        if kinds
        else "<p>Nothing found.</p>"
    )
    parts = [head, section("Findings", findings)]
    parts += [_kind(kind, found, source) for kind, found in kinds.items()]
    if source is not None:
        parts.append(overview(report, source))
    return write_document(Path(path), title=f"Check of {name}", body="\n".join(parts))


def _whose(found: list[Finding]) -> str:
    """``3 episodes, all of an arm, the data set``: what findings of any kind are about."""
    named = len({f.episode for f in found} - {None})
    general = {"the data set" if f.kind == "missing" else "all of an arm" for f in found if f.episode is None}
    parts = [counted(named, "episode")] if named or not general else []
    return ", ".join([*parts, *sorted(general)])


def _row(kind: str, found: list[Finding]) -> list[str]:
    facts = KINDS[kind]
    return [kind, facts.severity, str(len(found)), episodes_of(found), facts.meaning]


def _kind(kind: str, found: list[Finding], source: EpisodeSource | None) -> str:
    """A kind with its first findings drawn and the others listed."""
    facts = KINDS[kind]
    figures = "".join(_figure(f, source) for f in _spread(found)[:PICTURED])
    rows = [[f.place, f.message] for f in found[:LISTED]]
    count = f"{len(rows)} of {len(found)}" if len(rows) < len(found) else str(len(found))
    listing = (
        f"<details><summary>all findings of this kind ({count})</summary>"
        f"{table(['where', 'what'], rows, kind='facts')}</details>"
        if len(found) > PICTURED
        else ""
    )
    return (
        f"<section><h2>{html.escape(kind)} <span class='badge {facts.severity}'>{facts.severity}</span></h2>"
        f"<p>{html.escape(facts.meaning)} <span class='muted'>· to do: {html.escape(facts.remedy)}</span></p>"
        f"{figures}{listing}</section>"
    )


def _spread(found: list[Finding]) -> list[Finding]:
    """One finding of each episode before a second of any."""
    seen: dict[int | None, int] = {}
    ranked = []
    for i, finding in enumerate(found):
        rank = seen[finding.episode] = seen.get(finding.episode, -1) + 1
        ranked.append((rank, i))
    return [found[i] for _, i in sorted(ranked)]


def _figure(finding: Finding, source: EpisodeSource | None) -> str:
    picture = "" if source is None else _picture(finding, source)
    return (
        f"<figure class='finding'>{picture}<figcaption><b>{html.escape(finding.place)}</b> "
        f"{html.escape(finding.message)}</figcaption></figure>"
    )


def _picture(finding: Finding, source: EpisodeSource) -> str:
    """What shows a finding best: a curve of correlations, a film strip, or a plot around the place."""
    if "moved" in finding.evidence and finding.episode is not None:
        return _asked_and_moved(finding, source, finding.episode)
    if "correlation" in finding.evidence:
        lags, values = finding.evidence["lags"], finding.evidence["correlation"]
        marked = int(np.argmax(np.abs(values)))
        note = "<p class='muted'>correlation of motion with the action, by steps between them</p>"
        return note + bar_plot([f"{lag:+d}" if lag else "0" for lag in lags], values, marked=marked)
    episode = finding.evidence.get("example", finding.episode)
    if episode is None:
        return ""
    column = finding.where.partition("/")[0]
    if column in ("state", "action", "executed", "time_s"):
        return _plot(finding, source, episode, column)
    other = finding.evidence.get("of_episode")
    strips = [_strip(finding, source, number) for number in (episode, other) if number is not None]
    return "".join(strips)


def _asked_and_moved(finding: Finding, source: EpisodeSource, episode: int) -> str:
    """An action entry and the change of the state entry that it moves, each by its largest."""
    arm, lines = source.embodiments[source.episodes[episode].embodiment], []
    for name in (finding.where, finding.evidence["moved"]):
        column = name.partition("/")[0]
        entry = entry_names(arm, column).index(name)
        values, label = np.asarray(source.column(episode, column), np.float64)[:, entry], name
        if column == "state":
            values, label = np.diff(values), f"change of {name} in a step"
        lines.append((f"{label}, of its largest", values / max(np.abs(values).max(initial=0), 1e-12)))
    return f"<p class='legend'>{legend([name for name, _ in lines])}</p>{line_plot(lines, width=760)}"


def _plot(finding: Finding, source: EpisodeSource, episode: int, column: str) -> str:
    """The entry, or all entries of the field, around the steps concerned."""
    info = source.episodes[episode]
    try:
        values = np.asarray(source.column(episode, column), np.float64)
    except DAMAGE as error:
        said = "" if finding.kind == "unreadable" else f"cannot be drawn: {one_line(error)}"
        return f"<p class='muted'>{html.escape(said)}</p>" if said else ""
    if column == "time_s":
        values, names = np.diff(values)[:, None], ["seconds to the next step"]
    else:
        all_names = entry_names(source.embodiments[info.embodiment], column)
        wanted = (finding.where, finding.where + "[")
        chosen = [i for i, n in enumerate(all_names) if n == wanted[0] or n.startswith(wanted[1])]
        chosen = [i for i in chosen if i < values.shape[1]] or list(range(min(values.shape[1], 8)))
        values, names = values[:, chosen], [all_names[i] for i in chosen]
    band, start, stop = None, 0, len(values)
    if finding.first is not None and finding.last is not None:
        band = (finding.first, finding.last)
        start, stop = max(band[0] - _AROUND, 0), min(band[1] + _AROUND + 1, len(values))
    lines = [(name, values[start:stop, i]) for i, name in enumerate(names)]
    return f"<p class='legend'>{legend(names)}</p>{line_plot(lines, band=band, first=start, width=760)}"


def _strip(finding: Finding, source: EpisodeSource, episode: int) -> str:
    """Pictures around the steps concerned, those framed; of the whole episode where it is all of it."""
    try:
        cameras = source.cameras(episode)
    except DAMAGE:
        cameras = []
    camera = finding.where if finding.where in cameras else next(iter(cameras), "")
    length = source.episodes[episode].length
    if not camera or not length:
        return ""
    if finding.first is None or finding.last is None:
        steps = np.linspace(0, length - 1, _STRIP_FRAMES).round().astype(int)
    else:
        steps = np.arange(finding.first - 2, finding.last + 3)
        if len(steps) > _STRIP_FRAMES:
            steps = np.linspace(finding.first - 2, finding.last + 2, _STRIP_FRAMES).round().astype(int)
    pictures, labels = [], []
    for step in np.unique(np.clip(steps, 0, length - 1)).tolist():
        pictures.append(_framed(source, episode, camera, step, step in finding.steps))
        labels.append(str(step))
    text = f"episode {episode}, {camera}, steps {', '.join(labels)}; “{source.episodes[episode].instruction}”"
    uri = jpeg_uri(film_strip(pictures, count=_STRIP_FRAMES))
    wide = min(100, 20 * len(pictures))  # of few pictures: not larger than of five
    return (
        f'<p class="muted">{html.escape(text)}</p>'
        f'<img class="strip film" alt="film strip" style="width: {wide}%" src="{uri}">'
    )


def _framed(source: EpisodeSource, episode: int, camera: str, step: int, marked: bool) -> np.ndarray:
    """A picture 150 pixels high; a cross where it cannot be decoded; an orange frame where marked."""
    try:
        frames = source.frame_reader(episode, camera)
        picture = np.empty((*frames.shape, 3), np.uint8)
        frames.read(step, picture)
        how = cv2.INTER_AREA if picture.shape[0] > 150 else cv2.INTER_CUBIC
        width = max(1, round(picture.shape[1] * 150 / picture.shape[0]))
        picture = cv2.resize(picture, (width, 150), interpolation=how)
    except DAMAGE:
        picture = np.full((150, 150, 3), 40, np.uint8)
        cv2.line(picture, (45, 45), (105, 105), (230, 80, 80), 4, cv2.LINE_AA)
        cv2.line(picture, (105, 45), (45, 105), (230, 80, 80), 4, cv2.LINE_AA)
    if marked:
        cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, 149), _MARK, 5)
    return picture
