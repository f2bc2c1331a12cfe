"""lerobot's side of bench_smolvla.py: runs in lerobot's own Python, knows nothing of this package.

usage: python bench_smolvla_peer.py FOLDER

Makes a full-size SmolVLA with random weights (seed 0) from lerobot's default configuration, saves policy and
processors with lerobot's code in FOLDER/policy, then answers JSON lines on its standard input:
{"threads": n} times one chunk of the observation and noise in FOLDER/case.safetensors, {"stop": 1} ends it.
No hub: the vision-language model's sizes are written here, and its tokenizer is made of the words it needs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

SIDE, STATE, ACTION = 512, 6, 6
TASK = "pick up the red cube"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>",
           "<end_of_utterance>", "<global-img>", "<video>")  # fmt: skip
#: SmolVLM2-500M-Video-Instruct
VLM = {
    "scale_factor": 4,
    "image_token_id": 4,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "llama",
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "head_dim": 64,
        "vocab_size": 49280,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192,
        "pad_token_id": 2,
        "tie_word_embeddings": False,
    },
    "vision_config": {
        "model_type": "smolvlm_vision",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    },
}


def make_vlm(folder: Path) -> None:
    """The folder that AutoConfig and AutoProcessor want."""
    SmolVLMConfig(**VLM).save_pretrained(folder)
    words = sorted(set(TASK.split()) | {"\n"})
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[0]))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[2],
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
        },
    )
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(
            size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}
        ),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
        image_seq_len=64,
    )
    processor.save_pretrained(folder)


def make_policy(folder: Path) -> tuple[SmolVLAPolicy, dict[str, torch.Tensor]]:
    """Policy and one preprocessed observation; everything is saved by lerobot's own code."""
    make_vlm(folder / "vlm")
    torch.manual_seed(0)
    visual = PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIDE, SIDE))
    config = SmolVLAConfig(
        input_features={
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(STATE,)),
            "observation.images.front": visual,
            "observation.images.wrist": visual,
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(ACTION,))},
        vlm_model_name=str(folder / "vlm"),
        device="cpu",
    )
    policy = SmolVLAPolicy(config).eval()
    statistics = {
        "observation.state": {"mean": torch.full((STATE,), 0.1), "std": torch.full((STATE,), 0.5)},
        "action": {"mean": torch.full((ACTION,), 0.2), "std": torch.full((ACTION,), 1.0)},
    }
    pre, post = make_smolvla_pre_post_processors(config, statistics)
    for part in (policy, pre, post):
        part.save_pretrained(folder / "policy")
    observation = {
        "observation.state": torch.randn(1, STATE),
        "observation.images.front": torch.rand(1, 3, SIDE, SIDE),
        "observation.images.wrist": torch.rand(1, 3, SIDE, SIDE),
    }
    noise = torch.randn(1, config.chunk_size, config.max_action_dim)
    save_file({**observation, "noise": noise}, folder / "case.safetensors")
    return policy, pre({**observation, "task": [TASK]})


def main() -> None:
    folder = Path(sys.argv[1])
    policy, batch = make_policy(folder)
    noise = load_file(folder / "case.safetensors")["noise"]
    print(json.dumps({"ready": sum(p.numel() for p in policy.parameters())}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "stop" in asked:
            return
        torch.set_num_threads(asked["threads"])
        wall, cpu = time.perf_counter(), time.process_time()
        chunk = policy.predict_action_chunk(dict(batch), noise=noise)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        save_file({"chunk": chunk.contiguous()}, folder / "chunk.safetensors")
        print(json.dumps({"wall_s": wall, "cpu_s": cpu}), flush=True)


if __name__ == "__main__":
    main()
