"""What every page of this package is made of: one self-contained HTML file that asks nothing of a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from vla.files import write_text
from vla.report.style import CSS

_NARROW, _LONG = 40, " class='long'"  # characters of a head that is never broken
POLICY_OF_NO_REQUESTS = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def write_document(path: Path, *, title: str, body: str, style: str = "", script: str = "") -> Path:
    """Write a page around ``body``; returns ``path``.

    Args:
        path: of the HTML file.
        title: plain text.
        body: HTML.
        style: added to the common style sheet.
        script: JavaScript, part of the page; none is allowed where this is empty.
    """
    policy = POLICY_OF_NO_REQUESTS + ("; script-src 'unsafe-inline'" if script else "")
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}{style}</style></head>\n<body><main>\n{body}\n</main>"
        + (f"\n<script>{script}</script>" if script else "")
        + "</body></html>\n",
    )
    return path


def section(title: str, content: str) -> str:
    """A titled part; empty where the content is."""
    return f"<section><h2>{html.escape(title)}</h2>\n{content}</section>" if content else ""


def card(name: str, value: str, small: str) -> str:
    """A number worth a large print."""
    return (
        f"<div class='card'><p>{html.escape(name)}</p><strong>{html.escape(value)}</strong>"
        f"<small>{html.escape(small)}</small></div>"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """Plain texts as a table, the first column as row heads; ``kind``: its class in the style sheet."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{_LONG if tag == 'th' and len(text) > _NARROW else ''}>{html.escape(text)}</{tag}>"
            for text in texts
        )

    body = "".join(f"<tr>{cells('th', row[:1])}{cells('td', row[1:])}</tr>" for row in rows)
    return (
        f"<div class='scroll'><table{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}><thead><tr>"
        f"{cells('th', header)}</tr></thead><tbody>{body}</tbody></table></div>"
    )
