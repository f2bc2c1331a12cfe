"""Write a judged run into docs/results: the claim, what was measured with n and interval, and every cell.

usage: python scripts/record_result.py RUN_DIR NAME --claim TEXT --target TEXT --command TEXT
           [--min-mean 0.9] [--min-worst-cell 0.75] [--chance RUN_DIR]

Reads RUN_DIR/summary.json (written by ``vla eval``) and writes docs/results/NAME.json; then refresh the
README with scripts/update_readme_results.py. ``--min-mean`` holds for every condition but those with blank
cameras; ``--min-worst-cell`` for the first condition. ``--chance`` is a run of policies that neither look nor
listen (zero, random), on the same seeds: blank cameras must not do better than its best interval. Exits 1
where a bound is missed; the result is written all the same, with what was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BLANK = "blank"


def percent(rate: dict[str, Any]) -> str:
    """ "96.0 % [90, 98] n=100" of a stored rate."""
    return f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}] n={rate['n']}"


def worst_cell(summary: dict[str, Any], condition: str) -> tuple[str, dict[str, Any]]:
    """Name and rate of the cell with the lowest success under a condition."""
    cells = [cell for cell in summary["by_cell"] if condition in cell]
    worst = min(cells, key=lambda cell: cell[condition]["success"]["rate"])
    return f"{worst['task']} with {worst['embodiment']}", worst[condition]["success"]


def measured(summary: dict[str, Any]) -> str:
    """Every condition's overall rate and worst cell."""
    parts = []
    for condition, group in summary["overall"].items():
        name, rate = worst_cell(summary, condition)
        parts.append(f"{condition}: {percent(group['success'])}, worst cell {name} {percent(rate)}")
    for condition, mean in summary.get("mean_of_levels", {}).items():
        levels = [
            f"{level} {percent(group[condition]['success'])}" for level, group in summary["by_level"].items()
        ]
        parts.append(f"mean of {len(levels)} levels {100 * mean:.1f} % ({', '.join(levels)})")
    return "; ".join(parts)


def misses(
    summary: dict[str, Any], *, min_mean: float, min_worst_cell: float, chance: dict[str, Any] | None
) -> list[str]:
    """What falls short of the bounds, in words."""
    found = []
    overall = {condition: group["success"] for condition, group in summary["overall"].items()}
    for condition, rate in overall.items():
        if BLANK not in condition and rate["rate"] < min_mean:
            found.append(f"{condition}: mean {percent(rate)} is below {100 * min_mean:.0f} %")
    first = next(iter(overall))
    name, rate = worst_cell(summary, first)
    if rate["rate"] < min_worst_cell:
        found.append(f"worst cell {name} {percent(rate)} is below {100 * min_worst_cell:.0f} %")
    if chance is not None:
        ceiling = max(group["success"]["high"] for group in chance["overall"].values())
        for condition, rate in overall.items():
            if BLANK in condition and rate["low"] > ceiling:
                found.append(f"{condition}: {percent(rate)} is above chance ({100 * ceiling:.1f} % at most)")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    for key in ("claim", "target", "command"):
        parser.add_argument(f"--{key}", required=True)
    parser.add_argument("--min-mean", type=float, default=0.0)
    parser.add_argument("--min-worst-cell", type=float, default=0.0)
    parser.add_argument("--chance", type=Path)
    args = parser.parse_args()
    summary = json.loads((args.run / "summary.json").read_text())
    chance = json.loads((args.chance / "summary.json").read_text()) if args.chance else None
    missed = misses(summary, min_mean=args.min_mean, min_worst_cell=args.min_worst_cell, chance=chance)
    text = measured(summary)
    if chance is not None:
        text += "; chance: " + ", ".join(percent(g["success"]) for g in chance["overall"].values())
    result = {
        "claim": args.claim,
        "target": args.target,
        "measured": text + "".join(f"; MISSED: {m}" for m in missed),
        "command": args.command,
        "summary": summary,
    }
    path = ROOT / "docs/results" / f"{args.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path.relative_to(ROOT)}: {result['measured']}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
