"""How fast training windows come out of our store, side by side with lerobot 0.6.1's own loader.

usage: python scripts/bench_data.py [--episodes 48] [--seconds 4] [--repeats 3] [--check]

The same rendered tabletop frames (two cameras of 128 px, two of 256 px), state, action and text are written
by lerobot itself, in our store and in our archive (video), once with all four cameras and once with the two
of 128 px. Then windows are drawn at random from each, in one run: with 0, 1 and 2 workers, every picture
at its full size. Without workers either side decodes in a few threads, as it does by itself; a worker of
ours decodes in one: on two cores one worker is slower than none, and leaves a core to training.
Both sides take turns, ``--repeats`` times; ratios are of one turn, and of these the least is judged. lerobot
runs in an environment of its own (scripts/lerobot_peer.py makes it: minutes).

Prints a table and, as its last line, everything as JSON. ``--check`` exits with 1 where a target is missed or
one of lerobot's settings did not run. scripts/bench_data_memory.py watches the memory for longer.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

for _variable, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(_variable, _value)

import numpy as np
import simplejpeg
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from bench_data_content import CAMERAS, CONTENTS, fill, load_raw, render, save_raw
from bench_data_memory import BATCH, HORIZON, MAX_GROWTH_MB, watch_memory
from lerobot_peer import run_in_peer

from vla.data.archive import VideoCodec, write_archive
from vla.data.batch import Batch
from vla.data.loader import BatchLoader
from vla.data.pictures import PictureReader
from vla.data.readers import open_raw
from vla.data.source import Frames, read_frames
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.summary import store_bytes
from vla.data.windows import WindowConfig, WindowDataset
from vla.embodiment import Embodiment
from vla.text import text_table
from vla.types import Episode

PEER = Path(__file__).with_name("bench_data_peer.py")
WORKERS = (0, 1, 2)
BACKENDS = ("pyav", "torchcodec")
MANY_EPISODES = 1000
TARGETS = {
    "speed over lerobot, 0 workers": (">=", 20.0),
    "speed over lerobot's best, 128 px": (">=", 10.0),
    "bytes of lerobot's, 128 px": ("<=", 3.5),
    "archive of raw frames: bytes of lerobot's": ("<=", 1.05),
    "archive of our store: bytes of lerobot's": ("<=", 1.05),
    "archive: speed over lerobot, 0 workers": (">=", 2.0),
    "share of decoding alone": (">=", 0.5),
    "first batch of 1000 episodes, s": ("<=", 2.0),
    "memory growth while sampling, MB": ("<=", MAX_GROWTH_MB),
}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How fast training windows come out of our store, side by side with lerobot's own loader.

    Args:
        arm: whose demonstrations.
        episodes: demonstrations, over several tasks.
        seconds: wall seconds spent on each figure of a turn.
        repeats: turns of ours and lerobot's.
        memory_minutes: how long memory is watched while sampling.
        first_batch: do nothing but time the first batch of this store (what the bench starts by itself).
        work: directory for frames and stores (default: a temporary one); frames there are used again.
        out: JSON file to write besides.
        check: exit with 1 where a target is missed.
    """

    arm: str = "panda"
    episodes: int = 48
    seconds: float = 4.0
    repeats: int = 3
    memory_minutes: float = 1.0
    first_batch: Path | None = None
    work: Path | None = None
    out: Path | None = None
    check: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class FullBatch:
    """A batch with the larger pictures beside it: uint8 [B 2 256 256 3]."""

    batch: Batch
    large: np.ndarray | None


class FullWindows:
    """Windows with every camera at its full size."""

    def __init__(self, store: EpisodeStore, cameras: tuple[str, ...]) -> None:
        roles = [CAMERAS[name][0] for name in cameras]
        small = [role for role, name in zip(roles, cameras, strict=True) if CAMERAS[name][2] == 128]
        config = WindowConfig(horizon=HORIZON, camera_roles=tuple(small), image_size=128)
        self.windows = WindowDataset(store, config, compute_statistics(store))
        large = [role for role in roles if role not in small]
        self._large = None
        if large:
            members = [(store, info) for store in self.windows.stores for info in store.episodes]
            self._large = PictureReader(members, roles=large, image_size=256, resize=False)

    def step_batch(
        self, *, seed: int, step: int, batch_size: int, rank: int = 0, world: int = 1
    ) -> FullBatch:
        batch = self.windows.step_batch(seed=seed, step=step, batch_size=batch_size, rank=rank, world=world)
        large = None if self._large is None else self._large.read(batch.index[:, 0], batch.index[:, 1])[0]
        return FullBatch(batch=batch, large=large)


def rate(
    batches: Iterator[Any], seconds: float, warm_up: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Windows a second of a clock; what was ready before is not counted."""
    for _ in range(warm_up):
        next(batches)
    begin, count = clock(), 0
    while (spent := clock() - begin) < seconds:
        next(batches)
        count += BATCH
    return count / spent


def our_rate(store: EpisodeStore, cameras: tuple[str, ...], workers: int, seconds: float) -> float:
    windows = FullWindows(store, cameras)
    with BatchLoader(windows, batch_size=BATCH, seed=0, num_workers=workers) as loader:
        return rate(loader, seconds, 3 + 3 * workers)


def decode_rate(
    store: EpisodeStore,
    cameras: tuple[str, ...],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The decode library alone, one thread: the same bytes, in memory, into one buffer."""
    frames = [
        [store.frame_reader(info.index, name).stored(t) for name in cameras]
        for info in store.episodes
        for t in range(info.length)
    ]
    buffers = [np.empty((CAMERAS[name][2], CAMERAS[name][2], 3), np.uint8) for name in cameras]
    rng = np.random.default_rng(0)

    def batches() -> Iterator[None]:
        while True:
            for number in rng.integers(len(frames), size=BATCH).tolist():
                for jpeg, buffer in zip(frames[number], buffers, strict=True):
                    simplejpeg.decode_jpeg(jpeg, "RGB", buffer=buffer, fastupsample=True)
            yield

    return rate(batches(), seconds, 3, clock)


def share_of_limit(store: EpisodeStore, cameras: tuple[str, ...], seconds: float) -> float:
    """Our windows over decoding alone, by CPU time (all threads), in turns."""
    pairs = []
    for _ in range(5):
        with BatchLoader(FullWindows(store, cameras), batch_size=BATCH, seed=0) as loader:
            ours = rate(loader, seconds / 4, 3, time.process_time)
        pairs.append(ours / decode_rate(store, cameras, seconds / 4, time.process_time))
    return float(np.median(pairs))


def picture_error(
    frames: Callable[[int, str], Frames], episodes: list[Episode], cameras: tuple[str, ...]
) -> dict[str, float]:
    """Mean absolute error of stored pictures by camera, grey levels, in every fourth episode.

    Args:
        frames: the stored pictures of (episode, camera).
        episodes: what was to be stored.
        cameras: of which cameras.
    """
    found = {}
    for name in cameras:
        errors = []
        for number in range(0, len(episodes), 4):
            wanted = np.stack([step.observation.images[name] for step in episodes[number].steps])
            got = read_frames(frames(number, name), range(len(wanted)))
            errors.append(np.abs(got.astype(int) - wanted).mean())
        found[name] = float(np.mean(errors))
    return found


def lerobot_error(path: Path, episodes: list[Episode], cameras: tuple[str, ...]) -> dict[str, float]:
    """The same of a data set in lerobot's own encoding."""
    raw = open_raw(path)
    try:
        return picture_error(
            lambda number, name: raw.frame_reader(number, f"observation.images.{name}"), episodes, cameras
        )
    finally:
        raw.close()


def first_batch_s(path: Path) -> dict[str, float]:
    """From nothing open to a batch, statistics included, in a process that has not seen the store before.

    ``opening`` begins once everything is imported, ``process`` with the process. What the system keeps of the
    files in memory is dropped first.
    """
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begin = time.perf_counter()
    call = [sys.executable, str(Path(__file__)), "--first-batch", str(path)]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return {"opening": float(done.stdout), "process": time.perf_counter() - begin}


def print_first_batch(path: Path) -> int:
    """What the process of :func:`first_batch_s` does."""
    begin = time.perf_counter()
    with EpisodeStore.open(path) as store:
        next(BatchLoader(FullWindows(store, CONTENTS["128 px"]), batch_size=BATCH, seed=0))
    print(time.perf_counter() - begin)
    return 0


def timed(text: str, call: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = call()
    print(f"  {text}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return result


def turn(
    peer: Path, store: EpisodeStore, archive: EpisodeStore, cameras: tuple[str, ...], seconds: float
) -> dict[str, dict[str, float]]:
    """Windows a second of everybody, by number of workers.

    Raises:
        RuntimeError: one of lerobot's settings does not run here.
    """
    rates: dict[str, dict[str, float]] = {}
    for backend in BACKENDS:
        ask = ["time", str(peer), backend, str(seconds), str(BATCH), str(HORIZON)]
        theirs = timed(backend, lambda: run_in_peer(PEER, ask, timeout_s=1800))  # noqa: B023
        failed = {workers: text for workers, text in theirs.items() if not isinstance(text, float)}
        if failed:
            raise RuntimeError(f"lerobot with {backend} did not run, by workers: {failed}")
        rates[f"lerobot {backend}"] = theirs
        rates[f"ours, beside {backend}"] = {str(w): our_rate(store, cameras, w, seconds) for w in WORKERS}
    rates["archive"] = {str(w): our_rate(archive, cameras, w, seconds) for w in WORKERS}
    rates["decoding alone"] = {"0": decode_rate(store, cameras, seconds)}
    return rates


def measure(work: Path, arm: Embodiment, episodes: list[Episode], flags: Bench, raw: Path) -> dict[str, Any]:
    """Everything for both contents."""
    found: dict[str, Any] = {}
    for content, cameras in CONTENTS.items():
        root = work / ("two" if len(cameras) == 2 else "four")
        store = timed("our store", lambda: fill(root.with_suffix(".zarr"), arm, episodes, cameras))  # noqa: B023
        video = root.with_suffix(".archive")
        archive = timed("our archive", lambda: fill(video, arm, episodes, cameras, VideoCodec()))  # noqa: B023
        again = root.with_suffix(".again")  # what an archive made of our JPEG store takes
        timed("archive of our store", lambda: write_archive(store, again, VideoCodec()))  # noqa: B023
        peer = root.with_suffix(".lerobot")
        wrote = ["write", str(raw), str(peer), *cameras]
        timed("lerobot's data set", lambda: run_in_peer(PEER, wrote, timeout_s=1800))  # noqa: B023
        sizes = {
            "ours": store_bytes(root.with_suffix(".zarr")),
            "archive": store_bytes(video),
            "archive of our store": store_bytes(again),
            "lerobot": store_bytes(peer),
        }
        turns = [turn(peer, store, archive, cameras, flags.seconds) for _ in range(flags.repeats)]
        found[content] = {
            "bytes": sizes,
            "windows_per_s": turns,
            "share_of_decoding": share_of_limit(store, cameras, flags.seconds),
            "error_grey_levels": {
                "ours": picture_error(store.frame_reader, episodes, cameras),
                "archive": picture_error(archive.frame_reader, episodes, cameras),
                "lerobot": lerobot_error(peer, episodes, cameras),
            },
        }
    many = [episodes[number % len(episodes)] for number in range(MANY_EPISODES)]
    path = work / "many.zarr"
    store = timed("1000 episodes", lambda: fill(path, arm, many, CONTENTS["128 px"]))
    found["first_batch_s"] = first_batch_s(path)
    loader = BatchLoader(FullWindows(store, CONTENTS["128 px"]), batch_size=BATCH, seed=0)
    seen = timed("memory", lambda: watch_memory(loader, flags.memory_minutes))
    found["memory"] = {"minutes": flags.memory_minutes, **asdict(seen)}
    return found


def ratios(rates: dict[str, dict[str, float]]) -> dict[str, float]:
    """Of one turn: ours over each setting of lerobot's that was measured beside it; the least."""
    beside = [(rates[f"ours, beside {b}"]["0"], rates[f"lerobot {b}"]) for b in BACKENDS]
    return {
        "0 workers": min(ours / theirs["0"] for ours, theirs in beside),
        "its best": min(ours / max(theirs.values()) for ours, theirs in beside),
        "archive": rates["archive"]["0"] / max(theirs["0"] for _, theirs in beside),
    }


def judge(found: dict[str, Any]) -> dict[str, float]:
    """The figures that have targets; of both contents and all turns, the worst for us."""
    turns = {name: [ratios(rates) for rates in found[name]["windows_per_s"]] for name in CONTENTS}
    every = [row for rows in turns.values() for row in rows]
    sizes = [found[name]["bytes"] for name in CONTENTS]
    small = found["128 px"]["bytes"]
    values = (
        min(row["0 workers"] for row in every),
        min(row["its best"] for row in turns["128 px"]),
        small["ours"] / small["lerobot"],
        max(size["archive"] / size["lerobot"] for size in sizes),
        max(size["archive of our store"] / size["lerobot"] for size in sizes),
        min(row["archive"] for row in every),
        min(found[name]["share_of_decoding"] for name in CONTENTS),
        found["first_batch_s"]["opening"],
        found["memory"]["growth_mb"],
    )
    return dict(zip(TARGETS, values, strict=True))


def medians(found: dict[str, Any]) -> dict[str, float]:
    """Of the ratios that are judged by their least, the median over the turns; the worse content."""
    columns = {}
    for name in ("0 workers", "its best", "archive"):
        contents = ["128 px"] if name == "its best" else list(CONTENTS)
        rows = [[ratios(rates)[name] for rates in found[c]["windows_per_s"]] for c in contents]
        columns[name] = min(float(np.median(row)) for row in rows)
    return columns


def report(found: dict[str, Any], results: dict[str, float]) -> bool:
    """Print the tables; whether every target is met."""
    rows = []
    for content in CONTENTS:
        turns = found[content]["windows_per_s"]
        for name in turns[0]:
            cells = [[rates[name][w] for rates in turns] for w in map(str, WORKERS) if w in turns[0][name]]
            rows.append([content, name, *(f"{np.median(c):.0f} ({min(c):.0f}..{max(c):.0f})" for c in cells)])
            rows[-1] += [""] * (2 + len(WORKERS) - len(rows[-1]))
    heads = [f"{w} workers" for w in WORKERS]
    print(text_table(["content", f"windows/s, batch of {BATCH}: median (range)", *heads], rows) + "\n")
    rows = [
        [content, *(f"{size / 1e6:.2f} MB" for size in found[content]["bytes"].values())]
        for content in CONTENTS
    ]
    print(text_table(["content", "our store", "our archive", "archive of our store", "lerobot"], rows) + "\n")
    met, rows = True, []
    for name, (sign, target) in TARGETS.items():
        good = results[name] >= target if sign == ">=" else results[name] <= target
        met = met and good
        rows.append([name, _figure(results[name]), f"{sign} {target:g}", "met" if good else "MISSED"])
    print(text_table(["figure (worst content, worst turn)", "here", "target", ""], rows))
    return met


def _figure(value: float) -> str:
    """Two digits, and no minus before zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def main() -> int:
    flags = tyro.cli(Bench, description=__doc__)
    if flags.first_batch is not None:
        return print_first_batch(flags.first_batch)
    with tempfile.TemporaryDirectory(prefix="bench_data_") as temporary:
        work = Path(temporary)
        raw = (flags.work or work) / "content.npz"
        if not raw.exists():
            raw.parent.mkdir(parents=True, exist_ok=True)
            arm, episodes = timed("rendering", lambda: render(flags.arm, flags.episodes))
            save_raw(arm, episodes, raw)
        arm, episodes = load_raw(raw)
        found = measure(work, arm, episodes, flags, raw)
    results = judge(found)
    met = report(found, results)
    facts = {"cpus": os.cpu_count(), "python": platform.python_version(), "episodes": len(episodes)}
    texts = {
        "claim": "random-access training windows from our store, beside lerobot 0.6.1's own loader: "
        f"speeds are the worst of {flags.repeats} turns",
        "target": "; ".join(f"{name} {sign} {target:g}" for name, (sign, target) in TARGETS.items()),
        "measured": "; ".join(f"{name} {_figure(results[name])}" for name in TARGETS),
        "command": f"python scripts/bench_data.py --episodes {flags.episodes} --seconds {flags.seconds:g} "
        f"--repeats {flags.repeats} --check --out docs/results/data.json",
    }
    result = {**texts, "results": results, "medians": medians(found), "met": met, **facts, **found}
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return int(flags.check and not met)


if __name__ == "__main__":
    sys.exit(main())
