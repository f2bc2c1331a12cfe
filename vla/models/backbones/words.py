"""Word-level tokenizer: lower case, punctuation stripped, one id a word, unknown words reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

PAD, UNKNOWN = "<pad>", "<unk>"
_WORD = re.compile(r"\w+", re.UNICODE)


@dataclass(frozen=True, eq=False)
class Tokens:
    """``ids`` int64 [b l], ``mask`` bool [b l] (true: a real word), ``unknown``: per row, words not known."""

    ids: np.ndarray
    mask: np.ndarray
    unknown: tuple[tuple[str, ...], ...]


def split_words(instruction: str) -> list[str]:
    """``"Put the RED cube, please!"`` -> ``["put", "the", "red", "cube", "please"]``."""
    return _WORD.findall(instruction.lower())


def build_vocabulary(instructions: Iterable[str]) -> list[str]:
    """``<pad>``, ``<unk>``, then every word of the instructions, sorted."""
    return [PAD, UNKNOWN, *sorted({word for text in instructions for word in split_words(text)})]


class WordTokenizer:
    """Encodes instructions with a fixed vocabulary."""

    def __init__(self, vocabulary: Sequence[str], max_words: int) -> None:
        if list(vocabulary[:2]) != [PAD, UNKNOWN] or len(set(vocabulary)) != len(vocabulary):
            raise ValueError(
                f"A vocabulary starts with {PAD!r}, {UNKNOWN!r} and repeats no word: {vocabulary[:5]}"
            )
        self.max_words = max_words
        self._ids = {word: i for i, word in enumerate(vocabulary)}
        self._cache: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {}

    def encode(self, instructions: Sequence[str]) -> Tokens:
        """Rows are padded to the longest instruction; words past ``max_words`` count as unknown."""
        rows = [self._encode_one(text) for text in instructions]
        length = max((len(ids) for ids, _ in rows), default=1)
        ids = np.zeros((len(rows), length), np.int64)
        mask = np.zeros((len(rows), length), bool)
        for row, (values, _) in enumerate(rows):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = True
        return Tokens(ids, mask, tuple(unknown for _, unknown in rows))

    def _encode_one(self, text: str) -> tuple[np.ndarray, tuple[str, ...]]:
        if text not in self._cache:
            if len(self._cache) > 10_000:
                self._cache.clear()
            words = split_words(text)
            kept = words[: self.max_words]
            unknown = tuple(w for w in kept if w not in self._ids) + tuple(words[self.max_words :])
            ids = [self._ids.get(word, 1) for word in kept] or [1]
            self._cache[text] = (np.array(ids, np.int64), unknown)
        return self._cache[text]
