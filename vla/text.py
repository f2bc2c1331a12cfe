"""Tables and prose for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

#: No line of prose is longer, however wide the terminal.
MAX_COLUMNS = 110


def wrapped(text: str) -> str:
    """Prose in lines that fit the terminal (80 columns where there is none)."""
    columns = shutil.get_terminal_size((80, 24)).columns
    return textwrap.fill(text, max(20, min(columns, MAX_COLUMNS)), break_on_hyphens=False)


def counted(number: int, noun: str) -> str:
    """``1 fault``, ``2 faults``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left, the others to the right."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(table[0]), "  ".join("-" * w for w in widths), *map(line, table[1:])])
