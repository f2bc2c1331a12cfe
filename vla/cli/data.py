"""``vla data``: what is in an episode store, whether it is whole, and its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vla.cli.flags import parse


@dataclass(frozen=True)
class Data:
    """Look into an episode store.

    Args:
        action: info (what is in it), verify (read everything against its checksums; exit code 1 on
            damage), stats (mean, deviation and quantiles of every state and action entry).
        path: directory of the store.
    """

    action: tyro.conf.Positional[Literal["info", "verify", "stats"]]
    path: tyro.conf.Positional[Path]


def run(argv: Sequence[str]) -> int:
    flags = parse(Data, "data", argv)
    return {"info": info, "verify": verify, "stats": stats}[flags.action](flags.path)


def info(path: Path) -> int:
    """Totals, cells and cameras."""
    from vla.data.store import EpisodeStore
    from vla.data.summary import describe

    with EpisodeStore.open(path) as store:
        rows = describe(store)
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


def stats(path: Path) -> int:
    """A row for every entry of state and action, by embodiment, in the fields' units."""
    from vla.data.statistics import compute_statistics
    from vla.data.store import EpisodeStore
    from vla.report.tables import text_table

    with EpisodeStore.open(path) as store:
        statistics, embodiments = compute_statistics(store), store.embodiments
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
