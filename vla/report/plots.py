"""Line plots of episodes as inline SVG in the page's colours."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import numpy as np

LEFT, RIGHT, TOP = 52, 8, 8
_MAX_POINTS = 1000  # more cannot be seen; each costs bytes


def line_plot(
    lines: Sequence[tuple[str, np.ndarray]],
    *,
    dashed: Sequence[np.ndarray] = (),
    band: tuple[int, int] | None = None,
    first: int = 0,
    width: int = 520,
    height: int = 120,
) -> str:
    """Values over steps, one line an entry; SVG text with a cursor line that a script may move.

    Args:
        lines: (name, values [T]).
        dashed: values [T] drawn dashed in the colour of the line of that place (what was executed).
        band: first and last step to be shaded.
        first: step number of the first value.
        width, height: of the drawing; it scales with the page.
    """
    finite = [v[np.isfinite(v)] for v in (*(v for _, v in lines), *dashed)]
    known = np.concatenate(finite) if finite else np.zeros(0)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    margin = 0.06 * (high - low) or max(abs(high) * 0.05, 1e-3)
    low, high = low - margin, high + margin
    length = max((len(v) for _, v in lines), default=1)
    bottom = height - 18

    def x(i: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * i / max(length - 1, 1)

    def y(value: float) -> float:
        return TOP + (bottom - TOP) * (high - value) / (high - low)

    parts = [
        f'<svg class="plot" viewBox="0 0 {width} {height}" data-left="{LEFT}" data-right="{width - RIGHT}" '
        f'role="img" aria-label="{html.escape(", ".join(name for name, _ in lines), quote=True)}">'
    ]
    if band is not None:
        a, b = x(max(band[0] - first - 0.5, 0)), x(min(band[1] - first + 0.5, length - 1))
        parts.append(
            f'<rect class="band" x="{a:.1f}" y="{TOP}" width="{max(b - a, 2):.1f}" height="{bottom - TOP}"/>'
        )
    for value in _ticks(low, high):
        parts.append(
            f'<line class="tick" x1="{LEFT}" x2="{width - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            f'<text class="axis" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        )
    for i, anchor in ((0, "start"), (length - 1, "end")):
        parts.append(
            f'<text class="axis" x="{x(i):.1f}" y="{height - 4}" text-anchor="{anchor}">{first + i}</text>'
        )
    for i, (name, values) in enumerate(lines):
        style = f"series{i % 8}"
        if i < len(dashed):
            parts.append(_line(dashed[i], x, y, f"{style} executed", f"{name}, executed"))
        parts.append(_line(values, x, y, style, name))
    parts.append(
        f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}" visibility="hidden"/>'
    )
    return "".join([*parts, "</svg>"])


def legend(names: Sequence[str], *, with_values: bool = False) -> str:
    """Coloured names, in the order of the lines; with room (``<b>``) for the value under the cursor."""
    room = " <b></b>" if with_values else ""
    return "".join(
        f"<span><i class='series{i % 8}'></i>{html.escape(name)}{room}</span>" for i, name in enumerate(names)
    )


def bar_plot(labels: Sequence[str], values: Sequence[float], *, marked: int, height: int = 130) -> str:
    """Bars up and down from 0, one of them marked; SVG text."""
    bar, width = 30, 30 * len(values) + 20
    middle, top = height / 2 - 6, max([abs(v) for v in values] + [1e-9])
    middle = middle if min(values, default=0) < 0 else height - 18  # nothing goes down
    parts = [f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" aria-label="bars">']
    parts.append(f'<line class="tick" x1="0" x2="{width}" y1="{middle}" y2="{middle}"/>')
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        tall, x = (middle - 8) * abs(value) / top, 10 + bar * i
        parts.append(
            f'<rect class="series{1 if i == marked else 0}" x="{x}" width="{bar - 6}" rx="2" '
            f'y="{middle - tall if value > 0 else middle:.1f}" height="{tall:.1f}">'
            f"<title>{html.escape(label)}: {value:.3f}</title></rect>"
            f'<text class="axis" x="{x + bar / 2 - 3}" y="{height - 3}" text-anchor="middle">'
            f"{html.escape(label)}</text>"
        )
    return "".join([*parts, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Two to four round numbers inside an interval."""
    step = 10.0 ** np.floor(np.log10(high - low))
    while (high - low) / step > 4:
        step *= 2.5 if f"{step:e}"[0] == "2" else 2
    while (high - low) / step < 2:
        step /= 2
    start = np.ceil(low / step)
    return [float(round(k * step, 12)) + 0.0 for k in np.arange(start, np.floor(high / step) + 1)]


def _line(
    values: np.ndarray,
    x: Callable[[float], float],
    y: Callable[[float], float],
    style: str,
    name: str,
) -> str:
    """One line, broken where values are not finite."""
    count = min(len(values), _MAX_POINTS)
    chosen = np.unique(np.linspace(0, len(values) - 1, count).round().astype(int)) if count else []
    pieces: list[list[str]] = [[]]
    for i in chosen:
        if np.isfinite(values[i]):
            pieces[-1].append(f"{x(i):.1f},{y(float(values[i])):.1f}")
        elif pieces[-1]:
            pieces.append([])
    title = f"<title>{html.escape(name)}</title>"
    return "".join(
        f'<polyline class="{style}" points="{" ".join(piece)}">{title}</polyline>'
        for piece in pieces
        if piece
    )
