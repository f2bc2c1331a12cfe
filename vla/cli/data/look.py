"""``vla data info|verify|stats``: what is in a set of demonstrations, whether it is whole, its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.cli.flags import parse


@dataclass(frozen=True)
class Look:
    """Look into demonstrations.

    Args:
        path: directory or file; our store, or (info, stats) any format that 'vla data import' reads.
        description: embodiment file that says what the columns mean (default: the one beside the data).
    """

    path: tyro.conf.Positional[Path]
    description: Path | None = None


@dataclass(frozen=True)
class Verify:
    """Read an episode store against its checksums; exit code 1 on damage.

    Args:
        path: directory of the store.
    """

    path: tyro.conf.Positional[Path]


def run_info(argv: Sequence[str]) -> int:
    flags = parse(Look, "data info", argv)
    return info(flags.path, flags.description)


def run_verify(argv: Sequence[str]) -> int:
    return verify(parse(Verify, "data verify", argv).path)


def run_stats(argv: Sequence[str]) -> int:
    flags = parse(Look, "data stats", argv)
    return stats(flags.path, flags.description)


def info(path: Path, description: Path | None) -> int:
    """Totals, cells and cameras."""
    from vla.data.readers import open_source
    from vla.data.summary import describe

    source = open_source(path, description)
    rows = describe(source)
    source.close()
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return 0


def verify(path: Path) -> int:
    """Every fault on a line; 1 where there is one."""
    from vla.data.store import EpisodeStore

    with EpisodeStore.open(path, tolerate_damage=True) as store:
        damages, count = store.verify(), len(store)
    for damage in damages:
        where = "store" if damage.episode is None else f"episode {damage.episode}"
        print(f"{where}, {damage.column}: {damage.reason}")
    print(f"{path}: {count} episodes, " + (f"{len(damages)} faults" if damages else "all whole"))
    return int(bool(damages))


def stats(path: Path, description: Path | None) -> int:
    """A row for every entry of state and action, by embodiment, in the fields' units."""
    from vla.data.readers import open_source
    from vla.data.statistics import compute_statistics
    from vla.text import text_table

    source = open_source(path, description)
    statistics, embodiments = compute_statistics(source), source.embodiments
    source.close()
    for name, values in statistics.items():
        print(f"{name}: {values.num_episodes} episodes, {values.num_steps} steps")
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
