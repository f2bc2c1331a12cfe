"""Action heads: prefix features in, chunk of normalised actions out."""

from __future__ import annotations

from vla.errors import UnknownNameError
from vla.models.heads.flow import FlowHead
from vla.models.heads.interface import Head, HeadConfig
from vla.models.heads.regression import RegressionHead

__all__ = ["HEADS", "FlowHead", "Head", "HeadConfig", "RegressionHead", "build_head"]

HEADS: dict[str, type[FlowHead] | type[RegressionHead]] = {"flow": FlowHead, "regression": RegressionHead}


def build_head(name: str, config: HeadConfig) -> FlowHead | RegressionHead:
    """A head with fresh weights; an unknown name raises."""
    if name not in HEADS:
        raise UnknownNameError("action head", name, HEADS)
    return HEADS[name](config)
