"""TinyVLM: a one-million-parameter vision-language backbone that learns from scratch on a CPU.

Per camera a small convolutional net whose third layer is modulated by the instruction (FiLM,
arXiv:1709.07871) gives a feature map a quarter of the image's size. Eight queries made from the
instruction each attend over the map; a query's token is the feature it read and *where* it read
it (soft-argmax), so the rest of the network works with a handful of object-like tokens.

Shapes: B batch, C cameras, L words, K queries, N map cells, F map channels, D width, P = C*K + 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from vla.models.backbones.interface import PrefixFeatures
from vla.models.backbones.words import PAD, UNKNOWN, Tokens, WordTokenizer
from vla.models.layers import EncoderBlock

_GROUPS = 8  # of GroupNorm
_STRIDE = 4  # image pixels per map cell


class TinyVLMConfig(PretrainedConfig):
    """Sizes and vocabulary of a :class:`TinyVLM`.

    Args:
        vocabulary: words by id, starting ``<pad>``, ``<unk>``.
        embodiments: names by id.
        camera_roles: one convolutional net each, in this order.
        image_size: px, a multiple of 4; cameras give squares.
        width: D. The map has width / 4 channels, the first layer half of that.
        num_queries: K, per camera. Query 0 is supervised to find the target, query 1 the goal.
        num_film_layers: convolutions that the instruction modulates: 1 (the third) or 2 (the second too).
        num_frequencies: of the sines and cosines that tell a token where its query looked; 0: x and y alone,
            beside a feature that is not normalised.
        num_heads, feed_ratio: of the text block.
        max_words: longer instructions are cut, and the cut words reported as unknown.
    """

    model_type = "vla_tiny"

    def __init__(
        self,
        *,
        vocabulary: list[str] | None = None,
        embodiments: list[str] | None = None,
        camera_roles: list[str] | None = None,
        image_size: int = 64,
        width: int = 128,
        num_queries: int = 8,
        num_film_layers: int = 1,
        num_frequencies: int = 0,
        num_heads: int = 4,
        feed_ratio: int = 2,
        max_words: int = 32,
        **kwargs: object,  # PretrainedConfig's own keys
    ) -> None:
        self.vocabulary = list(vocabulary or [PAD, UNKNOWN])
        self.embodiments = list(embodiments or ["unknown"])
        self.camera_roles = list(camera_roles or ["front", "wrist"])
        self.image_size = image_size
        self.width = width
        self.num_queries = num_queries
        self.num_film_layers = num_film_layers
        self.num_frequencies = num_frequencies
        self.num_heads = num_heads
        self.feed_ratio = feed_ratio
        self.max_words = max_words
        if image_size % _STRIDE or width % 32:
            raise ValueError(f"image_size {image_size} must be a multiple of 4 and width {width} one of 32")
        if num_film_layers not in (1, 2) or num_frequencies < 0:
            raise ValueError(f"num_film_layers is {num_film_layers}, num_frequencies {num_frequencies}")
        super().__init__(**kwargs)  # type: ignore[arg-type]


class InstructionEncoder(nn.Module):
    """Word ids -> one vector an instruction: embed, one transformer block, masked mean."""

    def __init__(self, config: TinyVLMConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(len(config.vocabulary), config.width)
        self.places = nn.Parameter(torch.zeros(config.max_words, config.width))
        self.block = EncoderBlock(config.width, config.num_heads, config.feed_ratio)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        x_BLD = self.words(ids_BL) + self.places[: ids_BL.shape[1]]
        x_BLD = self.norm(self.block(x_BLD, mask_BL))
        weight_BL1 = mask_BL.unsqueeze(-1).to(x_BLD.dtype)
        return (x_BLD * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1.0)


class CameraEncoder(nn.Module):
    """One camera's image and a condition vector -> K tokens and where they looked."""

    def __init__(self, config: TinyVLMConfig) -> None:
        super().__init__()
        channels = config.width // 4
        self.num_queries, self.side = config.num_queries, config.image_size // _STRIDE
        self.conv1 = nn.Conv2d(3, channels // 2, 5, stride=2, padding=2)  # no norm: it would cost as much
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv4 = nn.Conv2d(channels, channels, 3, padding=1)
        self.num_film_layers, self.num_frequencies = config.num_film_layers, config.num_frequencies
        self.norm2 = nn.GroupNorm(_GROUPS, channels, affine=config.num_film_layers < 2)
        self.norm3 = nn.GroupNorm(_GROUPS, channels, affine=False)  # FiLM supplies scale and shift
        self.film = nn.Linear(config.width, 2 * channels * config.num_film_layers)
        self.queries = nn.Linear(config.width, config.num_queries * channels)
        self.places = nn.Parameter(torch.randn(1, self.side * self.side, channels) * 0.1)
        self.norm_read = nn.LayerNorm(channels) if config.num_frequencies else nn.Identity()
        self.token = nn.Linear(channels + 2 + 4 * config.num_frequencies, config.width)
        self.identity = nn.Parameter(torch.randn(config.num_queries, config.width) * 0.1)
        centres = (torch.arange(self.side) + 0.5) / self.side * 2 - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        self.register_buffer("grid_N2", torch.stack([x, y], -1).flatten(0, 1))

    def forward(self, image_BHW3: Tensor, condition_BD: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B H W 3] -> tokens [B K D], attention logits [B K N]."""
        x = image_BHW3.permute(0, 3, 1, 2).to(self.conv1.weight.dtype, memory_format=torch.channels_last)
        x = F.relu(self.conv1(x.mul_(1 / 64).sub_(2.0)))
        modulation = self.film(condition_BD)[..., None, None].chunk(2 * self.num_film_layers, dim=1)
        x = self.norm2(self.conv2(x))
        x = F.relu(_film(x, *modulation[2:]) if self.num_film_layers == 2 else x)
        x = F.relu(_film(self.norm3(self.conv3(x)), *modulation[:2]))
        x = x + F.relu(self.conv4(x))
        map_BNF = x.permute(0, 2, 3, 1).flatten(1, 2)
        query_BKF = self.queries(condition_BD).unflatten(-1, (self.num_queries, -1))
        keys_BNF = map_BNF + self.places
        logits_BKN = query_BKF @ keys_BNF.transpose(1, 2) * query_BKF.shape[-1] ** -0.5
        attention_BKN = logits_BKN.softmax(-1)
        where_BK2 = attention_BKN @ self.grid_N2
        octaves = torch.pi * 2.0 ** torch.arange(self.num_frequencies, device=where_BK2.device)
        angle = (where_BK2[..., None] * octaves).flatten(-2)
        feature = self.norm_read(attention_BKN @ map_BNF)
        read = torch.cat([feature, where_BK2, angle.sin(), angle.cos()], -1)
        return self.token(read) + self.identity, logits_BKN


def _film(x_BFyx: Tensor, scale_BF11: Tensor, shift_BF11: Tensor) -> Tensor:
    return torch.addcmul(shift_BF11, x_BFyx, 1 + scale_BF11)


class TinyVLM(PreTrainedModel):
    """Images, instruction and embodiment -> prefix features (see :class:`vla.models.backbones.Backbone`)."""

    config_class = TinyVLMConfig
    main_input_name = "images"
    config: TinyVLMConfig

    def __init__(self, config: TinyVLMConfig) -> None:
        super().__init__(config)
        self.tokenizer = WordTokenizer(config.vocabulary, config.max_words)
        self.instruction = InstructionEncoder(config)
        self.embodiment = nn.Embedding(len(config.embodiments), config.width)
        self.cameras = nn.ModuleList(CameraEncoder(config) for _ in config.camera_roles)
        self.post_init()

    @property
    def width(self) -> int:
        return self.config.width

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own defaults, but small embeddings and a FiLM that starts as the identity."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
        if isinstance(module, CameraEncoder):
            nn.init.normal_(module.film.weight, std=0.02)
            nn.init.zeros_(module.film.bias)

    def tokenize(self, instructions: list[str]) -> Tokens:
        return self.tokenizer.encode(instructions)

    def forward(
        self,
        images: Tensor,
        image_mask: Tensor | None,
        token_ids: Tensor,
        token_mask: Tensor,
        embodiment_id: Tensor,
    ) -> PrefixFeatures:
        """uint8 [B C H W 3], bool [B C], int64 [B L], bool [B L], int64 [B] -> features [B P D]."""
        text_BD = self.instruction(token_ids, token_mask)
        body_BD = self.embodiment(embodiment_id)
        condition_BD = text_BD + body_BD
        seen = [camera(images[:, i], condition_BD) for i, camera in enumerate(self.cameras)]
        features = torch.cat([text_BD[:, None], body_BD[:, None], *(tokens for tokens, _ in seen)], dim=1)
        mask = None
        if image_mask is not None:
            always = image_mask.new_ones(len(image_mask), 2)
            mask = torch.cat([always, image_mask.repeat_interleave(self.config.num_queries, dim=1)], 1)
        logits_BCKN = torch.stack([logits for _, logits in seen], dim=1)
        return PrefixFeatures(features, mask, {"keypoint_logits": logits_BCKN})
