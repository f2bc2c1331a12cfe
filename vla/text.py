"""Tables and prose for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest

#: No line of prose is longer, however wide the terminal.
MAX_COLUMNS = 110


def wrapped(text: str) -> str:
    """Prose in lines that fit the terminal (80 columns where there is none)."""
    columns = shutil.get_terminal_size((80, 24)).columns
    return textwrap.fill(text, max(20, min(columns, MAX_COLUMNS)), break_on_hyphens=False)


def listed(what: str, why: str) -> str:
    """One entry of a list, its further lines indented."""
    first, *rest = wrapped(f"- {what}: {why}").splitlines()
    return "\n".join([f"  {first}", *(f"    {line}" for line in rest)])


def counted(number: int, noun: str) -> str:
    """``1 fault``, ``2 faults``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def quoted(names: Iterable[object]) -> str:
    """``'a', 'b'``, in the order given; ``nothing`` where there is none: lists for people."""
    return ", ".join(map(repr, names)) or "nothing"


def sentence(text: object) -> str:
    """With one full stop at its end, whether the text (or error) came with one, several or none."""
    return f"{str(text).rstrip(' .')}."


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


def prose_table(header: Sequence[str], rows: Sequence[Sequence[str]], cap: int = 34) -> str:
    """Columns to the left; cells of all but the first are wrapped, the last has what is left of the line."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[0]) for row in table)]
    widths += [min(cap, max(len(row[i]) for row in table)) for i in range(1, len(header) - 1)]
    widths.append(max(cap, MAX_COLUMNS - sum(widths) - 2 * len(widths)))

    def lines(row: Sequence[str]) -> list[str]:
        cells = [[row[0]], *(textwrap.wrap(c, w) or [""] for c, w in zip(row[1:], widths[1:], strict=True))]
        return [
            "  ".join(part.ljust(w) for part, w in zip(parts, widths, strict=True)).rstrip()
            for parts in zip_longest(*cells, fillvalue="")
        ]

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([*lines(table[0]), rule, *(line for row in table[1:] for line in lines(row))])
