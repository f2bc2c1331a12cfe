"""lerobot's side of check_lerobot_checkpoints.py: runs in lerobot's Python, knows nothing of this package.

usage: python lerobot_checkpoints_peer.py CASES.json

CASES.json is a list of {"kind", "policy" (a folder), "batch" (safetensors: processed batch, action, noise,
time), "out"}; for each, ``out`` gets the normalised chunk and the training loss as lerobot has them. With
"raw" (raw observation, tasks in "tasks") the policy's own pre- and post-processors are loaded and used, and
"actions" are in the robot's units. lerobot knows pi0 and pi05 in their full sizes only: where the file's
tensors are smaller, the configurations that its constructor makes are shrunk to them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lerobot.policies.pi0.modeling_pi0 as pi0
import lerobot.policies.pi05.modeling_pi05 as pi05
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.processor import PolicyProcessorPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

VISION_HEADS = 4  # of the tiny towers
HEADS = 8  # of Gemma, written into lerobot's attention
_BODY = "model.paligemma_with_expert.paligemma.model."
_EXPERT = "model.paligemma_with_expert.gemma_expert.model."


def shapes_of(path: Path) -> dict[str, list[int]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def shrink(module: Any, shapes: dict[str, list[int]]) -> None:
    """Make lerobot's constructor build what the file holds."""

    def depth(start: str) -> int:
        return len({name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)})

    def gemma(start: str) -> Any:
        size = shapes[f"{start}layers.0.self_attn.q_proj.weight"][0] // HEADS
        return module.GemmaConfig(
            width=shapes[f"{start}layers.0.self_attn.q_proj.weight"][1],
            depth=depth(f"{start}layers."),
            mlp_dim=shapes[f"{start}layers.0.mlp.up_proj.weight"][0],
            num_heads=HEADS,
            num_kv_heads=shapes[f"{start}layers.0.self_attn.k_proj.weight"][0] // size,
            head_dim=size,
        )

    known = {"gemma_2b": gemma(f"{_BODY}language_model."), "gemma_300m": gemma(_EXPERT)}
    module.get_gemma_config = known.__getitem__
    vocab = shapes["model.paligemma_with_expert.paligemma.lm_head.weight"][0]
    tower = f"{_BODY}vision_tower.vision_model."
    width, _, patch, _ = shapes[f"{tower}embeddings.patch_embedding.weight"]
    pali, causal = module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM

    def small_pali(config: Any) -> Any:
        config.text_config.vocab_size = config._vocab_size = vocab
        config.image_token_index = config.image_token_id = vocab - 1
        vision = config.vision_config
        vision.hidden_size, vision.patch_size, vision.num_attention_heads = width, patch, VISION_HEADS
        vision.intermediate_size = shapes[f"{tower}encoder.layers.0.mlp.fc1.weight"][0]
        vision.num_hidden_layers = depth(f"{tower}encoder.layers.")
        vision.projection_dim = config.projection_dim = shapes[f"{_BODY}multi_modal_projector.linear.weight"][
            0
        ]
        return pali(config)

    def small_causal(config: Any) -> Any:
        config.vocab_size = vocab
        return causal(config)

    module.PaliGemmaForConditionalGenerationWithPiGemma = small_pali
    module.PiGemmaForCausalLM = small_causal


def load(kind: str, folder: Path) -> Any:
    config = PreTrainedConfig.from_pretrained(folder)
    if kind == "smolvla":
        beside = folder / config.vlm_model_name
        config.vlm_model_name = str(beside if beside.is_dir() else config.vlm_model_name)
        return SmolVLAPolicy.from_pretrained(folder, config=config, strict=True)
    module = {"pi0": pi0, "pi05": pi05}[kind]
    shrink(module, shapes_of(folder / "model.safetensors"))
    policy = {"pi0": pi0.PI0Policy, "pi05": pi05.PI05Policy}[kind](config)
    policy.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return policy.eval()


@torch.no_grad()
def loss(kind: str, policy: Any, batch: dict[str, Any]) -> torch.Tensor:
    if kind == "smolvla":
        value, _ = policy.forward(batch, noise=batch["padded_noise"], time=batch["time"])
        return value
    images, masks = policy._preprocess_images(batch)
    words = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    state = (policy.prepare_state(batch),) if kind == "pi0" else ()
    actions = policy.prepare_action(batch)
    errors = policy.model.forward(
        images, masks, *words, *state, actions, batch["padded_noise"], batch["time"]
    )
    return errors[:, :, : policy.config.output_features["action"].shape[0]].mean()


def run(case: dict[str, Any]) -> None:
    kind, folder = case["kind"], Path(case["policy"])
    policy = load(kind, folder)
    batch: dict[str, Any] = load_file(case["batch"])
    noise = batch["noise"]
    batch["padded_noise"] = noise
    found = {"chunk": policy.predict_action_chunk(dict(batch), noise=noise)}
    found["loss"] = loss(kind, policy, dict(batch))
    if "raw" in case:
        tokenizer = {"tokenizer_processor": {"tokenizer_name": policy.config.vlm_model_name}}
        pre = PolicyProcessorPipeline.from_pretrained(
            folder, config_filename="policy_preprocessor.json", overrides=tokenizer
        )
        post = PolicyProcessorPipeline.from_pretrained(
            folder,
            config_filename="policy_postprocessor.json",
            to_transition=lambda action: {"action": action},
            to_output=lambda transition: transition["action"],
        )
        seen = pre({**load_file(case["raw"]), "task": case["tasks"]})
        found["actions"] = post(policy.predict_action_chunk(seen, noise=noise))
    save_file({name: value.detach().contiguous().clone() for name, value in found.items()}, case["out"])


def main() -> None:
    for case in json.loads(Path(sys.argv[1]).read_text()):
        run(case)
    print(json.dumps({"done": True}))


if __name__ == "__main__":
    main()
