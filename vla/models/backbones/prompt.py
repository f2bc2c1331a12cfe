"""Instructions as token ids of one fixed length behind a head of prompt and pictures that never changes.

The head (what stands before the pictures, and the pictures' placeholders) is a constant; only the text after
it is tokenised per instruction, and padded on the right. So no prompt changes a shape or a position.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.errors import ConfigError, ObservationError
from vla.models.backbones.words import Tokens

_SPECIAL = re.compile(r"<[^<>\s]+>")
_KEPT = 10_000  # encoded instructions


@dataclass(frozen=True, eq=False)
class Head:
    """``ids`` int64 [h]; ``camera`` int64 [h]: 0 always there, i + 1: belongs to the picture of camera i;
    ``holders`` bool [h]: placeholders of pictures.
    """

    ids: np.ndarray
    camera: np.ndarray
    holders: np.ndarray


class PromptTokenizer:
    """Splits a prompt at its pictures and encodes the part behind them.

    Args:
        tokenizer: any of transformers' tokenizers.
        prompt, image: templates, see :class:`vla.models.backbones.families.Family`.
        max_tokens: length of every row; instructions that do not fit lose words at their end.
        holder_id: placeholder of a picture's tokens.

    Raises:
        ConfigError: a special token of the templates is not in the vocabulary.
    """

    def __init__(self, tokenizer: Any, prompt: str, image: str, max_tokens: int, holder_id: int) -> None:
        self.tokenizer, self.max_tokens, self.holder_id = tokenizer, max_tokens, holder_id
        marks = {"{bos}": tokenizer.bos_token or "", "{eos}": tokenizer.eos_token or ""}
        for mark, token in marks.items():
            prompt = prompt.replace(mark, token)
        self._before, self._after = prompt.split("{images}")
        self._image = image.split("{tokens}")
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in _SPECIAL.findall(prompt + image) if token not in vocabulary]
        if missing:
            raise ConfigError(
                f"The tokenizer has no token {missing[0]!r}, which the prompt {prompt!r} with pictures "
                f"{image!r} needs; set `prompt` in the backbone's settings to the one it was trained with."
            )
        self._cache: dict[str, tuple[list[int], tuple[str, ...]]] = {}

    def head(self, num_cameras: int, num_tokens: int) -> Head:
        """The constant part; each ``{tokens}`` of a picture becomes ``num_tokens`` placeholders."""
        ids, camera, holders = self._ids(self._before), [], []
        camera, holders = [0] * len(ids), [False] * len(ids)
        opening, *parts = (self._ids(part) for part in self._image)
        block, held = list(opening), [False] * len(opening)
        for part in parts:
            block += [self.holder_id] * num_tokens + part
            held += [True] * num_tokens + [False] * len(part)
        for i in range(num_cameras):
            ids += block
            camera += [i + 1] * len(block)
            holders += held
        return Head(np.array(ids, np.int64), np.array(camera, np.int64), np.array(holders, bool))

    def encode(self, instructions: Sequence[str]) -> Tokens:
        """int64 [b max_tokens]; unknown: words that were cut or that the tokenizer has no token for.

        Raises:
            ObservationError: an instruction that spells a picture's placeholder.
        """
        rows = [self._one(text) for text in instructions]
        pad = self.tokenizer.pad_token_id
        ids = np.full((len(rows), self.max_tokens), 0 if pad is None else pad, np.int64)
        mask = np.zeros(ids.shape, bool)
        for row, (values, _) in enumerate(rows):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = True
        return Tokens(ids, mask, tuple(unknown for _, unknown in rows))

    def length(self, instruction: str) -> int:
        """Tokens that the prompt behind the pictures takes with the whole of this instruction."""
        return len(self._filled(instruction))

    def _filled(self, instruction: str) -> list[int]:
        return self._ids(self._after.replace("{instruction}", instruction))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _one(self, text: str) -> tuple[list[int], tuple[str, ...]]:
        if text not in self._cache:
            if len(self._cache) >= _KEPT:
                self._cache.clear()
            self._cache[text] = self._encode_one(text)
        return self._cache[text]

    def _encode_one(self, text: str) -> tuple[list[int], tuple[str, ...]]:
        words = text.split()
        kept, ids = len(words), self._filled(text)
        if len(ids) > self.max_tokens:  # the first words that fit: fewer words are fewer tokens
            fewer = range(max(1, len(words)))
            kept = bisect(fewer, self.max_tokens, key=lambda n: self.length(" ".join(words[:n]))) - 1
            ids = self._filled(" ".join(words[: max(0, kept)]))
        if kept < 0:
            raise ConfigError(
                f"max_tokens {self.max_tokens} is too few for the prompt's own {len(ids)} tokens."
            )
        if self.holder_id in ids:
            raise ObservationError(f"The instruction {text!r} spells the token that stands for a picture.")
        unk = self.tokenizer.unk_token_id
        unknown = [word for word in words[:kept] if unk is not None and unk in self._ids(word)]
        return ids, (*unknown, *words[kept:])
