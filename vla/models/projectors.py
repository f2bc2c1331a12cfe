"""From backbone width to policy width."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from vla.errors import UnknownNameError

ProjectorName = Literal["linear", "mlp"]


def build_projector(name: str, width_in: int, width_out: int) -> nn.Module:
    """``linear``: one layer; ``mlp``: two layers with GELU (as in LLaVA 1.5, arXiv:2310.03744)."""
    if name == "linear":
        return nn.Linear(width_in, width_out)
    if name == "mlp":
        return nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))
    raise UnknownNameError("projector", name, get_args(ProjectorName))
