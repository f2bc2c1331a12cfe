"""Episodes in a report: film strips and clips of successes and failures, within a budget of bytes."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vla.eval.records import EpisodeRecord
from vla.report.document import table
from vla.report.figures import film_strip, jpeg_uri, mp4_uri
from vla.report.video import CAPTION_PX, read_frames

#: Embedded pictures and videos together stay below this, so that the page can be sent by mail.
MEDIA_BYTES = 8_000_000
MAX_CLIPS, MAX_FAILURES = 12, 16


@dataclass
class Media:
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


def clips(records: Sequence[EpisodeRecord], media: Media) -> str:
    """Filmed successes: first one of each task and condition, then more as the budget allows."""
    filmed = [r for r in records if r.success and r.video]
    chosen = _spread(filmed, lambda r: (r.key.task, r.key.condition))[:MAX_CLIPS]
    return _figures([(record, media.clip(record.video)) for record in chosen], "clips")


def failures(records: Sequence[EpisodeRecord], media: Media) -> str:
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


def _strip_and_clip(record: EpisodeRecord, media: Media) -> str:
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
