"""Action heads: prefix features in, chunk of normalised actions out."""

from __future__ import annotations

from vla.errors import UnknownNameError
from vla.models.heads.binned import BinnedHead
from vla.models.heads.cvae import CVAEHead
from vla.models.heads.diffusion import DiffusionHead
from vla.models.heads.fast import FASTHead
from vla.models.heads.flow import FlowHead
from vla.models.heads.interface import HEAD_SETTINGS, Head, HeadConfig
from vla.models.heads.regression import RegressionHead

__all__ = [
    "HEADS",
    "HEAD_SETTINGS",
    "BinnedHead",
    "CVAEHead",
    "DiffusionHead",
    "FASTHead",
    "FlowHead",
    "Head",
    "HeadConfig",
    "RegressionHead",
    "build_head",
]

AnyHead = FlowHead | RegressionHead | DiffusionHead | BinnedHead | FASTHead | CVAEHead

HEADS: dict[str, type[AnyHead]] = {
    "flow": FlowHead,
    "regression": RegressionHead,
    "diffusion": DiffusionHead,
    "binned": BinnedHead,
    "fast": FASTHead,
    "cvae": CVAEHead,
}


def build_head(name: str, config: HeadConfig) -> AnyHead:
    """A head with fresh weights; an unknown name raises."""
    if name not in HEADS:
        raise UnknownNameError("action head", name, HEADS)
    return HEADS[name](config)
