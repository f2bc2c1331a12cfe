"""How the Triton kernels cut their work, and what they refuse. Imports no Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from vla.errors import ConfigError

#: Rows a program handles: 16 fills a tensor core's smallest tile, 64 reaches warp-group instructions.
ROW_TILES = (16, 64)
COLUMNS, DEPTH, KEYS = 64, 64, 64
WARPS, STAGES = 4, 3
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_WIDTH = 128  # wider heads spill
MAX_ROW = 4096  # widest row that a program of the norm's backward pass holds


def row_tile(rows: int) -> int:
    """16 for a single chunk of 8 to 16 actions, 64 from 64 rows on."""
    return ROW_TILES[1] if rows >= ROW_TILES[1] else ROW_TILES[0]


def tiles(count: int, size: int) -> int:
    return -(-count // size)


def power_of_two(count: int, least: int = 16) -> int:
    return max(least, 1 << (count - 1).bit_length())


def check_same(**tensors: Tensor | None) -> None:
    """All of one dtype that the kernels know, on one device; anything else would be wrong silently."""
    given = {name: t for name, t in tensors.items() if t is not None}
    kinds = {(t.dtype, t.device) for t in given.values()}
    if len(kinds) != 1 or next(iter(kinds))[0] not in DTYPES:
        listing = ", ".join(f"{name}: {t.dtype} on {t.device}" for name, t in given.items())
        raise ConfigError(f"A fused operation needs one dtype of {DTYPES} on one device; given {listing}.")


def rows_of(name: str, value: Tensor | None, groups: int, width: int) -> Tensor | None:
    """``value`` as [G or 1, width] with unit last stride, or :class:`ConfigError`."""
    if value is None:
        return None
    if value.ndim != 2 or value.shape[1] != width or len(value) not in (1, groups):
        raise ConfigError(f"{name} must be [1 or {groups}, {width}], not {list(value.shape)}.")
    return value if value.stride(1) == 1 else value.contiguous()
