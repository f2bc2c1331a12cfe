"""Which questions a run asks beside its actions, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from vla.errors import ConfigError
from vla.text import counted


@dataclass(frozen=True, kw_only=True)
class QuestionSourceConfig:
    """Where questions come from.

    Args:
        path: a file of JSON lines (``vla.train.questions.QuestionFile``), or ``demonstrations``: asked about
            the frames of the step's own batch, for which a simulator says what is where.
        weight: part of the questions, relative to the other sources.
    """

    path: str = "demonstrations"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ConfigError(f"The weight of a source of questions must be positive: {self.weight}.")


@dataclass(frozen=True, kw_only=True)
class CotrainConfig:
    """Questions about pictures beside every batch of actions, so that the backbone keeps its grounding.

    Args:
        sources: drawn from by weight.
        batch_size: questions a step over all processes together.
        weight: of their loss.
    """

    sources: tuple[QuestionSourceConfig, ...] = (QuestionSourceConfig(),)
    batch_size: int = 8
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.sources or self.batch_size < 1 or self.weight <= 0:
            raise ConfigError(
                "Co-training needs a source, a batch size of 1 or more and a positive weight; given "
                f"{counted(len(self.sources), 'source')}, {self.batch_size} and {self.weight}."
            )
