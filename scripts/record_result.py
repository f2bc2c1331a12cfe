"""Write a judged run into docs/results: the claim, what was measured with n and interval, and every cell.

usage: python scripts/record_result.py RUN_DIR NAME --claim TEXT --target TEXT --command TEXT

Reads RUN_DIR/summary.json (written by ``vla eval``) and writes docs/results/NAME.json; then refresh the
README with scripts/update_readme_results.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def percent(rate: dict[str, Any]) -> str:
    """ "96.0 % [90, 98] n=100" of a stored rate."""
    low, high = rate["low"], rate["high"]
    return f"{100 * rate['rate']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] n={rate['n']}"


def measured(summary: dict[str, Any]) -> str:
    """Every condition's overall rate, and the worst cell of the first condition."""
    overall = summary["overall"]
    parts = [f"{condition}: {percent(group['success'])}" for condition, group in overall.items()]
    first = next(iter(overall))
    cells = [cell for cell in summary["by_cell"] if first in cell]
    worst = min(cells, key=lambda cell: cell[first]["success"]["rate"])
    name = f"{worst['task']} with {worst['embodiment']}"
    return "; ".join(parts) + f"; worst cell ({first}) {name}: {percent(worst[first]['success'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    for key in ("claim", "target", "command"):
        parser.add_argument(f"--{key}", required=True)
    args = parser.parse_args()
    summary = json.loads((args.run / "summary.json").read_text())
    result = {
        "claim": args.claim,
        "target": args.target,
        "measured": measured(summary),
        "command": args.command,
        "summary": summary,
    }
    path = ROOT / "docs/results" / f"{args.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path.relative_to(ROOT)}: {result['measured']}")


if __name__ == "__main__":
    main()
