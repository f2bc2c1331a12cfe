"""Fewer visual tokens, by pooling or by choice.

One dial, ``keep`` in (0, 1]: the share of visual tokens that are left (1: nothing changes, exactly). What is
left out here costs trunk and head nothing. A language model has read it all the same: to spare that, give the
backbone smaller pictures or a down-sampling connector, or do not look again at what did not move
(:mod:`vla.models.reuse`).

Shapes: B batch, P prefix tokens, V views, R rows and C columns of a view's grid, n = V R C visual tokens,
k tokens kept, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones.interface import PrefixFeatures
from vla.models.layers import EncoderBlock


def visual_grid(
    holders_P: Tensor, num_pictures: int, cells: Callable[[int], Tensor | None] | None = None
) -> Tensor:
    """Places of visual tokens in a prompt, int64 [V R C].

    Args:
        holders_P: bool, true where a token is a picture's; pictures one after the other, as many tokens each.
        num_pictures: each of which is one view or more.
        cells: see :class:`vla.models.backbones.families.Family`; without it, or where it gives None, R is 1
            and C all tokens of a picture.
    """
    places = holders_P.nonzero()[:, 0].unflatten(0, (num_pictures, -1))
    grid = None if cells is None else cells(places.shape[1])
    return places[:, None] if grid is None else places[:, grid].flatten(0, 1)


def _split(prefix: PrefixFeatures, purpose: str) -> tuple[Tensor, Tensor, Tensor]:
    """Places of the others int64 [P - n], visual features [B V R C D], their mask bool [B V R C]."""
    if prefix.visual is None:
        raise ConfigError(
            f"{purpose} needs a backbone that says which of its tokens are pictures' patches "
            "(PrefixFeatures.visual); this one does not: leave compression out, or take another backbone."
        )
    other = torch.ones(prefix.features.shape[1], dtype=torch.bool, device=prefix.features.device)
    other[prefix.visual.flatten()] = False
    places = prefix.visual.flatten()
    shape = prefix.visual.shape
    mask = prefix.features.new_ones(prefix.features.shape[:2], dtype=torch.bool)
    mask = mask if prefix.mask is None else prefix.mask
    return (
        other.nonzero()[:, 0],
        prefix.features[:, places].unflatten(1, shape),
        mask[:, places].unflatten(1, shape),
    )


def _joined(
    prefix: PrefixFeatures, others: Tensor, tokens_BkD: Tensor, mask_Bk: Tensor, grid: tuple[int, ...] | None
) -> PrefixFeatures:
    """The other tokens, then the visual ones that are left."""
    mask = None if prefix.mask is None else torch.cat([prefix.mask[:, others], mask_Bk], dim=1)
    visual = None
    if grid is not None:
        end = len(others) + tokens_BkD.shape[1]
        visual = torch.arange(len(others), end, device=tokens_BkD.device).view(grid)
    features = torch.cat([prefix.features[:, others], tokens_BkD], dim=1)
    return PrefixFeatures(features, mask, prefix.auxiliary, visual)


class PoolTokens(nn.Module):
    """The mean of neighbouring patches: each side of the grid shrinks to about sqrt(keep)."""

    def __init__(self, width: int, keep: float) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, prefix: PrefixFeatures) -> PrefixFeatures:
        if self.keep == 1:
            return prefix
        others, tokens, mask = _split(prefix, "Pooling")
        views, rows, columns = tokens.shape[1:4]
        _need_grid(rows, columns, "Pooling")
        size = (max(1, round(rows * math.sqrt(self.keep))), max(1, round(columns * math.sqrt(self.keep))))
        pooled = F.adaptive_avg_pool2d(tokens.flatten(0, 1).permute(0, 3, 1, 2), size)
        tokens_BkD = pooled.permute(0, 2, 3, 1).unflatten(0, (-1, views)).flatten(1, 3)
        there = mask.flatten(2).any(-1, keepdim=True).expand(-1, -1, size[0] * size[1])
        return _joined(prefix, others, tokens_BkD, there.flatten(1), (views, *size))


class ShuffleTokens(nn.Module):
    """Pixel shuffle (as in InternVL and Idefics3): f x f patches side by side in one, then a linear layer.

    It starts as their mean.
    """

    def __init__(self, width: int, keep: float) -> None:
        super().__init__()
        self.factor = round(1 / math.sqrt(keep))
        if abs(keep * self.factor**2 - 1) > 1e-6:
            near = sorted({1 / max(1, self.factor + i) ** 2 for i in (-1, 0, 1)})
            raise ConfigError(f"Pixel shuffle keeps 1, 1/4, 1/9 ... of all tokens, not {keep}; near: {near}.")
        self.mix = nn.Linear(width * self.factor**2, width) if self.factor > 1 else None
        if self.mix is not None:
            with torch.no_grad():
                self.mix.weight.copy_(torch.eye(width).repeat(1, self.factor**2) / self.factor**2)
                self.mix.bias.zero_()

    def forward(self, prefix: PrefixFeatures) -> PrefixFeatures:
        if self.mix is None:
            return prefix
        others, tokens, mask = _split(prefix, "Pixel shuffle")
        views, rows, columns = tokens.shape[1:4]
        _need_grid(rows, columns, "Pixel shuffle")
        f = self.factor
        if rows % f or columns % f:
            raise ConfigError(f"Pixel shuffle by {f} does not divide a grid of {rows} x {columns} patches.")
        blocks = tokens.unflatten(3, (-1, f)).unflatten(2, (-1, f))  # [B V R/f f C/f f D]
        tokens_BkD = self.mix(blocks.transpose(3, 4).flatten(4).flatten(1, 3))
        there = mask[:, :, ::f, ::f].flatten(1)
        return _joined(prefix, others, tokens_BkD, there, (views, rows // f, columns // f))


def _chosen(
    prefix: PrefixFeatures, others: Tensor, tokens_BnD: Tensor, mask_Bn: Tensor, score_Bn: Tensor, keep: float
) -> PrefixFeatures:
    """The visual tokens of the highest scores, in their order; what is masked only where nothing else is."""
    score_Bn = score_Bn.masked_fill(~mask_Bn, float("-inf"))
    count = max(1, math.ceil(keep * tokens_BnD.shape[1]))
    best_Bk = score_Bn.topk(count, dim=1).indices.sort(dim=1).values
    chosen = tokens_BnD.gather(1, best_Bk[..., None].expand(-1, -1, tokens_BnD.shape[-1]))
    return _joined(prefix, others, chosen, mask_Bn.gather(1, best_Bk), None)


class AttendedTokens(nn.Module):
    """The visual tokens that the trunk's first block looks at: the attention that each receives, averaged
    over heads and over all tokens, the state among them, by that block's own queries and keys. FastV
    (arXiv:2403.06764) ranks so inside a language model. It is done before the block runs, which then
    computes the kept tokens alone. No weights of its own: as the attention learns, the choice follows.
    """

    def __init__(self, width: int, keep: float) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, prefix: PrefixFeatures, state_B1D: Tensor, block: EncoderBlock) -> PrefixFeatures:
        """Of projected features, with the state's token and the block that will read both."""
        if self.keep == 1:
            return prefix
        others, tokens, mask = _split(prefix, "Selection")
        tokens_BnD, mask_Bn = tokens.flatten(1, 3), mask.flatten(1)
        assert prefix.visual is not None  # _split has refused it
        given_BTD, places_n = torch.cat([state_B1D, prefix.features], dim=1), prefix.visual.flatten() + 1
        weight_BTn = block.attends(given_BTD, places_n, None if prefix.mask is None else mask_Bn).mean(1)
        if prefix.mask is not None:  # padding asks nothing
            real = F.pad(prefix.mask, (1, 0), value=True)
            weight_BTn = weight_BTn * real[..., None].to(weight_BTn.dtype)
        return _chosen(prefix, others, tokens_BnD, mask_Bn, weight_BTn.mean(1), self.keep)


class InstructedTokens(nn.Module):
    """The tokens that the instruction asks for: learned, through the score of what is kept."""

    def __init__(self, width: int, keep: float) -> None:
        super().__init__()
        self.keep = keep
        self.ask, self.answer = nn.Linear(width, width), nn.Linear(width, width)

    def score(self, prefix: PrefixFeatures, others: Tensor, tokens_BnD: Tensor) -> Tensor:
        """[B n] in 0..1, from the mean of the tokens that are no picture's."""
        words = F.layer_norm(prefix.features[:, others], prefix.features.shape[-1:])
        weight = words.new_ones(words.shape[:2]) if prefix.mask is None else prefix.mask[:, others].to(words)
        mean_BD = (words * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1.0)
        keys = self.answer(F.layer_norm(tokens_BnD, tokens_BnD.shape[-1:]))
        logits = (keys @ self.ask(mean_BD)[..., None])[..., 0] / math.sqrt(keys.shape[-1])
        return logits.sigmoid()

    def forward(self, prefix: PrefixFeatures) -> PrefixFeatures:
        if self.keep == 1:
            return prefix
        others, tokens, mask = _split(prefix, "Selection")
        tokens_BnD, mask_Bn = tokens.flatten(1, 3), mask.flatten(1)
        score_Bn = self.score(prefix, others, tokens_BnD)
        taught = tokens_BnD * (1 + (score_Bn - score_Bn.detach()))[..., None]  # changes no value
        return _chosen(prefix, others, taught, mask_Bn, score_Bn, self.keep)


def _need_grid(rows: int, columns: int, purpose: str) -> None:
    if rows == 1 and columns > 1:
        raise ConfigError(
            f"{purpose} needs a grid of patches; this backbone's {columns} tokens a picture are none: they "
            "are learned queries, or a picture in tiles. Take `attention` or `instruction`."
        )


COMPRESSORS: dict[str, type[nn.Module]] = {
    "pool": PoolTokens,
    "shuffle": ShuffleTokens,
    "attention": AttendedTokens,
    "instruction": InstructedTokens,
}


def build_compressor(name: str, width: int, keep: float) -> nn.Module | None:
    """Module ``PrefixFeatures -> PrefixFeatures`` in front of the projector, or None for ``none``;
    :class:`AttendedTokens` stands behind it and takes the state and the trunk's first block besides.

    Args:
        name: ``none``, ``pool``, ``shuffle``, ``attention`` or ``instruction``.
        width: D, of the backbone.
        keep: share of visual tokens that are left, in (0, 1].
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"keep is the share of visual tokens that are left, in (0, 1]: {keep}.")
    if name == "none":
        if keep != 1:
            raise ConfigError(f"keep is {keep}, but nothing compresses: choose one of {sorted(COMPRESSORS)}.")
        return None
    if name not in COMPRESSORS:
        raise UnknownNameError("compression of visual tokens", name, ("none", *COMPRESSORS))
    return COMPRESSORS[name](width, keep)
