"""Augmentation of a training batch, on bytes: cheap, and no larger than the batch itself.

Pictures move and change colour. They are never mirrored: "left" would become a lie.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from vla.data.batch import Batch

#: Where what was asked for is -> where what else could have been asked for is (``vla.interfaces.AUX_KEYS``).
_OTHERS = {
    f"{view}{thing}_{kind}": f"{view}other_{thing}_{kind}"
    for view, kind in (("", "position"), ("front_", "uv"), ("wrist_", "uv"))
    for thing in ("target", "goal")
}


def ask_otherwise(batch: Batch, rng: np.random.Generator, share: float) -> Batch:
    """Give a share of the samples another instruction that their scene could be given.

    Where its target and goal are is known, what to do about it is not: the actions of these samples are
    masked, and they teach nothing but to look where the words point.
    """
    if share == 0:
        return batch
    known = np.array([bool(text) for text in batch.other_instructions])
    chosen = known & (rng.random(len(known)) < share)
    texts = zip(chosen, batch.other_instructions, batch.instructions, strict=True)
    aux = {key: np.where(chosen[:, None], batch.aux[other], batch.aux[key]) for key, other in _OTHERS.items()}
    return replace(
        batch,
        instructions=[other if yes else text for yes, other, text in texts],
        aux={**batch.aux, **aux},
        action_mask=batch.action_mask & ~chosen[:, None, None],
    )


def shift_images(
    images: np.ndarray, uv: np.ndarray, rng: np.random.Generator, limit_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move every picture by whole pixels, its edge repeated, and its labels with it.

    Args:
        images: uint8 [B C h w 3].
        uv: float32 [B C k 2], points in [-1, 1] (x right, y down), NaN: none.
        rng: one move for each picture.
        limit_px: largest move in x and in y.

    Returns:
        Moved images and labels; labels that leave the picture become NaN.
    """
    batch, cameras, height, width = images.shape[:4]
    if limit_px == 0:
        return images, uv
    move = rng.integers(-limit_px, limit_px + 1, size=(batch, cameras, 2))  # x, y
    columns = np.clip(np.arange(width) - move[..., :1], 0, width - 1)
    rows = np.clip(np.arange(height) - move[..., 1:], 0, height - 1)
    moved = np.empty_like(images)
    for index in np.ndindex(batch, cameras):
        moved[index] = images[index][rows[index]][:, columns[index]]
    uv = uv + (2 * move / (width, height)).astype(np.float32)[:, :, None]
    inside = (np.abs(uv) <= 1).all(axis=-1, keepdims=True)
    return moved, np.where(inside, uv, np.float32(np.nan))


def jitter_colours(images: np.ndarray, rng: np.random.Generator, gain: float, offset: float) -> np.ndarray:
    """Scale and shift each colour channel of each picture; uint8 [B C h w 3] in and out."""
    if gain == 0 and offset == 0:
        return images
    out = np.empty_like(images)
    shape = (*images.shape[:2], 1, 3)
    scale = 1 + gain * rng.uniform(-1, 1, shape)
    shift = 255 * offset * rng.uniform(-1, 1, shape)
    levels = np.arange(256)[:, None]
    tables = np.clip(levels * scale + shift + 0.5, 0, 255).astype(np.uint8)  # [B C 256 3]
    for index in np.ndindex(images.shape[:2]):
        out[index] = cv2.LUT(images[index], tables[index][:, None])
    return out


def drop_words(ids: np.ndarray, mask: np.ndarray, rng: np.random.Generator, rate: float) -> np.ndarray:
    """Replace words by the unknown word (id 1) at ``rate``."""
    return np.where(mask & (rng.random(ids.shape) < rate), 1, ids)
