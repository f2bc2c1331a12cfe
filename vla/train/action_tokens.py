"""The codec of the fast head, fitted to the actions that a run trains on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla.data.loader import BatchLoader
from vla.data.windows import WindowDataset
from vla.models.heads.action_codec import ActionCodec, hold

_BATCH, _BATCHES = 64, 32  # windows that the codec is fitted to


def fit_codec(
    windows: WindowDataset, action_index: Sequence[int], *, vocabulary: int, seed: int
) -> ActionCodec:
    """From a draw of the training windows, as the head will see them.

    Args:
        windows: of the run.
        action_index: entries of the padded action vector that the heads make.
        vocabulary: ids at most.
        seed: of the draw.
    """
    chunks = []
    loader = BatchLoader(windows, batch_size=_BATCH, seed=seed, rank=0, world=1, num_workers=0)
    try:
        for _ in range(_BATCHES):
            batch = next(loader)
            chunks.append(hold(batch.actions[..., action_index], batch.action_mask[..., action_index]))
    finally:
        loader.close()
    return ActionCodec.fit(np.concatenate(chunks), vocabulary=vocabulary)
