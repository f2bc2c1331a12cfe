"""From a batch of stored windows to what the network eats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from vla.data.batch import Batch
from vla.interfaces import NUM_THINGS
from vla.models.backbones import Backbone
from vla.models.backbones.interface import KINDS
from vla.models.heads.history import Past
from vla.models.policy_net import PolicyInputs, PolicyLabels, Things
from vla.train.augment import ask_otherwise, drop_words, jitter_colours, shift_images
from vla.train.config import AugmentConfig

DM_PER_M = 10.0


def prepare_batch(
    batch: Batch,
    *,
    backbone: Backbone,
    camera_roles: Sequence[str],
    embodiments: Sequence[str],
    augment: AugmentConfig | None,
    rng: np.random.Generator,
    device: torch.device,
) -> tuple[PolicyInputs, PolicyLabels]:
    """Tokenize, augment (``augment`` None: not), make labels relative to the tool, move to ``device``."""
    if augment is not None:
        batch = ask_otherwise(batch, rng, augment.other_share)
    images = batch.images
    uv = np.concatenate([keypoint_labels(batch, camera_roles), thing_labels(batch, camera_roles)], axis=2)
    tokens = backbone.tokenize(list(batch.instructions))
    ids = tokens.ids
    if augment is not None:
        images, uv = shift_images(images, uv, rng, augment.shift_px)
        images = jitter_colours(images, rng, augment.gain, augment.offset)
        ids = drop_words(ids, tokens.mask, rng, augment.word_dropout)

    def tensor(value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(value)).to(device, non_blocking=True)

    places = {name: i for i, name in enumerate(embodiments)}
    inputs = PolicyInputs(
        images=tensor(images),
        image_mask=None if batch.image_mask.all() else tensor(batch.image_mask),
        token_ids=tensor(ids),
        token_mask=tensor(tokens.mask),
        embodiment_id=tensor(np.array([places[name] for name in batch.embodiments], np.int64)),
        state=tensor(batch.state),
        state_mask=tensor(batch.state_mask),
        past=_past(batch, tensor),
    )
    labels = PolicyLabels(
        actions=tensor(batch.actions),
        action_mask=tensor(batch.action_mask),
        location_dm=tensor(location_labels(batch)),
        keypoint_uv=tensor(uv[:, :, : len(KINDS)]),
        things=_things(batch, backbone, uv[:, :, len(KINDS) :], tensor),
    )
    return inputs, labels


def _past(batch: Batch, tensor: Callable[[np.ndarray], torch.Tensor]) -> Past | None:
    """Earlier moments; None where the windows hold none."""
    if not batch.past_there.shape[1]:
        return None
    return Past(tensor(batch.past_state), tensor(batch.past_action), tensor(batch.past_there))


def location_labels(batch: Batch) -> np.ndarray:
    """float32 [B 2 3]: target and goal relative to the tool, dm; NaN where unknown."""
    missing = np.full_like(batch.tcp_position, np.nan)
    positions = [batch.aux.get(f"{kind}_position", missing) for kind in KINDS]
    return np.stack([(p - batch.tcp_position) * DM_PER_M for p in positions], axis=1).astype(np.float32)


def keypoint_labels(batch: Batch, camera_roles: Sequence[str]) -> np.ndarray:
    """float32 [B C 2 2]: where target and goal are in each picture; NaN where they are not."""
    missing = np.full((len(batch.instructions), 2), np.nan, np.float32)
    rows = [[batch.aux.get(f"{role}_{kind}_uv", missing) for kind in KINDS] for role in camera_roles]
    return np.stack([np.stack(kinds, axis=1) for kinds in rows], axis=1).astype(np.float32)


def thing_labels(batch: Batch, camera_roles: Sequence[str]) -> np.ndarray:
    """float32 [B C M 2]: where the things of ``batch.things`` are in each picture; NaN where they are not."""
    missing = np.full((len(batch.instructions), 2 * NUM_THINGS), np.nan, np.float32)
    uv = [batch.aux.get(f"{role}_things_uv", missing) for role in camera_roles]
    return np.stack(uv, axis=1).reshape(len(missing), len(uv), NUM_THINGS, 2)


def _things(
    batch: Batch, backbone: Backbone, uv: np.ndarray, tensor: Callable[[np.ndarray], torch.Tensor]
) -> Things | None:
    names = sorted({name for row in batch.things for name in row})
    if not names:
        return None
    places = {name: i for i, name in enumerate(names)}
    index = np.full((len(batch.things), NUM_THINGS), -1, np.int64)
    for row, mine in zip(index, batch.things, strict=True):
        row[: len(mine)] = [places[name] for name in mine]
    tokens = backbone.tokenize(names)
    return Things(
        token_ids=tensor(tokens.ids), token_mask=tensor(tokens.mask), index=tensor(index), uv=tensor(uv)
    )


def phase_of(batch: Batch) -> np.ndarray:
    """float32 [B]: 0 while the hand approaches the target; NaN where unknown."""
    return batch.aux.get("phase", np.full((len(batch.instructions), 1), np.nan, np.float32))[:, 0]
