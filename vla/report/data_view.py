"""The page of an episode: its cameras as a film, and under a common cursor what arm and action do."""

from __future__ import annotations

import html
import json
import math
import tempfile
from pathlib import Path

import cv2
import numpy as np

from vla.data.check.signals import slices
from vla.data.source import EpisodeSource
from vla.report.document import section, table, write_document
from vla.report.figures import mp4_uri
from vla.report.plots import legend, line_plot
from vla.report.video import VideoWriter

#: Small pictures are enlarged by whole factors, so that a pixel stays a square.
_MIN_HEIGHT, _MAX_HEIGHT = 224, 360
_GAP, _KEYFRAME_EVERY = 6, 12
#: Of the film: what every browser plays (H.264 ends at 16384), and cameras that one can tell apart.
_MAX_WIDTH, _MAX_CAMERAS = 6000, 32

STYLE = """
main { max-width: 1280px; }
.stage { position: sticky; top: 0; background: var(--paper); padding: 10px 0 8px; z-index: 1; }
.stage video { width: auto; max-width: 100%; max-height: 46vh; margin: 0 auto; background: none; }
.names { display: flex; justify-content: center; gap: 6px; color: var(--muted); font-size: 13px; }
.names span { text-align: center; }
.controls { display: flex; gap: 12px; align-items: center; margin-top: 8px; }
.controls input { flex: 1; accent-color: var(--s0); }
.controls button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 3px 14px; cursor: pointer; min-width: 76px; }
.controls output { font-variant-numeric: tabular-nums; min-width: 180px; text-align: right; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap: 12px; }
.plots figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0;
  padding: 10px 14px; }
.plots figcaption { display: flex; justify-content: space-between; gap: 12px; }
.plots .legend { font-size: 12px; margin: 0; color: var(--muted); }
.plots .legend span { margin-right: 12px; white-space: nowrap; }
.plots .legend b { font-weight: 500; color: var(--ink); font-variant-numeric: tabular-nums; }
.plots svg { max-width: none; cursor: crosshair; display: block; }
blockquote { margin: 6px 0 0; font-size: 26px; line-height: 1.3; letter-spacing: -.01em; font-weight: 600; }
"""

SCRIPT = """
const data = JSON.parse(document.getElementById('data').textContent);
const video = document.querySelector('video'), slider = document.querySelector('input');
const output = document.querySelector('output'), button = document.querySelector('button');
const plots = [...document.querySelectorAll('svg.plot')];
const last = data.time_s.length - 1;
let step = 0, playing = false, wanted = null;
function format(value) { return value === null ? 'NaN' : value.toFixed(Math.abs(value) < 10 ? 3 : 1); }
function draw() {
  slider.value = step;
  output.textContent = `step ${step} of ${last}   ${data.time_s[step].toFixed(2)} s`;
  plots.forEach((plot, p) => {
    const left = +plot.dataset.left, right = +plot.dataset.right, cursor = plot.querySelector('.cursor');
    const x = left + (right - left) * step / Math.max(last, 1);
    cursor.setAttribute('x1', x); cursor.setAttribute('x2', x); cursor.removeAttribute('visibility');
    plot.parentElement.querySelectorAll('.legend b').forEach((cell, i) => {
      cell.textContent = format(data.values[p][i][step]);
    });
  });
}
function seek() {  // one seek at a time: a second one while the first is under way is done after it
  if (!video) return;
  if (video.seeking) { wanted = step; return; }
  video.currentTime = (step + 0.5) / data.fps;
}
function show(number) {
  step = Math.max(0, Math.min(last, Math.round(number)));
  draw(); seek();
}
function play(on) {
  playing = on; button.textContent = on ? 'pause' : 'play';
  if (!video) return;
  if (!on) { video.pause(); show(step); return; }
  if (step >= last) show(0);
  video.play();
  requestAnimationFrame(follow);
}
function follow() {
  if (!playing) return;
  step = Math.min(last, Math.floor(video.currentTime * data.fps + 1e-3));
  draw();
  if (video.ended) play(false); else requestAnimationFrame(follow);
}
if (video) video.addEventListener('seeked', () => { if (wanted !== null) { wanted = null; seek(); } });
slider.addEventListener('input', () => { if (playing) play(false); show(+slider.value); });
button.addEventListener('click', () => play(!playing));
document.addEventListener('keydown', (event) => {
  const moves = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9};
  if (event.key === ' ') { event.preventDefault(); play(!playing); }
  if (!(event.key in moves)) return;
  event.preventDefault();
  if (playing) play(false);
  show(step + moves[event.key]);
});
plots.forEach((plot) => {
  const scrub = (event) => {
    const box = plot.getBoundingClientRect(), scale = box.width / plot.viewBox.baseVal.width;
    const left = +plot.dataset.left * scale, right = +plot.dataset.right * scale;
    if (playing) play(false);
    show(last * (event.clientX - box.left - left) / (right - left));
  };
  plot.addEventListener('pointerdown', (event) => { plot.setPointerCapture(event.pointerId); scrub(event); });
  plot.addEventListener('pointermove', (event) => { if (event.buttons) scrub(event); });
});
show(0);
"""


def write_episode_page(source: EpisodeSource, index: int, path: str | Path) -> Path:
    """Write the page of one episode.

    Raises:
        VlaError: the episode cannot be read.
    """
    info = source.episodes[index]
    arm = source.embodiments[info.embodiment]
    film, names = _film(source, index, arm.control_hz)
    figures, values = _plots(source, index)
    time_s = np.asarray(source.column(index, "time_s"), float)
    data = {"fps": arm.control_hz, "time_s": _numbers(time_s), "values": values}
    outcome = {True: "success", False: "failure", None: "success unknown"}[info.success]
    head = (
        f"<header><p class='kicker'>Episode {index} of {html.escape(Path(str(source.path)).name)}</p>"
        f"<blockquote>{html.escape(info.instruction) or '<i>no instruction</i>'}</blockquote>"
        f"<p class='muted'>{html.escape(info.embodiment)} · {info.length} steps at {arm.control_hz:g} Hz · "
        f"{outcome}</p></header>"
    )
    controls = (
        f"<div class='controls'><button type='button'>play</button>"
        f"<input type='range' min='0' max='{info.length - 1}' value='0' aria-label='step'>"
        f"<output></output></div>"
    )
    keys = "arrow keys: one step · page keys: ten · space: play · or drag in a plot"
    hint = f"<p class='muted'><small>{keys}</small></p>"
    body = [head, f"<div class='stage'>{film}{names}{controls}</div>{hint}", *figures]
    facts = [[name, value] for name, value in _flat(dict(info.provenance))]
    body.append(section("Provenance", table(["what", ""], facts, kind="facts") if facts else ""))
    # "<" as an escape: a "</script>" in a name must not end the data
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    body.append(f'<script type="application/json" id="data">{text}</script>')
    return write_document(
        Path(path),
        title=f"{info.instruction} (episode {index})",
        body="\n".join(body),
        style=STYLE,
        script=SCRIPT,
    )


def _film(source: EpisodeSource, index: int, fps: float) -> tuple[str, str]:
    """All cameras side by side as one video, so that they cannot get out of step; and their names."""
    all_cameras = source.cameras(index)
    cameras, unseen = all_cameras[:_MAX_CAMERAS], all_cameras[_MAX_CAMERAS:]
    if not cameras:
        return "", ""
    readers = [source.frame_reader(index, camera) for camera in cameras]
    height = min(_MAX_HEIGHT, max(_MIN_HEIGHT, *(reader.shape[0] for reader in readers)))
    wide = sum(reader.shape[1] * height / reader.shape[0] for reader in readers)
    height = max(2, min(height, int(height * _MAX_WIDTH / wide)))
    buffers = [np.empty((*reader.shape, 3), np.uint8) for reader in readers]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        widths: list[int] = []
        with VideoWriter(path, fps=fps, crf=20, keyframe_every=_KEYFRAME_EVERY) as writer:
            for step in range(source.episodes[index].length):
                for reader, buffer in zip(readers, buffers, strict=True):
                    reader.read(step, buffer)
                parts = [_fitted(buffer, height) for buffer in buffers]
                widths = [part.shape[1] for part in parts]
                tallest = max(part.shape[0] for part in parts)
                writer.add(_row(parts, tallest))
        uri = mp4_uri(path)
    labels = "".join(
        f"<span style='flex:0 1 {width}px'>{html.escape(camera)}</span>"
        for camera, width in zip(cameras, widths, strict=True)
    )
    return (
        f'<video muted playsinline preload="auto" src="{uri}"></video>',
        f"<div class='names'>{labels}</div>{_unseen(unseen)}",
    )


def _unseen(cameras: list[str]) -> str:
    if not cameras:
        return ""
    names = html.escape(", ".join(cameras[:5])) + (" ..." if len(cameras) > 5 else "")
    return f"<p class='muted'>{len(cameras)} more cameras are not shown: {names}</p>"


def _fitted(picture: np.ndarray, height: int) -> np.ndarray:
    """Enlarged by a whole factor up to about ``height``, or made smaller to it."""
    if picture.shape[0] > height:
        width = round(picture.shape[1] * height / picture.shape[0])
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    factor = math.ceil(height / picture.shape[0])
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _row(parts: list[np.ndarray], height: int) -> np.ndarray:
    """Pictures side by side with a gap, in even sizes."""
    width = sum(part.shape[1] for part in parts) + _GAP * (len(parts) - 1)
    out = np.zeros((height + height % 2, width + width % 2, 3), np.uint8)
    left = 0
    for part in parts:
        out[: part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + _GAP
    return out


def _plots(source: EpisodeSource, index: int) -> tuple[list[str], list[list[list[float | None]]]]:
    """Two sections, a plot a field; and the numbers behind each, [plot][entry][step]."""
    arm = source.embodiments[source.episodes[index].embodiment]
    sections: list[str] = []
    values: list[list[list[float | None]]] = []
    for column, fields in (("state", arm.state), ("action", arm.action)):
        if not fields:
            continue
        numbers = np.asarray(source.column(index, column), float)
        executed = np.asarray(source.column(index, "executed"), float) if column == "action" else numbers
        figures = []
        for member, place in slices(fields):
            part, done = numbers[:, place], executed[:, place]
            names = [f"{i}" for i in range(member.size)]
            dashed = list(done.T) if not np.array_equal(part, done, equal_nan=True) else []
            plot = line_plot(list(zip(names, part.T, strict=True)), dashed=dashed)
            unit = "" if member.unit == "1" else f" <span class='muted'>{html.escape(member.unit)}</span>"
            note = "<span class='muted'>dashed: executed</span>" if dashed else ""
            figures.append(
                f"<figure><figcaption><span>{html.escape(member.name)}{unit}</span>{note}</figcaption>{plot}"
                f"<p class='legend'>{legend(names, with_values=True)}</p></figure>"
            )
            values.append([_numbers(entry) for entry in part.T])
        sections.append(section(column.capitalize(), f"<div class='plots'>{''.join(figures)}</div>"))
    return sections, values


def _numbers(values: np.ndarray) -> list[float | None]:
    """For JSON, which knows no NaN; five digits are more than a plot shows."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]


def _flat(data: dict[str, object], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for name, value in data.items():
        out += _flat(value, f"{prefix}{name} ") if isinstance(value, dict) else [(prefix + name, str(value))]
    return out
