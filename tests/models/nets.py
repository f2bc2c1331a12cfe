"""Small networks and batches shared by model and training tests."""

from __future__ import annotations

from typing import Any

import torch

from vla import spaces
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyInputs, PolicyLabels, PolicyNet

ACTION_INDEX = (0, 1, 2, 5, 39)
VOCABULARY = ["<pad>", "<unk>", "blue", "cube", "red", "the"]


def net_config(**changes: Any) -> PolicyNetConfig:
    settings = {
        "vocabulary": VOCABULARY,
        "embodiments": ["alpha", "beta"],
        "camera_roles": ["front", "wrist"],
        "image_size": 16,
        "width": 32,
        "num_film_layers": 2,
        "num_frequencies": 4,
    } | changes.pop("backbone_settings", {})
    values = {"action_index": ACTION_INDEX, "width": 32, "horizon": 4, "backbone_settings": settings}
    return PolicyNetConfig(**(values | changes))


def make_net(**changes: Any) -> PolicyNet:
    torch.manual_seed(0)
    return PolicyNet(net_config(**changes))


def make_batch(
    batch: int = 4, *, image_size: int = 16, horizon: int = 4, seed: int = 0
) -> tuple[PolicyInputs, PolicyLabels]:
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source)

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=source)

    inputs = PolicyInputs(
        images=integers(256, batch, 2, image_size, image_size, 3).to(torch.uint8),
        image_mask=None,
        token_ids=integers(len(VOCABULARY), batch, 5),
        token_mask=torch.ones(batch, 5, dtype=torch.bool),
        embodiment_id=integers(2, batch),
        state=normal(batch, spaces.STATE_DIM),
        state_mask=torch.ones(batch, spaces.STATE_DIM, dtype=torch.bool),
    )
    mask = torch.zeros(batch, horizon, spaces.ACTION_DIM, dtype=torch.bool)
    mask[..., list(ACTION_INDEX)] = True
    labels = PolicyLabels(
        actions=normal(batch, horizon, spaces.ACTION_DIM).clamp(-1, 1),
        action_mask=mask,
        location_dm=normal(batch, 2, 3),
        keypoint_uv=torch.rand(batch, 2, 2, 2, generator=source) * 2 - 1,
    )
    return inputs, labels


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
