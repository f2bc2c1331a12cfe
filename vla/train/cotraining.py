"""Visual-language co-training: questions beside batches of actions, so that the backbone keeps its grounding.

A backbone with a language model answers in words, through its own output layer, as it was trained to.
``tiny`` has none: it is asked where things are, and points. Only the backbone learns from the answers
(arXiv:2505.23705).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla.contract import PolicyContract
from vla.data.batch import Batch
from vla.data.source import EpisodeSource
from vla.errors import CheckpointError, ConfigError
from vla.models.backbones.tiny import TinyVLM
from vla.models.policy_net import PolicyNet
from vla.train.answers import AnswerLoss, PointingLoss, show
from vla.train.config import AugmentConfig, TrainConfig
from vla.train.cotrain_config import CotrainConfig
from vla.train.processes import ProcessGroup
from vla.train.questions import Question, QuestionFile, ask_about

DEMONSTRATIONS = "demonstrations"


class Cotraining:
    """Draws questions and scores the answers; which questions a step asks follows from its ``rng`` and batch.

    Args:
        config: sources and sizes.
        teacher: scores answers.
        image_size, camera_roles: of the policy's pictures.
        count: questions of this process.
    """

    def __init__(
        self,
        config: CotrainConfig,
        teacher: PointingLoss | AnswerLoss,
        *,
        image_size: int,
        camera_roles: Sequence[str],
        count: int,
    ) -> None:
        self.config, self.teacher, self.count = config, teacher, count
        self.camera_roles = tuple(camera_roles)
        self.files = _open_files(config, image_size)
        for file in self.files:
            if file is not None and teacher.only_places and not file.only_places:
                raise ConfigError(
                    f"The backbone 'tiny' has no language model: {file.path} may ask it where things are "
                    "(`thing` with `point` or `box`), and nothing else. Or take a pretrained backbone."
                )
        weights = np.array([source.weight for source in config.sources])
        self.shares = weights / weights.sum()

    def draw(self, batch: Batch, rng: np.random.Generator) -> list[Question]:
        """This step's questions: from each source by its weight, fewer where the frames have no labels."""
        questions: list[Question] = []
        only_places = self.teacher.only_places
        for file, count in zip(self.files, rng.multinomial(self.count, self.shares), strict=True):
            if file is not None:
                questions += file.draw(rng, count)
            else:
                questions += ask_about(batch, self.camera_roles, rng, count, only_places=only_places)
        return questions

    def loss(
        self, batch: Batch, rng: np.random.Generator, augment: AugmentConfig, device: torch.device
    ) -> tuple[Tensor | None, int]:
        """Mean loss over this step's answers (None: nothing could be asked), and how many there are."""
        questions = self.draw(batch, rng)
        if not questions:
            return None, 0
        shown = show(questions, len(self.camera_roles), rng, augment, device)
        return self.teacher(questions, shown), len(questions)


def build_cotraining(config: TrainConfig, net: PolicyNet, group: ProcessGroup) -> Cotraining | None:
    """What a recipe asks of its backbone; None where it asks nothing.

    Raises:
        ConfigError: the backbone cannot answer, or the batch does not divide among processes.
    """
    if config.cotrain is None:
        return None
    if config.cotrain.batch_size % group.size:
        raise ConfigError(
            f"cotrain.batch_size {config.cotrain.batch_size} does not divide among {group.size} processes."
        )
    return Cotraining(
        config.cotrain,
        _teacher(net),
        image_size=config.data.image_size,
        camera_roles=config.data.camera_roles,
        count=config.cotrain.batch_size // group.size,
    )


def _teacher(net: PolicyNet) -> PointingLoss | AnswerLoss:
    from vla.models.backbones.pretrained import PretrainedVLM

    backbone: Any = net.backbone
    if isinstance(backbone, TinyVLM):
        return PointingLoss(backbone)
    if isinstance(backbone, PretrainedVLM):
        return AnswerLoss(backbone)
    raise ConfigError(
        f"The backbone {net.config.backbone!r} cannot be asked questions: train it without co-training."
    )


def _open_files(config: CotrainConfig, image_size: int) -> list[QuestionFile | None]:
    """One a source; None: the demonstrations."""
    return [
        None if source.path == DEMONSTRATIONS else QuestionFile(source.path, image_size)
        for source in config.sources
    ]


def question_names(config: TrainConfig) -> list[str]:
    """Things that the files of questions name: words that a vocabulary must have."""
    if config.cotrain is None:
        return []
    return [name for file in _open_files(config.cotrain, 1) if file is not None for name in file.things]


def describe_questions(config: TrainConfig, sources: Sequence[EpisodeSource]) -> list[dict[str, Any]]:
    """Of each source of questions: where, its share, how many, a checksum.

    Raises:
        ConfigError: no demonstration says what is in its pictures.
    """
    if config.cotrain is None:
        return []
    whole = sum(source.weight for source in config.cotrain.sources)
    described = []
    for source, file in zip(config.cotrain.sources, _open_files(config.cotrain, 1), strict=True):
        facts: dict[str, Any] = {"source": source.path, "share": round(source.weight / whole, 6)}
        if file is not None:
            facts |= {"questions": len(file), "crc32": file.crc32}
        else:
            facts["episodes"] = sum(bool(i.provenance.get("things")) for s in sources for i in s.episodes)
            if not facts["episodes"]:
                raise ConfigError(
                    "Nothing can be asked about these demonstrations: none says what is in its pictures (a "
                    "simulator's do). Give cotrain a file of questions instead."
                )
        described.append(facts)
    return described


def check_questions(config: TrainConfig, sources: Sequence[EpisodeSource], contract: PolicyContract) -> None:
    """Raise CheckpointError unless the questions are those that the run was started with."""
    began, now = contract.provenance.get("questions", []), describe_questions(config, sources)
    if began != now:
        raise CheckpointError(
            f"The questions of this run were {began} and are now {now}: restore them, or start a new run "
            "directory."
        )
