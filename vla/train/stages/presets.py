"""The two stages that most runs from a pretrained backbone are made of."""

from __future__ import annotations

from typing import Any

from vla.train.config import BudgetConfig, StageConfig


def align(budget: BudgetConfig, **changes: Any) -> StageConfig:
    """Projector, trunk and heads learn to read a backbone that stays as it is (LLaVA's first stage,
    arXiv:2304.08485).
    """
    return StageConfig(**{"name": "align", "budget": budget, "frozen": ("backbone",), **changes})


def tune(budget: BudgetConfig, **changes: Any) -> StageConfig:
    """Everything learns that the backbone's settings leave free: its LoRA adapters where they freeze the rest
    (``vlm.freeze``), else all of it. ``optim`` sets the rates of backbone, projector and heads.
    """
    return StageConfig(**{"name": "tune", "budget": budget, **changes})
