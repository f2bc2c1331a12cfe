"""What is said of damaged data: one line an episode or file, however many faults it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vla.data.source import EpisodeSource, Fault, Faulty
from vla.text import counted

#: What errors of readers advise besides fetching a file again.
LEAVE_OUT = "leave what is damaged out: vla data import --skip-damaged, or skip_damaged of a recipe's source."


_FAULTS = 5  # listed where nothing is left


def without_advice(line: str) -> str:
    """The same without :data:`LEAVE_OUT`, for where that is said already or is of no use."""
    return line.replace(f", or {LEAVE_OUT}", ".")


def damaged_episodes(source: EpisodeSource) -> list[Fault]:
    """What of a source could not be opened, or was left out because it is damaged; each with its reason.

    Of every format and view: our own store, also opened with ``tolerate_damage`` (damaged and lost commits,
    files that are missing), foreign formats opened with ``skip_damaged`` or ``tolerate_damage``. Episodes of
    which only a column or picture is damaged are not among them unless ``skip_damaged`` left them out. The
    numbers of episodes are those before anything was left out. :func:`damage_lines` makes text of it.
    """
    return source.faults() if isinstance(source, Faulty) else []


def damage_lines(faults: Iterable[Fault]) -> list[str]:
    """(episode, or None for no one's in particular; what is wrong) -> what to tell people.

    An episode gets one line, with its first fault and the number of the others; episodes of which the same is
    said share it.
    """
    found: dict[int | None, list[str]] = {}
    for episode, reason in faults:
        found.setdefault(episode, []).append(reason)
    shared: dict[str, list[int]] = {}
    lines = list(dict.fromkeys(found.pop(None, [])))
    for episode, reasons in found.items():
        assert episode is not None
        more = f" (and {counted(len(reasons) - 1, 'more fault')})" if len(reasons) > 1 else ""
        shared.setdefault(reasons[0] + more, []).append(episode)
    for reason, episodes in shared.items():
        many = f"episodes {spans(episodes)} ({len(episodes)})"
        lines.append(f"{many if len(episodes) > 1 else f'episode {episodes[0]}'}: {reason}")
    return lines


def no_whole_episode(path: Path, damaged: Sequence[str]) -> str:
    """What is said of a data set of which nothing is left, with the first of its faults."""
    lines = [f"\n  - {without_advice(line)}" for line in damaged[:_FAULTS]]
    if len(damaged) > _FAULTS:
        lines.append(f"\n  - and {counted(len(damaged) - _FAULTS, 'more fault')}")
    return f"{path} has no whole episode:{''.join(lines) or ' it is empty.'}"


def lengths_text(lengths: Mapping[str, int]) -> str:
    """``'rewards' 4, 'dones' 5``: of columns that are not equally long."""
    return ", ".join(f"{name!r} {length}" for name, length in lengths.items())


def spans(numbers: Sequence[int]) -> str:
    """``[1, 2, 3, 7]`` -> ``1-3, 7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
