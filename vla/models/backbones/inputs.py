"""What the families' models are told: pixels in their own order, further arguments, sizes; and where hidden
states come out. One line each in the table of ``vla.models.backbones.families``.

Shapes: B batch, C cameras, T views of a picture, S side in px, P prompt tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vla.models.backbones.pixels import merge_order_patches, row_order_patches


@dataclass(frozen=True)
class Geometry:
    """What decides how many tokens a picture becomes: the model's config, side in px, tiles a side."""

    config: Any
    side: int
    tiles: int = 1

    @property
    def patches(self) -> int:
        """A side, in patches of the vision encoder."""
        return self.side // patch_side(self.config)

    @property
    def views(self) -> int:
        """A picture that is cut is shown whole, too."""
        return self.tiles**2 + 1 if self.tiles > 1 else 1

    @property
    def tiled(self) -> int:
        """Tokens of a picture shown whole and in tiles, each row of the tiles closed by a newline token."""
        rows = self.patches * self.tiles
        most = getattr(self.config, "vision_aspect_ratio", "")  # LLaVA-OneVision shrinks what is beyond
        if most.startswith("anyres_max_"):
            ratio = math.sqrt(self.tiles**2 / int(most.removeprefix("anyres_max_")))
            rows = int(rows // ratio) if ratio > 1.1 else rows
        return self.patches**2 + rows * (rows + 1)


def patch_side(config: Any) -> int:
    """Side of a vision patch, px (some configs give a pair)."""
    patch = config.vision_config.patch_size
    return patch if isinstance(patch, int) else patch[0]


# ---- how pixels are handed over


def frames(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    """One picture a row: the usual way."""
    return {"pixel_values": pixels_BCT3SS.flatten(0, 2)}


def nested_frames(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    return {"pixel_values": pixels_BCT3SS.flatten(1, 2)}


def tiled_frames(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    x = pixels_BCT3SS.flatten(0, 1)
    sizes = torch.full((len(x), 2), geometry.side * geometry.tiles, device=x.device)
    return {"pixel_values": x, "image_sizes": sizes}


def qwen_patches(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    vision = geometry.config.vision_config
    x = pixels_BCT3SS.flatten(0, 2)
    patches = merge_order_patches(x, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    grid = torch.tensor([[1, geometry.patches, geometry.patches]], device=x.device).expand(len(x), -1)
    return {"pixel_values": patches, "image_grid_thw": grid}


def gemma4_patches(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    patches, where = row_order_patches(pixels_BCT3SS.flatten(0, 2), geometry.config.vision_config.patch_size)
    return {"pixel_values": patches, "image_position_ids": where}


def phi4_frames(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    given = tiled_frames(pixels_BCT3SS, geometry)
    x, patches = given["pixel_values"], geometry.patches
    mask = torch.ones(*x.shape[:2], patches, patches, dtype=torch.bool, device=x.device)
    return {
        "image_pixel_values": x,
        "image_sizes": given["image_sizes"],
        "image_attention_mask": mask,
    }


# ---- what else the model must be told


def all_prefix(holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module) -> dict[str, Tensor]:
    """PaliGemma (arXiv:2407.07726) reads the whole prefix both ways: type 0."""
    return {"token_type_ids": torch.zeros_like(ids_1P)}


def picture_types(
    holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module
) -> dict[str, Tensor]:
    """Gemma 3 reads each picture both ways: type 1."""
    return {"token_type_ids": holders_1P.long()}


def mm_types(holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module) -> dict[str, Tensor]:
    return {"mm_token_type_ids": holders_1P.long()}


def rope_positions(
    holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module
) -> dict[str, Tensor]:
    """Multimodal rotary positions [3 1 P] of the Qwen-VL families: the layout never changes."""
    num_pictures = int(holders_1P.sum()) // (geometry.patches // merge_size(geometry.config)) ** 2
    grid = torch.tensor([[1, geometry.patches, geometry.patches]] * num_pictures)
    positions, _ = vlm.get_rope_index(  # type: ignore[operator]
        ids_1P, mm_token_type_ids=holders_1P.int(), image_grid_thw=grid
    )
    return {"position_ids": positions}


# ---- which of a picture's tokens are its patches


def square(num_tokens: int) -> Tensor | None:
    """Row by row, behind a class token or a mean where there is one more [1 S S]; None if it is no square."""
    side = math.isqrt(num_tokens)
    extra = num_tokens - side**2
    return torch.arange(extra, num_tokens).view(1, side, side) if extra <= 1 else None


def square_and_rows(num_tokens: int) -> Tensor:
    """LLaVA-NeXT: the picture, and again in rows that a newline token ends [2 S S]."""
    side = (math.isqrt(8 * num_tokens + 1) - 1) // 4
    return torch.stack([torch.arange(side**2).view(side, side), side**2 + _rows_that_end(side)])


def phi4_rows(num_tokens: int) -> Tensor:
    """The picture in rows that end, a separator, and again [2 S S]."""
    side = (math.isqrt(2 * num_tokens - 1) - 1) // 2
    rows = _rows_that_end(side)
    return torch.stack([rows, side * (side + 1) + 1 + rows])


def _rows_that_end(side: int) -> Tensor:
    return torch.arange(side * (side + 1)).view(side, side + 1)[:, :-1]


# ---- where hidden states come out


def encode_base(
    vlm: nn.Module, ids: Tensor, mask: Tensor, holders: Tensor, given: dict[str, Tensor]
) -> Tensor:
    """The base model's own forward: it places pictures and masks by itself."""
    return vlm(input_ids=ids, attention_mask=mask.long(), use_cache=False, **given).last_hidden_state


def encode_embeddings(
    vlm: Any, ids: Tensor, mask: Tensor, holders: Tensor, given: dict[str, Tensor]
) -> Tensor:
    """Families without a base model, or with a decoder that a prefix has no use for: the language model (its
    encoder, where it has one) reads embeddings in which the pictures are placed.
    """
    pictures = vlm.get_image_features(**given, return_dict=True).pooler_output
    language = vlm.language_model
    reader = language.get_encoder() if language.config.is_encoder_decoder else language.base_model
    x = reader.get_input_embeddings()(ids)
    x = x.masked_scatter(holders.unsqueeze(-1), pictures.to(x.dtype))
    return reader(inputs_embeds=x, attention_mask=mask.long()).last_hidden_state


def see_both_ways(vlm: nn.Module) -> None:
    """Phi-4's vision encoder was trained to look at a picture as a whole. transformers (5.23) marks its
    attention as causal, and with ``sdpa`` and no patch masked that is what runs; with ``eager`` it is not.
    """
    for module in vlm.get_submodule("embed_tokens_extend.image_embed.img_processor").modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False  # type: ignore[assignment]


# ---- sizes


def merge_size(config: Any) -> int:
    return config.vision_config.spatial_merge_size


def clip_tokens(geometry: Geometry) -> int:
    """A patch each; ``full`` keeps the class token too, where the encoder has one (CLIP)."""
    config = geometry.config
    keeps_class = (
        config.vision_feature_select_strategy == "full" and "clip" in config.vision_config.model_type
    )
    return geometry.patches**2 + int(keeps_class)


def merged_unit(config: Any) -> int:
    return config.vision_config.patch_size * config.vision_config.spatial_merge_size


def scaled_unit(config: Any) -> int:
    return patch_side(config) * config.scale_factor


def phi4_tokens(geometry: Geometry) -> int:
    """The tiles in rows that end, a separator, the whole picture in rows that end; two patches a token."""
    side = geometry.patches // 2
    rows = side * geometry.tiles
    return rows * (rows + 1) + 1 + side * (side + 1)
