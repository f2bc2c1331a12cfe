"""What a check looked at, whether or not it found anything: arms, sentences, checks made, sample pictures."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator

import numpy as np

from vla.data.check.findings import KINDS, OF_PICTURES, Report
from vla.data.check.signals import DAMAGE
from vla.data.source import EpisodeInfo, EpisodeSource
from vla.data.summary import outcomes
from vla.report.document import section, table
from vla.report.figures import film_strip, jpeg_uri
from vla.report.plots import bar_plot

#: Episodes that are shown of each camera, sentences that are listed, bars of a distribution.
SHOWN, LISTED, BARS = 6, 12, 12


def overview(report: Report, source: EpisodeSource) -> str:
    """HTML sections: what is there, what it looks like, how long it is, what is said, what was checked."""
    arms: dict[str, list[EpisodeInfo]] = {}
    for info in source.episodes:
        arms.setdefault(info.embodiment, []).append(info)
    return "\n".join(
        [
            section("What was looked at", _facts(source, arms)),
            section("Cameras", "".join(_cameras(source, arms))),
            section("Length of episodes, steps", "".join(_lengths(arms))),
            section("What is said", _sentences(source)),
            section("Checks", _checks(report)),
        ]
    )


def _facts(source: EpisodeSource, arms: dict[str, list[EpisodeInfo]]) -> str:
    rows = []
    for name, infos in arms.items():
        arm, steps = source.embodiments[name], sum(info.length for info in infos)
        cameras = ", ".join(f"{c.name} {c.height}x{c.width}" for c in arm.cameras) or "none"
        minutes = steps / arm.control_hz / 60
        rows.append(
            [
                name,
                f"{len(infos)} ({outcomes(infos)})",
                f"{steps} ({minutes:.1f} min)",
                f"{arm.control_hz:g} Hz",
                f"{arm.state_dim} state, {arm.action_dim} action",
                cameras,
            ]
        )
    return table(["arm", "episodes", "steps", "rate", "numbers", "cameras"], rows, kind="facts")


def _cameras(source: EpisodeSource, arms: dict[str, list[EpisodeInfo]]) -> Iterator[str]:
    """A strip a camera: the middle of a few episodes, evenly spread."""
    for name, infos in arms.items():
        places = np.unique(np.linspace(0, len(infos) - 1, SHOWN).round().astype(int)).tolist()
        for camera in source.embodiments[name].cameras:
            shown = [(infos[i], _picture(source, infos[i], camera.name)) for i in places]
            seen = [(info, picture) for info, picture in shown if picture is not None]
            if not seen:
                yield f"<p class='muted'>{html.escape(f'{name}, {camera.name}: no picture to show')}</p>"
                continue
            text = f"{name}, {camera.name}: episodes {', '.join(str(info.index) for info, _ in seen)}"
            uri = jpeg_uri(film_strip([picture for _, picture in seen], count=SHOWN))
            yield (
                f"<p class='muted'>{html.escape(text)}</p>"
                f'<img class="strip film" alt="{html.escape(camera.name, quote=True)}" src="{uri}">'
            )


def _picture(source: EpisodeSource, info: EpisodeInfo, camera: str) -> np.ndarray | None:
    """None where it is not there or does not decode: a finding says so."""
    try:
        if not info.length or camera not in source.cameras(info.index):
            return None
        frames = source.frame_reader(info.index, camera)
        picture = np.empty((*frames.shape, 3), np.uint8)
        frames.read(info.length // 2, picture)
    except DAMAGE:
        return None
    return picture


def _lengths(arms: dict[str, list[EpisodeInfo]]) -> Iterator[str]:
    for name, infos in arms.items():
        lengths = np.array([info.length for info in infos])
        low, high = int(lengths.min()), int(lengths.max())
        edges = np.linspace(low, high + 1, min(BARS, high - low + 1) + 1)
        counts, _ = np.histogram(lengths, edges)
        labels = [str(int(np.ceil(edge))) for edge in edges[:-1]]
        text = f"{name}: {low} to {high}, median {np.median(lengths):g}; a bar begins at its number"
        yield f"<p class='muted'>{html.escape(text)}</p>{bar_plot(labels, counts.tolist(), marked=-1)}"


def _sentences(source: EpisodeSource) -> str:
    counts = Counter(info.instruction for info in source.episodes)
    rows = [[sentence or "(empty)", str(count)] for sentence, count in counts.most_common(LISTED)]
    more = f"<p class='muted'>and {len(counts) - LISTED} more</p>" if len(counts) > LISTED else ""
    return table(["instruction", "episodes"], rows, kind="facts") + more


def _checks(report: Report) -> str:
    """Every kind of fault, on what it was looked for, and how often it was found."""
    rows, passed = [], 0
    for kind, facts in KINDS.items():
        found, made = len(report.kinds.get(kind, [])), kind not in report.left_out
        pictures = kind in OF_PICTURES
        looked = f"{report.num_frames_read} pictures" if pictures else f"{report.num_episodes} episodes"
        looked = looked if made else f"not looked for: this takes {report.left_out[kind]}"
        passed += made and not found
        rows.append([kind, facts.meaning, looked, str(found) if made else "-"])
    text = f"{passed} of {len(rows)} kinds of fault were looked for and not found"
    text += f", {len(report.left_out)} not looked for" if report.left_out else ""
    return f"<p>{text}.</p>" + table(["kind", "what it is", "looked at", "found"], rows, kind="facts")
