"""PatchVLM: a small vision-language backbone whose tokens are the pictures' patches, learned from scratch.

Overlapping windows of 16 px, 8 px apart, go each alone through layers that the instruction modulates (FiLM,
arXiv:1709.07871); patches meet one another in the trunk. So what a patch says depends on its window, the
words and the arm alone, and a patch in which nothing moved need not be looked at again:
:meth:`PatchVLM.look` is the part done patch by patch, :meth:`PatchVLM.gather` the rest.

Shapes: B batch, C cameras, R x R grid of N patches a picture, n any number of patches, D width, w = 768
values of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from vla.models.backbones.interface import PrefixFeatures, check_pictures
from vla.models.backbones.tiny import InstructionEncoder, TinyVLMConfig
from vla.models.backbones.words import Tokens, WordTokenizer

WINDOW, STRIDE = 16, 8  # px


class PatchEncoder(nn.Module):
    """One camera's windows -> patch tokens, and what finds things among them."""

    def __init__(self, config: TinyVLMConfig, num_patches: int) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Linear(3 * WINDOW**2, width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = nn.Linear(width, 4 * width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.places = nn.Parameter(torch.randn(num_patches, width) * 0.1)
        self.queries = nn.Linear(width, 2 * width)
        self.thing_query = nn.Linear(width, width)

    def see(self, windows: Tensor) -> Tensor:
        """uint8 [... w] -> [... D], whatever the instruction."""
        x = windows.to(self.stem.weight.dtype) / 64 - 2
        x = F.gelu(self.stem(x))
        return self.norm(x + F.gelu(self.mix(x)))

    def forward(self, seen: Tensor, condition: Tensor, places: Tensor) -> Tensor:
        """[... D] under condition [... D] at places [... D] -> tokens [... D]."""
        scale, shift, scale2, shift2 = self.film(condition).chunk(4, dim=-1)
        x = F.gelu(torch.addcmul(shift, seen, 1 + scale))
        y = self.mid(x)
        x = x + F.gelu(torch.addcmul(shift2, y, 1 + scale2))
        return self.out(x) + places

    def find(self, names_BKD: Tensor, seen_BND: Tensor) -> Tensor:
        """Where what is named might be: [B K N] (or names [U D] -> [B U N])."""
        query = self.thing_query(names_BKD)
        return query @ (seen_BND + self.places).transpose(1, 2) * query.shape[-1] ** -0.5


class PatchVLM(PreTrainedModel):
    """Images, instruction and embodiment -> prefix features (see :class:`vla.models.backbones.Backbone`)."""

    config_class = TinyVLMConfig
    main_input_name = "images"
    config: TinyVLMConfig

    def __init__(self, config: TinyVLMConfig) -> None:
        super().__init__(config)
        if config.image_size % STRIDE:
            raise ValueError(f"image_size {config.image_size} must be a multiple of {STRIDE}")
        self.side = config.image_size // STRIDE
        self.tokenizer = WordTokenizer(config.vocabulary, config.max_words)
        self.instruction = InstructionEncoder(config)
        self.embodiment = nn.Embedding(len(config.embodiments), config.width)
        self.cameras = nn.ModuleList(PatchEncoder(config, self.side**2) for _ in config.camera_roles)
        self.roles = nn.Parameter(torch.randn(2, config.width) * 0.02)
        self.post_init()

    @property
    def width(self) -> int:
        return self.config.width

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own defaults, but small embeddings and a FiLM that starts as the identity."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
        if isinstance(module, PatchEncoder):
            nn.init.normal_(module.film.weight, std=0.02)
            nn.init.zeros_(module.film.bias)

    @property
    def max_tokens(self) -> int:
        return self.config.max_words

    def tokenize(self, instructions: list[str]) -> Tokens:
        return self.tokenizer.encode(instructions)

    def windows(self, images: Tensor) -> Tensor:
        """uint8 [B C H W 3] -> uint8 [B C N w]; beyond the picture's edge its edge is repeated."""
        margin = (WINDOW - STRIDE) // 2
        size = images.shape[2]
        at = torch.arange(-margin, size + margin, device=images.device).clamp(0, size - 1)
        wide = images[:, :, at][:, :, :, at]
        cut = wide.unfold(2, WINDOW, STRIDE).unfold(3, WINDOW, STRIDE)  # [B C R R 3 16 16]
        return cut.flatten(2, 3).flatten(3)

    def told(self, token_ids: Tensor, token_mask: Tensor, embodiment_id: Tensor) -> tuple[Tensor, Tensor]:
        """Words [B L D] and the tokens of instruction and arm [B 2 D]."""
        words_BLD, text_BD = self.instruction(token_ids, token_mask)
        return words_BLD, torch.stack([text_BD, self.embodiment(embodiment_id)], dim=1)

    def look(self, windows: Tensor, told_B2D: Tensor, place: Tensor) -> Tensor:
        """Some patches alone: uint8 [n w], and int64 [n 3] of row, camera and patch -> [n D]."""
        condition_BD = told_B2D.sum(1)
        tokens = windows.new_empty(len(windows), self.width, dtype=told_B2D.dtype)
        for i, camera in enumerate(self.cameras):
            mine = place[:, 1] == i
            if mine.any():
                row, patch = place[mine, 0], place[mine, 2]
                tokens[mine] = camera(camera.see(windows[mine]), condition_BD[row], camera.places[patch])  # type: ignore[operator,index]
        return tokens

    def gather(self, tokens_BCND: Tensor, told_B2D: Tensor, image_mask: Tensor | None) -> PrefixFeatures:
        """All patches behind the tokens of instruction and arm."""
        cameras, patches = tokens_BCND.shape[1:3]
        mask = None
        if image_mask is not None:
            always = image_mask.new_ones(len(image_mask), 2)
            mask = torch.cat([always, image_mask.repeat_interleave(patches, dim=1)], 1)
        grid = torch.arange(2, 2 + cameras * patches, device=tokens_BCND.device)
        features = torch.cat([told_B2D, tokens_BCND.flatten(1, 2)], dim=1)
        return PrefixFeatures(features, mask, {}, grid.view(cameras, self.side, self.side))

    def forward(
        self,
        images: Tensor,
        image_mask: Tensor | None,
        token_ids: Tensor,
        token_mask: Tensor,
        embodiment_id: Tensor,
    ) -> PrefixFeatures:
        """uint8 [B C H W 3], bool [B C], int64 [B L], bool [B L], int64 [B] -> features [B P D]."""
        check_pictures(images)
        words_BLD, told_B2D = self.told(token_ids, token_mask, embodiment_id)
        condition_BD, windows = told_B2D.sum(1), self.windows(images)
        weight_BKL = (self.roles @ words_BLD.transpose(1, 2)).masked_fill(~token_mask[:, None], float("-inf"))
        names_BKD = weight_BKL.softmax(-1) @ words_BLD
        tokens, logits, keys = [], [], []
        for i, camera in enumerate(self.cameras):
            seen_BND = camera.see(windows[:, i])  # type: ignore[operator]
            tokens_BND = camera(seen_BND, condition_BD[:, None].expand_as(seen_BND), camera.places)  # type: ignore[operator]
            query_BKD = camera.queries(condition_BD).unflatten(-1, (2, -1))  # type: ignore[operator]
            found = query_BKD @ tokens_BND.transpose(1, 2) * self.width**-0.5
            logits.append(found + camera.find(names_BKD, seen_BND))  # type: ignore[operator]
            tokens.append(tokens_BND)
            keys.append(seen_BND)
        prefix = self.gather(torch.stack(tokens, 1), told_B2D, image_mask)
        prefix.auxiliary["keypoint_logits"] = torch.stack(logits, dim=1)
        if self.config.find_things and self.training:
            prefix.auxiliary["thing_keys"] = torch.stack(keys, dim=1)
        return prefix

    def thing_logits(self, keys_BCND: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Where in each picture each of U names (ids int64 [U L], bool [U L]) might be: [B C U N]."""
        _, text_UD = self.instruction(token_ids, token_mask)
        logits = [camera.find(text_UD, keys_BCND[:, i]) for i, camera in enumerate(self.cameras)]  # type: ignore[operator]
        return torch.stack(logits, dim=1)
