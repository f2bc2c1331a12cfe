"""Fill the results table of README.md from docs/results/*.json.

usage: python scripts/update_readme_results.py [--check]

Each file holds one measured claim, as the script that measured it wrote it:

    {"claim": "...", "command": "...", "measured": "96.0 % [90, 98] n=100", "target": ">= 95 %"}

``--check`` changes nothing and exits with 1 if the table is not what the files say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
KEYS = ("claim", "target", "measured", "command")


def table(rows: list[dict[str, str]]) -> str:
    """Markdown rows in the order of their file names, a line a figure; says so where there are none."""
    if not rows:
        return "Nothing has been measured yet."
    lines = ["| what | asked for | measured | command |", "|---|---|---|---|"]
    for row in rows:
        target, measured = (row[key].replace("; ", "<br>") for key in ("target", "measured"))
        lines.append(f"| {row['claim']} | {target} | {measured} | `{row['command']}` |")
    return "\n".join(lines)


def read_rows(folder: Path) -> list[dict[str, str]]:
    """One row a file; a file without one of ``KEYS`` raises KeyError."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [{key: row[key] for key in KEYS} for row in rows]


def filled(readme: str, content: str) -> str:
    """The README with ``content`` between the markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main() -> int:
    path = ROOT / "README.md"
    old = path.read_text()
    new = filled(old, table(read_rows(ROOT / "docs/results")))
    if "--check" in sys.argv[1:]:
        if new != old:
            print("README.md: the results table is stale; run python scripts/update_readme_results.py")
        return int(new != old)
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
