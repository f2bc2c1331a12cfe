"""A SmolVLM around a language model that already is there: config and tokenizer, no weights."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, SmolVLMConfig

from vla.errors import ConfigError
from vla.models.backbones.loading import read_config, read_tokenizer

_HEAD = 64  # width of a head of the vision tower
_TILES = range(1, 5)  # as SmolVLM was trained with
_OWN = {"model_type", "vocab_size", "architectures", "transformers_version"}


def describe_smolvlm(
    language: str | Path,
    out: str | Path,
    *,
    image_size: int = 128,
    patch_size: int = 16,
    vision_width: int = 192,
    vision_layers: int = 6,
    scale_factor: int = 2,
) -> None:
    """Write a folder for ``PretrainedConfig(model=out, pretrained=False, language=language)``.

    Args:
        language: folder or hub name of a causal language model with its tokenizer, such as SmolLM2
            (arXiv:2502.02737). Tokens of pictures that it lacks are added.
        out: the folder.
        image_size, patch_size: px.
        vision_width, vision_layers: of the vision tower, a SigLIP encoder.
        scale_factor: each side of the patches' grid shrinks by it.

    Raises:
        CheckpointError: no language model there. ConfigError: sizes that do not fit each other.
    """
    if image_size % (patch_size * scale_factor) or vision_width % _HEAD:
        raise ConfigError(
            f"image_size {image_size} must be a multiple of patch_size * scale_factor "
            f"({patch_size} * {scale_factor}), vision_width {vision_width} one of {_HEAD}."
        )
    text, tokenizer = read_config(str(language)), read_tokenizer(str(language))
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    marks += [f"<row_{r}_col_{c}>" for r in _TILES for c in _TILES]
    marks += ["<|im_start|>"]
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([mark for mark in marks if mark not in known], special_tokens=True)
    holder = tokenizer.convert_tokens_to_ids("<image>")
    vocabulary = max(text.vocab_size, -(-len(tokenizer) // 64) * 64)
    kept = {key: value for key, value in text.to_dict().items() if key not in _OWN}
    config = SmolVLMConfig(
        text_config=AutoConfig.for_model(text.model_type, **kept, vocab_size=vocabulary),
        vision_config={
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": vision_width // _HEAD,
            "image_size": image_size,
            "patch_size": patch_size,
        },
        image_token_id=holder,
        scale_factor=scale_factor,
        pad_token_id=text.pad_token_id if text.pad_token_id is not None else 0,  # type: ignore[call-arg]
        tie_word_embeddings=text.tie_word_embeddings,
    )
    config.save_pretrained(out)
    tokenizer.save_pretrained(out)
