"""Losses of answers: in words through the backbone's own language model, or by pointing.

Shapes: B questions, C cameras, L text tokens, P prompt tokens, N map cells, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vla.errors import CheckpointError, ConfigError
from vla.files import read_json
from vla.models.auxiliary import keypoint_loss
from vla.models.backbones.tiny import TinyVLM
from vla.train.augment import jitter_colours
from vla.train.config import AugmentConfig
from vla.train.questions import Question

if TYPE_CHECKING:
    from vla.models.backbones.pretrained import PretrainedVLM


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """images uint8 [B C h w 3] of which image_mask bool [B C] says which there are: one a question; uv
    float32 [B C 2] in [-1, 1]: where in that picture, NaN elsewhere.
    """

    images: Tensor
    image_mask: Tensor
    uv: Tensor


def show(
    questions: Sequence[Question],
    num_cameras: int,
    rng: np.random.Generator,
    augment: AugmentConfig,
    device: torch.device,
) -> Pictures:
    """Each question's picture in the place of its camera, in other colours; nothing moves."""
    images = np.zeros((len(questions), num_cameras, *questions[0].image.shape), np.uint8)
    mask = np.zeros(images.shape[:2], bool)
    uv = np.full((*mask.shape, 2), np.nan, np.float32)
    for row, question in enumerate(questions):
        images[row, question.camera], mask[row, question.camera] = question.image, True
        uv[row, question.camera] = question.uv
    images = jitter_colours(images, rng, augment.gain, augment.offset)
    seen, there, where = (torch.from_numpy(x).to(device) for x in (images, mask, uv))
    return Pictures(images=seen, image_mask=there, uv=where)


class PointingLoss:
    """``tiny`` points at what it is asked for: divergence of its map from a bump at the place.

    Raises:
        ConfigError: this net was not built to find things by name.
    """

    only_places = True

    def __init__(self, backbone: TinyVLM) -> None:
        if not backbone.config.find_things:
            raise ConfigError(
                "Questions teach the backbone 'tiny' to find things by name: set model.things_weight > 0."
            )
        self.backbone = backbone

    def __call__(self, questions: Sequence[Question], shown: Pictures) -> Tensor:
        device = shown.images.device
        tokens = self.backbone.tokenize([question.thing for question in questions])
        ids, mask = torch.from_numpy(tokens.ids).to(device), torch.from_numpy(tokens.mask).to(device)
        body = torch.zeros(len(questions), dtype=torch.long, device=device)
        seen = self.backbone(shown.images, shown.image_mask, ids, mask, body)
        logits_BCUN = self.backbone.thing_logits(seen.auxiliary["thing_keys"], ids, mask)
        own_BCN = logits_BCUN[torch.arange(len(questions)), :, torch.arange(len(questions))]
        return keypoint_loss(own_BCN[:, :, None], shown.uv[:, :, None], shown.image_mask)


class AnswerLoss:
    """Cross-entropy of the answers' tokens under the backbone's own language model.

    The text of a prompt has ``max_tokens`` places; question and answer share them. The output layer is the
    one in the checkpoint, kept as it is, or the token embeddings where the two are tied (and where all
    weights are fresh); it belongs to no policy.

    Raises:
        ConfigError: a backbone that cannot speak: some of its layers were cut off, or it reads its prompt
            both ways and would see the answer.
    """

    only_places = False

    def __init__(self, backbone: PretrainedVLM) -> None:
        self.backbone, settings = backbone, backbone.settings
        config = backbone.vlm.config
        if settings.num_layers is not None:
            raise ConfigError(
                f"A backbone that was cut to {settings.num_layers} layers cannot answer: its output layer "
                "reads the last one. Leave num_layers out, or co-training."
            )
        tied = bool(getattr(config, "tie_word_embeddings", False)) or not settings.pretrained
        self.weight = None if tied else output_weight(settings.model)
        self.cap: float | None = getattr(config.get_text_config(), "final_logit_softcapping", None)
        prompt = settings.prompt or backbone.family.prompt
        self.space = "" if prompt[-1:].isspace() else " "
        self._check_order()

    def __call__(self, questions: Sequence[Question], shown: Pictures) -> Tensor:
        device = shown.images.device
        ids_BL, mask_BL, answer_BL = (torch.from_numpy(x).to(device) for x in self.encode(questions))
        hidden_BLD = self._read(shown.images, shown.image_mask, ids_BL, mask_BL)
        answer_BL = answer_BL[:, : hidden_BLD.shape[1]]
        if self.weight is not None:
            self.weight = self.weight.to(device)
        weight = self.backbone.vlm.get_input_embeddings().weight if self.weight is None else self.weight
        logits = (hidden_BLD[answer_BL].to(weight.dtype) @ weight.T).float()
        if self.cap is not None:
            logits = self.cap * torch.tanh(logits / self.cap)
        return F.cross_entropy(logits, ids_BL[:, : answer_BL.shape[1]][answer_BL])

    def _read(self, images: Tensor, image_mask: Tensor, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Of each text token, the state of the token before it: [B L D]."""
        body = torch.zeros(len(images), dtype=torch.long, device=images.device)
        features = self.backbone(images, image_mask, ids_BL, mask_BL, body).features
        end = features.shape[1] - 1  # the embodiment's token is the last
        return features[:, end - self.backbone.settings.max_tokens - 1 : end - 1]

    def encode(self, questions: Sequence[Question]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids int64 [B L], mask bool [B L] of prompts with answers, and which tokens are the answer's.

        Raises:
            ConfigError: question and answer do not fit in ``max_tokens``.
        """
        tokenizer, limit = self.backbone.tokenizer, self.backbone.settings.max_tokens
        end = tokenizer.tokenizer.eos_token_id
        tokens = self.backbone.tokenize([question.text for question in questions])
        ids, mask, answer = tokens.ids.copy(), tokens.mask.copy(), np.zeros(tokens.mask.shape, bool)
        for row, question in enumerate(questions):
            said = tokenizer.tokenizer(self.space + question.answer, add_special_tokens=False)["input_ids"]
            said = [*said, *([] if end is None else [end])]
            asked, whole = int(tokens.mask[row, :limit].sum()), tokenizer.length(question.text)
            if whole + len(said) > limit:
                raise ConfigError(
                    f"The question {question.text!r} and its answer {question.answer!r} take "
                    f"{whole} + {len(said)} tokens; model.vlm.max_tokens is {limit}."
                )
            place = slice(asked, asked + len(said))
            ids[row, place], mask[row, place], answer[row, place] = said, True, True
        return ids, mask, answer

    @torch.no_grad()
    def _check_order(self) -> None:
        """Another end of the text must not change what was read before it."""
        backbone, side = self.backbone, 32
        device = next(backbone.parameters()).device
        cameras = len(backbone.settings.camera_roles)
        images = torch.zeros(1, cameras, side, side, 3, dtype=torch.uint8, device=device)
        there = torch.ones(1, cameras, dtype=torch.bool, device=device)
        example = Question(
            image=np.zeros((side, side, 3), np.uint8), camera=0, text="where is it?", answer="there"
        )
        ids, mask, _ = (torch.from_numpy(x).to(device) for x in self.encode([example]))
        last = int(mask[0, : backbone.settings.max_tokens].sum()) - 1
        other = ids.clone()
        other[0, last] = ids[0, last - 1]
        training = backbone.training
        backbone.eval()
        before, after = (self._read(images, there, i, mask)[0, : last + 1] for i in (ids, other))
        backbone.train(training)
        if float((before - after).abs().amax()) > 1e-6 * float(before.abs().amax()):
            raise ConfigError(
                f"The backbone {backbone.name!r} reads its prompt both ways, so it cannot be trained to "
                "answer token by token. Train it without co-training, or take a family whose language model "
                "reads from left to right."
            )


def output_weight(source: str) -> Tensor | None:
    """The output layer [vocabulary D] in a checkpoint's safetensors; None: it has none of its own.

    ``source``: local folder, or hub name of a model that was loaded before.
    """
    from safetensors import safe_open

    whole, index = _file(source, "model.safetensors"), _file(source, "model.safetensors.index.json")
    if whole is not None:
        files = [whole]
    elif index is not None:
        places = read_json(index, CheckpointError, "Fetch the checkpoint again.")["weight_map"]
        names = sorted({file for name, file in places.items() if name.endswith("lm_head.weight")})
        files = [file for name in names if (file := _file(source, name)) is not None]
    else:
        raise CheckpointError(f"No safetensors at {source!r}: where its output layer is cannot be told.")
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # no mapping
                if name.endswith("lm_head.weight"):
                    return tensors.get_tensor(name)
    return None


def _file(source: str, name: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, name)
    return Path(found) if isinstance(found, str) else None
