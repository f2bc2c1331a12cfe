"""Failure cards in a report: when it was lost, what would have gone well from there, what was taught."""

from __future__ import annotations

import html
from pathlib import Path

from vla.eval.cards import FOLDER, Card, load_cards
from vla.report.document import table
from vla.report.episodes import Media

#: Of the page's media, what all cards together may take.
CARD_BYTES = 3_000_000


def failure_cards(run: Path) -> str:
    """All cards of a run directory as HTML; empty where there are none."""
    media = Media(run / FOLDER, CARD_BYTES)
    return "".join(_card(card, media) for card in load_cards(run))


def _card(card: Card, media: Media) -> str:
    key = card.key
    head = f"“{html.escape(card.instruction)}”"
    where = html.escape(f"{key.task} · {key.embodiment} · {key.condition} · seed {key.seed}")
    title = f"<p><b>{head}</b> <span class='muted'>{where}</span></p>"
    if not card.reproduced:
        return (
            f"<div class='finding'>{title}<p>The replay did not end as the record says: the policy draws at "
            "random, or something has changed since. Nothing else was tried.</p></div>"
        )
    shown = media.strip(card.clip)
    films = [
        f"<details><summary>{name}</summary>{media.clip(clip)}</details>"
        for name, clip in (("the failure", card.clip), ("the expert from there", _expert_clip(card)))
        if clip
    ]
    rows = [
        [
            f"{b.step / card.control_hz:.1f} s",
            f"{b.name}: {b.meaning}",
            f"“{b.instruction}”",
            _end(b.success, b.wrong, b.steps),
        ]
        for b in card.branches
    ]
    branches = table(["going on from", "under", "told", "ended"], rows, kind="facts") if rows else ""
    text = html.escape(_when(card))
    near = [
        [f"{n.store}, episode {n.episode}", f"“{n.instruction}”", f"{100 * n.distance_m:.1f} cm"]
        for n in card.nearest
    ]
    taught = table(["nearest demonstrations", "told", "target and goal off by"], near, kind="facts")
    return (
        f"<div class='finding'>{title}{shown}<p>{text}</p>{_line(card)}"
        f"{branches}{taught if near else ''}{''.join(films)}</div>"
    )


def _expert_clip(card: Card) -> str:
    return next((b.clip for b in card.branches if b.clip), "")


def _when(card: Card) -> str:
    last, hz = card.last_chance, card.control_hz
    if last is None:
        return "Not even the expert makes it from the first step in the time there is."
    if last >= card.steps - 1:
        return "Until its last step the expert could have made it."
    return (
        f"Success was still possible at {last / hz:.1f} s (the expert makes it from there in the time "
        f"left) and no longer at {(last + 1) / hz:.1f} s, of {card.steps / hz:.1f} s."
    )


def _line(card: Card) -> str:
    """The episode as a line: where the expert was tried, and how that ended."""
    width, last = 520, max(card.steps - 1, 1)
    parts = [f'<svg viewBox="0 0 {width + 40} 44" role="img" aria-label="when success was possible">']
    parts.append(f'<line class="tick" x1="20" x2="{20 + width}" y1="16" y2="16"/>')
    for step, yes in card.reachable.items():
        at = f"{step / card.control_hz:.1f} s"
        parts.append(
            f'<circle class="series{3 if yes else 1}" cx="{20 + width * step / last:.1f}" cy="16" r="5">'
            f"<title>{at}: {'still possible' if yes else 'lost'}</title></circle>"
        )
    for step, anchor in ((0, "start"), (last, "end")):
        x = 14 if anchor == "start" else 26 + width
        parts.append(
            f'<text class="axis" x="{x}" y="38" text-anchor="{anchor}">{step / card.control_hz:.1f} s</text>'
        )
    return "".join([*parts, "</svg>"])


def _end(success: bool, wrong: bool, steps: int) -> str:
    return f"{'done' if success else 'wrong goal' if wrong else 'not done'} after {steps} steps"
