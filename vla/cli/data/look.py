"""``vla data info|verify|stats``: what is in a set of demonstrations, whether it is whole, its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vla.cli.data.flags import DataPath, Demonstrations
from vla.cli.flags import parse


@dataclass(frozen=True, kw_only=True)
class Info(Demonstrations):
    """What is in demonstrations: totals, tasks, cameras, who says what the columns mean, what is left out."""


@dataclass(frozen=True, kw_only=True)
class Stats(Demonstrations):
    """Statistics of every entry of state and action, in the fields' units; the columns must be described."""


@dataclass(frozen=True)
class Verify:
    """Read every byte of the episodes and metadata of a store of ours against its checksums; exit code 1 on
    damage. Other formats: vla data check.

    Args:
        path: directory or URL of the store.
    """

    path: DataPath


def run_info(argv: Sequence[str]) -> int:
    from vla.data.summary import describe

    source = parse(Info, "data info", argv).open_to_look()
    rows = describe(source)
    source.close()
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return 0


def run_verify(argv: Sequence[str]) -> int:
    """A line for each damaged episode or file; 1 where there is one."""
    from vla.data.damage import damage_lines
    from vla.data.store import EpisodeStore
    from vla.text import counted

    path = parse(Verify, "data verify", argv).path
    with EpisodeStore.open(path, tolerate_damage=True) as store:
        damages, count, checksummed = store.verify(), len(store), store.checksummed
    for line in damage_lines((damage.episode, f"{damage.column}: {damage.reason}") for damage in damages):
        print(line)
    hurt = len({damage.episode for damage in damages} - {None})
    faults = f"{counted(len(damages), 'fault')}, {counted(hurt, 'episode')} damaged"
    print(f"{path}: {counted(count, 'episode')}, {faults if damages else 'all whole'}")
    if not checksummed:
        print("Metadata of this older format have no checksums: they were compared with the episodes.")
    return int(bool(damages))


def run_stats(argv: Sequence[str]) -> int:
    """A row for every entry of state and action, by embodiment, in the fields' units."""
    from vla.data.statistics import compute_statistics
    from vla.text import counted, text_table

    source = parse(Stats, "data stats", argv).open_to_look()
    statistics, embodiments = compute_statistics(source), source.embodiments
    source.close()
    for name, values in statistics.items():
        print(f"{name}: {counted(values.num_episodes, 'episode')}, {counted(values.num_steps, 'step')}")
        arm, rows = embodiments[name], []
        for kind, fields, vector in (
            ("state", arm.state, values.state),
            ("action", arm.action, values.action),
        ):
            labels = [(f"{kind} {f.name}[{i}]", f.unit) for f in fields for i in range(f.size)]
            columns = (vector.mean, vector.std, vector.min, vector.q01, vector.q99, vector.max)
            for i, (label, unit) in enumerate(labels):
                rows.append([label, unit, *(f"{column[i]:.4f}" for column in columns)])
        print(text_table(["entry", "unit", "mean", "std", "min", "1 %", "99 %", "max"], rows) + "\n")
    return 0
