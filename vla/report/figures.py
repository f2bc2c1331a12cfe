"""Pictures of a report: film strips as embedded JPEG, drawings as inline SVG in the page's colours."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vla.eval.curves import TimedRate
from vla.eval.intervals import Rate


def jpeg_uri(image: np.ndarray, *, quality: int = 82) -> str:
    """uint8 [h w 3] RGB -> ``data:image/jpeg;base64,...``."""
    encoded, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise ValueError(f"An image of shape {image.shape} and type {image.dtype} cannot be written as JPEG.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def mp4_uri(path: str | Path) -> str:
    """A video file -> ``data:video/mp4;base64,...``."""
    return "data:video/mp4;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def film_strip(frames: Sequence[np.ndarray], *, count: int = 6, height: int = 150) -> np.ndarray:
    """``count`` frames, evenly spread from first to last, side by side; uint8 [height w 3]."""
    if not frames:
        raise ValueError("A film strip needs at least one frame.")
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]
    gap = np.full((height, 4, 3), 255, np.uint8)
    parts: list[np.ndarray] = []
    for frame in chosen:
        width = max(1, round(frame.shape[1] * height / frame.shape[0]))
        parts += [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), gap]
    return np.hstack(parts[:-1])


def interval_chart(rows: Sequence[tuple[str, Sequence[tuple[str, Rate]]]], *, row_height: int = 22) -> str:
    """Success rates as dots with their intervals, one line a name and condition; SVG text.

    Args:
        rows: (name, [(condition, rate), ...]).
    """
    left, right, top = 190, 640, 26
    lines = [(name if i == 0 else "", c, rate) for name, rates in rows for i, (c, rate) in enumerate(rates)]
    conditions = list(dict.fromkeys(condition for _, condition, _ in lines))
    height = top + row_height * len(lines) + 8

    def x(fraction: float) -> float:
        return left + fraction * (right - left)

    parts = [
        f'<svg viewBox="0 0 {right + 60} {height}" role="img" aria-label="success rates with intervals">'
    ]
    for percent in (0, 25, 50, 75, 100):
        at = x(percent / 100)
        parts.append(f'<line class="tick" x1="{at}" x2="{at}" y1="{top - 6}" y2="{height - 8}"/>')
        parts.append(f'<text class="axis" x="{at}" y="{top - 11}" text-anchor="middle">{percent} %</text>')
    for i, (name, condition, rate) in enumerate(lines):
        if not rate.n:
            continue
        y = top + row_height * (i + 0.5)
        low, high = rate.interval
        series = f"series{conditions.index(condition) % 4}"
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{html.escape(name)}</text>')
        parts.append(
            f'<line class="whisker {series}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(
            f'<circle class="{series}" cx="{x(rate.value):.1f}" cy="{y}" r="5">'
            f"<title>{html.escape(f'{name} {condition}: {rate}')}</title></circle>"
        )
    return "".join([*parts, "</svg>"])


def curve_chart(
    curves: Sequence[tuple[str, Sequence[TimedRate]]], *, label: str = "success against time"
) -> str:
    """Success against time, a line and its band of intervals a condition; SVG text."""
    left, right, top, bottom = 52, 600, 12, 170
    end = max(point.time_s for _, curve in curves for point in curve)

    def at(time_s: float, share: float) -> str:
        return f"{left + (right - left) * time_s / end:.1f},{bottom - (bottom - top) * share:.1f}"

    parts = [f'<svg viewBox="0 0 {right + 30} {bottom + 26}" role="img" aria-label="{html.escape(label)}">']
    for percent in (0, 25, 50, 75, 100):
        y = bottom - (bottom - top) * percent / 100
        parts.append(f'<line class="tick" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="axis" x="{left - 8}" y="{y + 4}" text-anchor="end">{percent} %</text>')
    for k in range(5):
        x, time_s = left + (right - left) * k / 4, end * k / 4
        parts.append(
            f'<text class="axis" x="{x}" y="{bottom + 18}" text-anchor="middle">{time_s:.3g} s</text>'
        )
    for i, (name, curve) in enumerate(curves):
        edges = [(p.time_s, *p.rate.interval) for p in curve]
        area = [at(t, high) for t, _, high in edges] + [at(t, low) for t, low, _ in reversed(edges)]
        line = " ".join(at(p.time_s, p.rate.value) for p in curve)
        title = f"<title>{html.escape(f'{name}: {curve[-1].rate}')}</title>"
        parts.append(f'<polygon class="series{i % 4} spread" points="{" ".join(area)}"/>')
        parts.append(f'<polyline class="series{i % 4}" points="{line}">{title}</polyline>')
    return "".join([*parts, "</svg>"])


def phase_chart(curves: Sequence[tuple[str, dict[str, float]]], names: dict[str, str]) -> str:
    """Localisation error in cm by phase of the motion, one group of bars a phase; SVG text.

    Args:
        curves: (condition, {phase: error in m}).
        names: phase -> what the person reads.
    """
    phases = sorted({phase for _, values in curves for phase in values})
    top_cm = max([1.0, *(100 * value for _, values in curves for value in values.values())])
    width, height, base = 120 * max(len(phases), 1) + 40, 190, 150
    bar = min(28.0, 90 / max(len(curves), 1))
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="localisation error by phase">']
    parts.append(f'<line class="tick" x1="20" x2="{width - 10}" y1="{base}" y2="{base}"/>')
    for p, phase in enumerate(phases):
        left = 30 + 120 * p
        parts.append(
            f'<text class="axis" x="{left + 45}" y="{base + 18}" text-anchor="middle">'
            f"{html.escape(names.get(phase, phase))}</text>"
        )
        for i, (condition, values) in enumerate(curves):
            if phase not in values:
                continue
            cm = 100 * values[phase]
            tall = 120 * cm / top_cm
            x = left + i * bar
            parts.append(
                f'<rect class="series{i % 4}" x="{x:.1f}" y="{base - tall:.1f}" width="{bar - 3:.1f}" '
                f'height="{tall:.1f}" rx="2"><title>{html.escape(condition)}: {cm:.1f} cm</title></rect>'
            )
            parts.append(
                f'<text class="axis" x="{x + bar / 2:.1f}" y="{base - tall - 5:.1f}" text-anchor="middle">'
                f"{cm:.1f}</text>"
            )
    return "".join([*parts, "</svg>"])
