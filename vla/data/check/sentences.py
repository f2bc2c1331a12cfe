"""Checks of instructions: empty, not a sentence, broken text, misspelt words."""

from __future__ import annotations

import difflib
import re
from collections import Counter

from vla.data.check.findings import Finding

_PLACEHOLDERS = frozenset(
    {
        *(
            "none",
            "null",
            "nan",
            "n/a",
            "na",
            "todo",
            "tbd",
            "test",
            "testing",
            "task",
            "instruction",
            "text",
        ),
        *("unknown", "default", "dummy", "placeholder", "example", "untitled", "undefined", "string"),
        *("language_instruction", "no_instruction"),
    }
)
_FILE = re.compile(r"\.(hdf5|h5|zarr|parquet|json|mp4|pkl|npz|npy|bag|tfrecord|txt)\b|[/\\]\w+[/\\]", re.I)
_IDENTIFIER = re.compile(r"\w*(_|[a-z][A-Z]|\d{2,})\w*|[0-9a-f]{8,}|\w+(-\w+){2,}")
_BROKEN = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|[\x00-\x08\x0b-\x1f]|&[a-z]+;|<[a-z/][^>]*>")
#: A word said once that is this close to one said at least this often is taken for a slip.
_CLOSE, _COMMON, _LONG_ENOUGH = 0.8, 20, 5


class Sentences:
    """Looks at one instruction after the other, and at their words when all were seen."""

    def __init__(self) -> None:
        self._words: Counter[str] = Counter()
        self._first: dict[str, tuple[int, str]] = {}

    def check(self, episode: int, text: str) -> list[Finding]:
        """Findings in the instruction of one episode."""
        said = text.strip()
        if not said:
            given = "no instruction" if not text else f"only white space: {text!r}"
            return [Finding(kind="empty_instruction", episode=episode, message=given)]
        words = re.findall(r"[^\W\d_]+", said.lower())
        self._words.update(set(words))
        for word in words:
            self._first.setdefault(word, (episode, text))
        reason = _oddity(said)
        return [Finding(kind="odd_instruction", episode=episode, message=reason)] if reason else []

    def conclude(self) -> list[Finding]:
        """Words that only one episode has, close to a word that many have."""
        common = [w for w, n in self._words.items() if n >= _COMMON and len(w) >= _LONG_ENOUGH]
        found = []
        for word, count in self._words.items():
            if count > 1 or len(word) < _LONG_ENOUGH:
                continue
            close = difflib.get_close_matches(word, common, n=3, cutoff=_CLOSE)
            close = [c for c in close if not _inflected(word, c)]
            if close:
                episode, text = self._first[word]
                message = f"{text!r}: {word!r} is said once, {close[0]!r} {self._words[close[0]]} times"
                found.append(Finding(kind="misspelt_instruction", episode=episode, message=message))
        return found


def _oddity(text: str) -> str:
    """Why a text is no sentence; empty where it may be one."""
    if _BROKEN.search(text):
        return f"broken or marked-up text: {text!r}"
    if text.lower() in _PLACEHOLDERS:
        return f"a placeholder: {text!r}"
    if _FILE.search(text):
        return f"a file name: {text!r}"
    if " " not in text and _IDENTIFIER.fullmatch(text):
        return f"an identifier: {text!r}"
    if not any(c.isalpha() for c in text):
        return f"no word in it: {text!r}"
    return ""


def _inflected(a: str, b: str) -> bool:
    """Whether one word is the other with an ending (cube, cubes; close, closed)."""
    short, long = sorted((a, b), key=len)
    return long.startswith(short[:-1]) and len(long) - len(short) <= 3 and long != short
