"""Not looking again at what did not move: features of earlier frames, kept between decisions.

:class:`PatchReuse` spares the patches in which nothing moved, of a backbone that looks at each alone;
:class:`FrameReuse` whole frames, of any backbone. Both hold state between calls and are reset when an episode
begins; :func:`build_reuse` chooses.

Shapes: B batch, C cameras, N patches a camera, P prefix tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vla.errors import ConfigError
from vla.models.backbones.interface import PrefixFeatures

#: Grey levels (of 255) that a patch may differ by and still be reused, at ``keep`` near 0; none at 1.
REUSE_LEVELS = 8


def build_reuse(backbone: Any, keep: float) -> FrameReuse | PatchReuse:
    """What spares this backbone most.

    Args:
        keep: the dial, in (0, 1]; 1: features are as if computed anew.
    """
    by_patch = all(hasattr(backbone, name) for name in ("windows", "told", "look", "gather"))
    return PatchReuse.at(keep) if by_patch else FrameReuse.at(keep)


class FrameReuse:
    """Features of the last frame, for observations in which nothing moved; the backbone sees the others.

    Each frame is compared with the one that was encoded, so slow drift adds up and is seen. With ``keep`` 1
    and ``tolerance`` 0 the features are those of the backbone, exactly. Holds state between calls:
    :meth:`reset` when an episode begins.

    Args:
        keep: look again when more than ``1 - keep`` of a row's patches changed.
        patch: px, side of the squares that are compared.
        tolerance: a patch changed when a channel of a pixel differs by more than this (of 255).
    """

    def __init__(self, keep: float = 1.0, *, patch: int = 16, tolerance: int = 0) -> None:
        if not 0 < keep <= 1 or patch < 1 or tolerance < 0:
            raise ConfigError(
                f"keep in (0, 1], patch >= 1 and tolerance >= 0 expected: {keep}, {patch}, {tolerance}."
            )
        self.keep, self.patch, self.tolerance = keep, patch, tolerance
        self.asked = self.looked = 0  # observations so far, and those that the backbone saw
        self.episodes: tuple[int, ...] | None = None  # of the next call's rows; a row that changed is seen
        self.reset()

    @classmethod
    def at(cls, keep: float) -> FrameReuse:
        """As the dial says: exact at 1; below it, some patches may change, and all of them a little."""
        return cls(keep, tolerance=round(REUSE_LEVELS * (1 - keep)))

    def reset(self) -> None:
        """Forget the last frame."""
        self._whose: tuple[int, ...] | None = None
        self._given: tuple[Tensor | None, ...] | None = None
        self._seen: PrefixFeatures | None = None

    def forget(self, episodes: Collection[int]) -> None:
        """Let these episodes' rows be seen anew; with them, the other rows of the last frame."""
        if self._whose is None or set(self._whose) & set(episodes):
            self.reset()

    def __call__(self, backbone: Callable[..., PrefixFeatures], *given: Tensor | None) -> PrefixFeatures:
        """``backbone(*given)``, given images, image mask, token ids, token mask and embodiment."""
        images = given[0]
        assert images is not None
        self.asked += len(images)
        rows = self._moved(given)
        self._whose = self.episodes
        if rows.all() or self._seen is None or self._given is None:
            self._given, self._seen = given, backbone(*given)
            self.looked += len(images)
        elif rows.any():
            fresh = backbone(*(None if value is None else value[rows] for value in given))
            self.looked += int(rows.sum())
            self._given = tuple(_put(old, new, rows) for old, new in zip(self._given, given, strict=True))
            self._seen = _put_rows(self._seen, fresh, rows)
        return self._seen

    def _moved(self, given: tuple[Tensor | None, ...]) -> Tensor:
        """bool [B]: rows that must be encoded."""
        images = given[0]
        assert images is not None
        rows = torch.ones(len(images), dtype=torch.bool, device=images.device)
        if self._given is None or not all(map(_comparable, given, self._given)):
            return rows
        before = self._given[0]
        assert before is not None
        difference = (images.int() - before.int()).abs().amax(-1).float()
        patches = F.max_pool2d(difference, self.patch, ceil_mode=True) > self.tolerance
        rows = patches.float().flatten(1).mean(1) > 1 - self.keep + 1e-9
        for new, old in zip(given[1:], self._given[1:], strict=True):
            if new is not None and old is not None:
                rows = rows | (new != old).reshape(len(new), -1).any(1)
        if self.episodes is not None and self._whose is not None:
            other = [now != then for now, then in zip(self.episodes, self._whose, strict=True)]
            rows = rows | torch.tensor(other, device=rows.device)
        return rows


class PatchReuse:
    """Tokens of patches in which nothing moved, kept from when they were last looked at.

    A patch is looked at again when a value of its window differs by more than ``tolerance`` from the window
    that its token was made of (so slow drift adds up and is seen), or when instruction or arm changed. With
    tolerance 0 the features are those of the whole computation but for rounding (1e-5); with more, those of
    windows that differ from the true ones by at most that much. Holds state between calls: :meth:`reset`
    between episodes.

    Args:
        tolerance: grey levels of 255.
    """

    def __init__(self, tolerance: int = 0) -> None:
        if tolerance < 0:
            raise ConfigError(f"The tolerance is in grey levels, 0 or more: {tolerance}.")
        self.tolerance = tolerance
        self.asked = self.looked = 0  # patches so far, and those that were computed
        self.episodes: tuple[int, ...] | None = None  # whose the rows of the next call are; None: 0 .. B - 1
        self.reset()

    @classmethod
    def at(cls, keep: float) -> PatchReuse:
        """As the dial says: exact at 1, ``REUSE_LEVELS`` near 0."""
        return cls(round(REUSE_LEVELS * (1 - keep)))

    def forget(self, episodes: Collection[int]) -> None:
        """Forget these episodes."""
        for episode in episodes:
            self._kept.pop(episode, None)

    def reset(self) -> None:
        """Forget all episodes."""
        self._kept: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(
        self,
        backbone: Any,
        images: Tensor,
        image_mask: Tensor | None,
        token_ids: Tensor,
        token_mask: Tensor,
        embodiment_id: Tensor,
    ) -> PrefixFeatures:
        """``backbone(...)`` of the same arguments, without what auxiliary losses read."""
        episodes = tuple(range(len(images))) if self.episodes is None else self.episodes
        if len(set(episodes)) != len(images):
            raise ConfigError(f"{len(images)} rows of episodes {episodes}: expected one each.")
        windows = backbone.windows(images)  # [B C N w]
        _, told_B2D = backbone.told(token_ids, token_mask, embodiment_id)
        tokens = told_B2D.new_empty(*windows.shape[:3], told_B2D.shape[-1])
        moved = torch.ones(windows.shape[:3], dtype=torch.bool, device=images.device)
        seen = windows.clone()
        for row, episode in enumerate(episodes):
            kept = self._kept.get(episode)
            if kept is None or kept[0].shape != windows[row].shape:
                continue
            if torch.allclose(kept[1], told_B2D[row], atol=1e-5):
                moved[row] = (windows[row].int() - kept[0].int()).abs().amax(-1) > self.tolerance
                tokens[row] = kept[2]
                seen[row] = torch.where(moved[row, ..., None], windows[row], kept[0])
        place = moved.nonzero()
        if len(place):
            tokens[moved] = backbone.look(windows[moved], told_B2D, place)
        self.asked += moved.numel()
        self.looked += len(place)
        for row, episode in enumerate(episodes):
            self._kept[episode] = (seen[row], told_B2D[row], tokens[row])
        return backbone.gather(tokens, told_B2D, image_mask)


def _comparable(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and a.shape == b.shape)


def _put(old: Any, new: Any, rows: Tensor) -> Any:
    if old is None:
        return None
    kept = old.clone()
    kept[rows] = new[rows]
    return kept


def _put_rows(old: PrefixFeatures, fresh: PrefixFeatures, rows: Tensor) -> PrefixFeatures:
    def joined(before: Tensor, now: Tensor) -> Tensor:
        kept = before.clone()
        kept[rows] = now
        return kept

    mask = old.mask if old.mask is None or fresh.mask is None else joined(old.mask, fresh.mask)
    auxiliary = {name: joined(value, fresh.auxiliary[name]) for name, value in old.auxiliary.items()}
    return replace(old, features=joined(old.features, fresh.features), mask=mask, auxiliary=auxiliary)
