"""TinyVLM: a one-million-parameter vision-language backbone that learns from scratch on a CPU.

Per camera a small convolutional net whose last layers are modulated by the instruction (FiLM,
arXiv:1709.07871) gives a feature map a quarter of the image's size. What comes before the modulation can be
asked for things by name, which teaches what things look like from every picture at once. Eight queries
made from the instruction each attend over the map; a query's token is the feature it read and *where* it
read it (soft-argmax), so the rest of the network works with a handful of object-like tokens. Each query also
picks the words that concern it and looks for what they name: whoever knows a red cube when it is named alone
then knows it in a sentence never heard before.

Shapes: B batch, C cameras, L words, K queries, N map cells, F map channels, D width, P = C*K + 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from vla.models.backbones.interface import KINDS, PrefixFeatures, check_pictures
from vla.models.backbones.words import PAD, UNKNOWN, Tokens, WordTokenizer
from vla.models.layers import EncoderBlock

_GROUPS = 8  # of GroupNorm
_STRIDE = 4  # image pixels per map cell
_REACH_CELLS = 2.5  # how far around its best cell a query reads that looks for one thing


class TinyVLMConfig(PretrainedConfig):
    """Sizes and vocabulary of a :class:`TinyVLM`.

    Args:
        vocabulary: words by id, starting ``<pad>``, ``<unk>``.
        embodiments: names by id.
        camera_roles: one convolutional net each, in this order.
        image_size: px, a multiple of 4; cameras give squares.
        width: D. The map has width / 4 channels, the first layer half of that.
        num_queries: K, per camera. Query 0 is supervised to find the target, query 1 the goal.
        num_film_layers: convolutions that the instruction modulates: 1 (the third) or 2 (the fourth too).
        num_frequencies: of the sines and cosines that tell a token where its query looked; 0: x and y alone,
            beside a feature that is not normalised.
        find_things: find things by their names in the unmodulated map, too: those that training asks for, and
            those that each query picks from the instruction.
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
        find_things: bool = False,
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
        self.find_things = find_things
        self.num_heads = num_heads
        self.feed_ratio = feed_ratio
        self.max_words = max_words
        if image_size % _STRIDE or width % 32:
            raise ValueError(f"image_size {image_size} must be a multiple of 4 and width {width} one of 32")
        if num_film_layers not in (1, 2) or num_frequencies < 0:
            raise ValueError(f"num_film_layers is {num_film_layers}, num_frequencies {num_frequencies}")
        super().__init__(**kwargs)  # type: ignore[arg-type]


class InstructionEncoder(nn.Module):
    """Word ids -> a vector a word (embedding, one transformer block) and their masked mean."""

    def __init__(self, config: TinyVLMConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(len(config.vocabulary), config.width)
        self.places = nn.Parameter(torch.zeros(config.max_words, config.width))
        self.block = EncoderBlock(config.width, config.num_heads, config.feed_ratio)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """[B L D], [B D]."""
        x_BLD = self.words(ids_BL) + self.places[: ids_BL.shape[1]]
        x_BLD = self.norm(self.block(x_BLD, mask_BL))
        weight_BL1 = mask_BL.unsqueeze(-1).to(x_BLD.dtype)
        return x_BLD, (x_BLD * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1.0)


class CameraEncoder(nn.Module):
    """One camera's image and a condition vector -> K tokens and where they looked."""

    grid_N2: Tensor

    def __init__(self, config: TinyVLMConfig) -> None:
        super().__init__()
        channels = config.width // 4
        self.num_queries, self.side = config.num_queries, config.image_size // _STRIDE
        self.conv1 = nn.Conv2d(3, channels // 2, 5, stride=2, padding=2)  # no norm: it would cost as much
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv4 = nn.Conv2d(channels, channels, 3, padding=1)
        self.num_film_layers, self.num_frequencies = config.num_film_layers, config.num_frequencies
        self.norm2 = nn.GroupNorm(_GROUPS, channels)
        self.norm3 = nn.GroupNorm(_GROUPS, channels, affine=False)  # FiLM supplies scale and shift
        self.norm4 = nn.GroupNorm(_GROUPS, channels, affine=False)
        self.film = nn.Linear(config.width, 2 * channels * config.num_film_layers)
        self.queries = nn.Linear(config.width, config.num_queries * channels)
        self.places = nn.Parameter(torch.randn(1, self.side * self.side, channels) * 0.1)
        self.norm_read = nn.LayerNorm(channels) if config.num_frequencies else nn.Identity()
        self.one_place = config.find_things
        self.thing_query = nn.Linear(config.width, channels) if config.find_things else None
        self.token = nn.Linear(channels + 2 + 4 * config.num_frequencies, config.width)
        self.identity = nn.Parameter(torch.randn(config.num_queries, config.width) * 0.1)
        centres = (torch.arange(self.side) + 0.5) / self.side * 2 - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        self.register_buffer("grid_N2", torch.stack([x, y], -1).flatten(0, 1))

    def forward(
        self, image_BHW3: Tensor, condition_BD: Tensor, names_BKD: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [B H W 3] -> tokens [B K D], attention logits [B K N], unmodulated map [B N F].

        ``names``: what each query shall look for besides.
        """
        x = image_BHW3.permute(0, 3, 1, 2).to(self.conv1.weight.dtype, memory_format=torch.channels_last)
        x = F.relu(self.conv1(x.mul_(1 / 64).sub_(2.0)))
        modulation = self.film(condition_BD)[..., None, None].chunk(2 * self.num_film_layers, dim=1)
        x = F.relu(self.norm2(self.conv2(x)))
        seen = self.norm3(self.conv3(x))
        x = F.relu(_film(seen, *modulation[:2]))
        y = self.conv4(x)
        x = x + F.relu(_film(self.norm4(y), *modulation[2:]) if self.num_film_layers == 2 else y)
        map_BNF = x.permute(0, 2, 3, 1).flatten(1, 2)
        query_BKF = self.queries(condition_BD).unflatten(-1, (self.num_queries, -1))
        keys_BNF = map_BNF + self.places
        logits_BKN = query_BKF @ keys_BNF.transpose(1, 2) * query_BKF.shape[-1] ** -0.5
        seen_BNF = seen.permute(0, 2, 3, 1).flatten(1, 2)
        if names_BKD is not None:
            logits_BKN = logits_BKN + self.find(names_BKD, seen_BNF)
        attention_BKN = self._one_place(logits_BKN).softmax(-1)
        where_BK2 = attention_BKN @ self.grid_N2
        octaves = torch.pi * 2.0 ** torch.arange(self.num_frequencies, device=where_BK2.device)
        angle = (where_BK2[..., None] * octaves).flatten(-2)
        feature = self.norm_read(attention_BKN @ map_BNF)
        read = torch.cat([feature, where_BK2, angle.sin(), angle.cos()], -1)
        return self.token(read) + self.identity, logits_BKN, seen_BNF

    def _one_place(self, logits_BKN: Tensor) -> Tensor:
        """What the queries that look for one thing read: around their best cell only. Of two candidates the
        mean place is nowhere.
        """
        if not self.one_place:
            return logits_BKN
        found_BkN, others_BKN = logits_BKN.split((len(KINDS), self.num_queries - len(KINDS)), dim=1)
        best_Bk2 = self.grid_N2[found_BkN.argmax(-1)]
        far_BkN = (best_Bk2[:, :, None] - self.grid_N2).abs().amax(-1) > _REACH_CELLS * 2 / self.side
        return torch.cat([found_BkN.masked_fill(far_BkN, float("-inf")), others_BKN], dim=1)

    def find(self, names_BKD: Tensor, seen_BNF: Tensor) -> Tensor:
        """Where in the unmodulated map what is named might be: [B K N] (or names [U D] -> [B U N])."""
        assert self.thing_query is not None
        query_BKF = self.thing_query(names_BKD)
        return query_BKF @ seen_BNF.transpose(1, 2) * query_BKF.shape[-1] ** -0.5


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
        self.roles = nn.Parameter(torch.randn(config.num_queries, config.width) * 0.02)
        if not config.find_things:
            self.register_parameter("roles", None)
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

    @property
    def max_tokens(self) -> int:
        return self.config.max_words

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
        check_pictures(images)
        words_BLD, text_BD = self.instruction(token_ids, token_mask)
        body_BD = self.embodiment(embodiment_id)
        condition_BD = text_BD + body_BD
        names_BKD = None if self.roles is None else self._pick_words(words_BLD, token_mask)
        seen = [camera(images[:, i], condition_BD, names_BKD) for i, camera in enumerate(self.cameras)]
        features = torch.cat([text_BD[:, None], body_BD[:, None], *(tokens for tokens, _, _ in seen)], dim=1)
        mask = None
        if image_mask is not None:
            always = image_mask.new_ones(len(image_mask), 2)
            mask = torch.cat([always, image_mask.repeat_interleave(self.config.num_queries, dim=1)], 1)
        auxiliary = {
            "keypoint_logits": torch.stack([logits for _, logits, _ in seen], dim=1),
            "keypoint_tokens": torch.stack([tokens for tokens, _, _ in seen], dim=1),
        }
        if self.config.find_things and self.training:
            auxiliary["thing_keys"] = torch.stack([keys for _, _, keys in seen], dim=1)
        return PrefixFeatures(features, mask, auxiliary)

    def thing_logits(self, keys_BCNF: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Where in each picture each of U names (ids int64 [U L], bool [U L]) might be: [B C U N]."""
        _, text_UD = self.instruction(token_ids, token_mask)
        logits = [camera.find(text_UD, keys_BCNF[:, i]) for i, camera in enumerate(self.cameras)]  # type: ignore[operator]
        return torch.stack(logits, dim=1)

    def _pick_words(self, words_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Each query's own mean of the words: [B K D]."""
        weight_BKL = (self.roles @ words_BLD.transpose(1, 2)).masked_fill(~mask_BL[:, None], float("-inf"))
        return weight_BKL.softmax(-1) @ words_BLD
