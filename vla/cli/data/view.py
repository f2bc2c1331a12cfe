"""``vla data view``: episodes as self-contained pages, or as a Rerun recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import explained, parse
from vla.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from vla.data.source import EpisodeSource


@dataclass(frozen=True, kw_only=True)
class View(Demonstrations):
    """Write a page of an episode: cameras, plots of state and action, instruction, provenance.

    Args:
        episode: numbers, from 0: one or several, e.g. 0 or 0,4,7.
        out: the page; of several episodes a folder for their pages.
        rerun: write a Rerun recording to this file instead (the 'rerun' extra); of one episode.
    """

    episode: str = "0"
    out: Annotated[Path | None, explained("episode_<number>.html here")] = None
    rerun: Annotated[Path | None, explained("none, a page")] = None


def run_view(argv: Sequence[str]) -> int:
    flags = parse(View, "data view", argv)
    numbers = _numbers(flags.episode)
    source = flags.open_to_look()
    try:
        _write(flags, source, numbers)
    finally:
        source.close()
    return 0


def _write(flags: View, source: EpisodeSource, numbers: list[int]) -> None:
    from vla.report.data_view import write_episode_page
    from vla.report.recording import write_recording

    for number in numbers:
        if not 0 <= number < len(source):
            raise DatasetError(f"{flags.path} has the episodes 0 to {len(source) - 1}, not {number}.")
    if flags.rerun is not None:
        if len(numbers) > 1 or flags.out is not None:
            raise ConfigError("--rerun writes one recording of one episode, and no page beside it.")
        print(f"recording: {write_recording(source, numbers[0], flags.rerun)}")
        return
    for number in numbers:
        path = Path(f"episode_{number}.html")
        if flags.out is not None:
            path = flags.out if len(numbers) == 1 else flags.out / path
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"page: {write_episode_page(source, number, path)} ({path.stat().st_size / 1e3:.0f} kB)")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--episode is {text!r}, expected numbers: 0 or 0,4,7.") from None
