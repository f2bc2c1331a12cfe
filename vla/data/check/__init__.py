"""Quality of demonstrations: what would cost success in training, found before it does.

``check`` reads every number and a sample of the pictures of any :class:`~vla.data.source.EpisodeSource`. What
it cannot read is a finding, not a crash. ``vla.data.fix`` repairs what can be repaired.
"""

from __future__ import annotations

from tqdm import tqdm

from vla.data.check.agreement import Agreement, pairs
from vla.data.check.columns import ColumnJumps
from vla.data.check.config import CheckConfig
from vla.data.check.edges import Edges
from vla.data.check.findings import (
    GROUPS,
    KINDS,
    OF_AGREEMENT,
    OF_PICTURES,
    SEVERITIES,
    Finding,
    Report,
    Severity,
    expand_kinds,
)
from vla.data.check.frozen_state import FrozenState
from vla.data.check.motion import (
    check_idle,
    check_jumps,
    check_length,
    check_time,
    check_values,
    still_steps,
)
from vla.data.check.pictures import check_pictures
from vla.data.check.sentences import Sentences
from vla.data.check.signals import (
    Signals,
    Typical,
    as_signals,
    learn_typical,
    one_line,
    read_columns,
    shortened,
)
from vla.data.check.whole import Population
from vla.data.damage import damage_lines, damaged_episodes
from vla.data.source import EpisodeSource
from vla.data.undescribed import NEEDS_MEANING, UndescribedSource
from vla.errors import VlaError

__all__ = [
    "GROUPS",
    "KINDS",
    "OF_PICTURES",
    "SEVERITIES",
    "CheckConfig",
    "Finding",
    "Report",
    "Severity",
    "check",
    "expand_kinds",
    "not_opened",
]


def check(source: EpisodeSource, config: CheckConfig | None = None, *, progress: bool = False) -> Report:
    """Look at all episodes, one at a time.

    Args:
        source: demonstrations in any format; for those that do not open because something in them is
            damaged, ``open_source(path, tolerate_damage=True)``.
        config: thresholds.
        progress: show a bar.
    """
    config = config or CheckConfig()
    usual = learn_typical(source, config)
    populations = {
        name: Population(arm=source.embodiments[name], usual=typical, config=config)
        for name, typical in usual.items()
    }
    agreements = {name: Agreement(arm=source.embodiments[name], config=config) for name in usual}
    edges = {name: Edges(arm=source.embodiments[name], config=config) for name in usual}
    frozen = {
        name: FrozenState(arm=source.embodiments[name], usual=typical, config=config)
        for name, typical in usual.items()
    }
    told = not isinstance(source, UndescribedSource)
    columns_alone = {} if told else {n: ColumnJumps(arm=source.embodiments[n], config=config) for n in usual}
    sentences, num_frames = Sentences(), 0
    left_out = _left_out(source, config)
    lost = [shortened(line, source) for line in damage_lines(damaged_episodes(source))]
    found = [Finding(kind="missing", message=line) for line in lost]
    for info in tqdm(source.episodes, desc="checking", unit="episode", disable=not progress):
        found += sentences.check(info.index, info.instruction)
        columns, damage = read_columns(source, info.index)
        found += damage
        if "time_s" in columns:
            hz = source.embodiments[info.embodiment].control_hz
            found += check_time(info.index, columns["time_s"], hz, config)
        signals, moved = as_signals(source, info.index, columns), None
        if not info.length:
            found.append(Finding(kind="short_episode", episode=info.index, value=0.0, message="no steps"))
        if signals is not None and info.embodiment in usual:
            found += _check_numbers(signals, usual[info.embodiment], config, told=told)
            populations[info.embodiment].add(signals)
            agreements[info.embodiment].add(signals)
            edges[info.embodiment].add(signals)
            frozen[info.embodiment].add(signals)
            if not told:
                columns_alone[info.embodiment].add(signals)
            if signals.arm.state_dim:
                moved = ~still_steps(signals, usual[info.embodiment], config)
        if config.frames != "none":
            pictures, num_read = check_pictures(source, info.index, moved, config)
            found += pictures
            num_frames += num_read
    found += sentences.conclude()
    for name in usual:
        found += [*populations[name].conclude(), *agreements[name].conclude(), *edges[name].conclude()]
        found += frozen[name].conclude()
    found += [finding for jumps in columns_alone.values() for finding in jumps.conclude()]
    return Report(
        path=str(source.path),
        num_episodes=len(source.episodes),
        num_steps=sum(info.length for info in source.episodes),
        num_frames_read=num_frames,
        findings=tuple(finding for finding in found if finding.kind not in left_out),
        left_out=left_out,
    )


def not_opened(path: str, error: VlaError) -> Report:
    """The report on a data set that cannot even be opened in spite of damage: this one fault."""
    fault = Finding(kind="missing", message=one_line(error))
    others = {kind: "a data set that can be opened" for kind in KINDS if kind != fault.kind}
    return Report(
        path=path, num_episodes=0, num_steps=0, num_frames_read=0, findings=(fault,), left_out=others
    )


def _left_out(source: EpisodeSource, config: CheckConfig) -> dict[str, str]:
    """Kinds that are not looked for, and what that would take."""
    found = dict(NEEDS_MEANING) if isinstance(source, UndescribedSource) else {}
    if not any(pairs(source.embodiments[name]) for name in {info.embodiment for info in source.episodes}):
        found |= dict.fromkeys(OF_AGREEMENT, "an action entry that says where an entry of the state goes")
    if config.frames == "none":
        found |= dict.fromkeys(OF_PICTURES, "pictures")
    elif config.frames == "sampled":
        found["odd_frame"] = "all pictures"
    return found


def _check_numbers(signals: Signals, usual: Typical, config: CheckConfig, *, told: bool) -> list[Finding]:
    """``told``: somebody says which columns are positions."""
    return [
        *check_length(signals, usual, config),
        *(check_jumps(signals, usual, config) if told else []),
        *check_values(signals, usual, config),
        *check_idle(signals, usual, config),
    ]
