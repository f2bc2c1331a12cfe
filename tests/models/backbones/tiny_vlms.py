"""Folders with small random models of every family: config, tokenizer and weights, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

WORDS = [
    "pick",
    "up",
    "the",
    "red",
    "cube",
    "blue",
    "drawer",
    "open",
    "put",
    "it",
    "in",
    "USER:",
    "ASSISTANT:",
    "User:",
    "Assistant:",
    "user",
    "model",
    "assistant",
]
SPECIALS = [
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<|turn>",
    "<turn|>",
    "<|image>",
    "<image|>",
    "<img>",
    "</img>",
    "<|user|>",
    "<|end|>",
    "<|assistant|>",
    "<|video|>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
]
IMAGE_ID = SPECIALS.index("<image>")
VOCABULARY = len(SPECIALS) + len(WORDS) + 1
WIDTH, SIDE = 32, 56

TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 14,
}
QFORMER = {
    "vocab_size": 64,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "encoder_hidden_size": 24,
    "cross_attention_frequency": 1,
    "initializer_range": 0.2,
    "max_position_embeddings": 128,
}
LLAMA, QWEN2 = {"model_type": "llama", **TEXT}, {"model_type": "qwen2", **TEXT}
CLIP = {"model_type": "clip_vision_model", "projection_dim": 24, **VISION}
SIGLIP = {"model_type": "siglip_vision_model", **VISION}
OPT = {
    "model_type": "opt",
    "hidden_size": WIDTH,
    "ffn_dim": 48,
    "word_embed_proj_dim": WIDTH,
    **{k: TEXT[k] for k in ("num_hidden_layers", "num_attention_heads", "vocab_size")},
    "max_position_embeddings": 512,
    "dropout": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
BLIP_VISION = {**VISION, "initializer_range": 0.2}  # the default leaves a fresh encoder blind
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
SIXTEEN = {"head_dim": 16}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
QWEN_TEXT = {**TEXT, "rope_parameters": ROPE}
GEMMA = {**TEXT, **SIXTEEN, "query_pre_attn_scalar": 16}
GRID = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "depth": 2, "num_heads": 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "llava": {"text_config": LLAMA, "vision_config": CLIP, "image_token_index": IMAGE_ID},
    "llava_next": {"text_config": LLAMA, "vision_config": CLIP, "image_token_index": IMAGE_ID},
    "llava_onevision": {
        "text_config": QWEN2,
        "vision_config": SIGLIP,
        "image_token_index": IMAGE_ID,
        "video_token_index": 26,
        "vision_feature_select_strategy": "full",
    },
    "blip-2": {
        "text_config": OPT,
        "vision_config": BLIP_VISION,
        "num_query_tokens": 4,
        "image_token_index": IMAGE_ID,
        "qformer_config": {**QFORMER, **DROPOUT},
    },
    "instructblip": {
        "text_config": OPT,
        "vision_config": BLIP_VISION,
        "num_query_tokens": 4,
        "image_token_index": IMAGE_ID,
        "qformer_config": {**QFORMER, **DROPOUT},
    },
    "idefics2": {
        "text_config": {"model_type": "mistral", **TEXT, "sliding_window": None},
        "vision_config": VISION,
        "image_token_id": IMAGE_ID,
        "perceiver_config": {
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
            "hidden_size": WIDTH,
        },
    },
    "idefics3": {
        "text_config": LLAMA,
        "vision_config": VISION,
        "image_token_id": IMAGE_ID,
        "scale_factor": 2,
    },
    "smolvlm": {"text_config": LLAMA, "vision_config": VISION, "image_token_id": IMAGE_ID, "scale_factor": 2},
    "qwen2_vl": {
        "text_config": QWEN_TEXT,
        "image_token_id": IMAGE_ID,
        "video_token_id": 26,
        "vision_config": {**GRID, "embed_dim": 24, "hidden_size": WIDTH, "mlp_ratio": 2},
    },
    "qwen2_5_vl": {
        "text_config": QWEN_TEXT,
        "image_token_id": IMAGE_ID,
        "video_token_id": 26,
        "vision_config": {
            **GRID,
            "hidden_size": 24,
            "out_hidden_size": WIDTH,
            "intermediate_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
    },
    "qwen3_vl": {
        "text_config": {**QWEN_TEXT, **SIXTEEN},
        "image_token_id": IMAGE_ID,
        "video_token_id": 26,
        "vision_config": {
            **GRID,
            "hidden_size": 24,
            "out_hidden_size": WIDTH,
            "intermediate_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    },
    "paligemma": {
        "text_config": {"model_type": "gemma", **TEXT, **SIXTEEN},
        "projection_dim": WIDTH,
        "vision_config": {**SIGLIP, "projection_dim": WIDTH, "vision_use_head": False},
        "image_token_index": IMAGE_ID,
    },
    "gemma3": {
        "text_config": {"model_type": "gemma3_text", **GEMMA, "sliding_window": 64},
        "mm_tokens_per_image": 4,
        "vision_config": {**SIGLIP, "vision_use_head": False},
        "image_token_index": IMAGE_ID,
    },
    "gemma4": {
        "text_config": {
            "model_type": "gemma4_text",
            **GEMMA,
            "global_head_dim": 16,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 64,
            "num_kv_shared_layers": 0,
        },
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 14,
            "pooling_kernel_size": 2,
            "position_embedding_size": 16,
        },
        "audio_config": None,
        "image_token_id": IMAGE_ID,
        "video_token_id": 26,
        "audio_token_id": 62,
    },
    "internvl": {
        "text_config": QWEN2,
        "image_token_id": IMAGE_ID,
        "downsample_ratio": 0.5,
        "vision_config": {**VISION, "image_size": [SIDE, SIDE], "patch_size": [14, 14]},
    },
    "florence2": {
        "image_token_id": IMAGE_ID,
        "is_encoder_decoder": True,
        "text_config": {
            "model_type": "bart",
            "d_model": WIDTH,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "vocab_size": 64,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        "vision_config": {
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 8, 16, 16],
            "num_heads": [1, 1, 2, 2],
            "num_groups": [1, 1, 2, 2],
            "window_size": 2,
            "projection_dim": WIDTH,
            "drop_path_rate": 0.0,
        },
    },
    "phi4_multimodal": {
        **TEXT,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "sliding_window": None,
        "vision_config": {**VISION, "crop_size": SIDE, "image_token_id": IMAGE_ID, "feature_layer": -2},
        "audio_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_blocks": 1,
            "num_attention_heads": 2,
            "audio_token_id": 62,
            "ext_pw_out_channel": 16,
            "nemo_conv_channels": 16,
            "nemo_final_size": 16,
        },
    },
}
#: Of the same families, around other language models.
PALIGEMMA_2 = {"text_config": {"model_type": "gemma2", **GEMMA, "sliding_window": 64}}
BLIP_2_T5 = {
    "text_config": {
        "model_type": "t5",
        "d_model": WIDTH,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "num_heads": 2,
        "vocab_size": 64,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }
}
SIDES = {"florence2": 64}


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with every special token that a family may look for."""
    words = {word: i for i, word in enumerate([*SPECIALS, *WORDS])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=plain, **names)


def describe(family: str, folder: Path, **changes: Any) -> str:
    """Config and tokenizer of a small model, without weights; the folder's name."""
    values = CONFIGS[family] | changes
    config = AutoConfig.for_model(family, **values)
    config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if family == "instructblip":
        tokenizer().save_pretrained(folder / "qformer_tokenizer")
    return str(folder)


def save_model(family: str, folder: Path, **changes: Any) -> str:
    """The same with random weights, as the released checkpoints have them (output layer and all)."""
    describe(family, folder, **changes)
    torch.manual_seed(7)
    name = "AutoModelForCausalLM" if family == "phi4_multimodal" else "AutoModelForImageTextToText"
    getattr(transformers, name).from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return str(folder)


def settings(family: str, model: str, **changes: Any) -> dict[str, Any]:
    """Settings of a backbone of two small cameras, with fresh weights."""
    values = {
        "model": model,
        "pretrained": False,
        "embodiments": ["a", "b"],
        "camera_roles": ["front", "wrist"],
        "image_size": SIDES.get(family, SIDE),
        "max_tokens": 16,
    }
    return values | changes
