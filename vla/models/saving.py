"""A policy directory: weights and contract, written together and loaded strictly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla.contract import WEIGHTS_FILE, PolicyContract
from vla.errors import CheckpointError, ConfigError, DivergenceError
from vla.files import replace_directory
from vla.models.backbones import FROM_SCRATCH, keep_description, with_description
from vla.models.lora import merge_lora
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyNet

TRANSFORMERS_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"


def save_policy(
    directory: str | Path,
    weights: Mapping[str, Tensor],
    contract: PolicyContract,
    *,
    described_by: Mapping[str, Any] | None = None,
) -> PolicyContract:
    """Write ``model.safetensors`` and ``policy.json``; replaces a policy already there, all or nothing.

    Also the two small files by which transformers finds the classes of ``vla.models.auto``.

    Args:
        described_by: settings of the backbone that say where its config and tokenizer lie now, for a policy
            that was loaded (None: the contract's).

    Raises:
        DivergenceError: a weight is not finite; the policy already there stays.
    """
    check_finite(weights)
    directory = Path(directory)
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()}, part / WEIGHTS_FILE
    )
    for name, text in transformers_files(contract).items():
        (part / name).write_text(text)
    keep_description(
        contract.network["backbone"], described_by or contract.network["backbone_settings"], part
    )
    sealed = contract.save(part)
    replace_directory(directory, part)
    return sealed


def transformers_files(contract: PolicyContract) -> dict[str, str]:
    """``config.json`` and ``preprocessor_config.json`` by name: what transformers needs besides."""
    config = {"architectures": ["VlaModel"], "model_type": "vla", "network": dict(contract.network)}
    processor = {"processor_class": "VlaProcessor"}
    return {
        TRANSFORMERS_FILE: json.dumps(config, indent=1) + "\n",
        PROCESSOR_FILE: json.dumps(processor) + "\n",
    }


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise :class:`DivergenceError` naming weights that hold NaN or infinity."""
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise DivergenceError(f"Refusing to save {len(broken)} weights that are not finite: {broken[:5]}.")


def load_policy(
    directory: str | Path, device: str | torch.device = "cpu"
) -> tuple[PolicyNet, PolicyContract]:
    """The network in evaluation mode and its contract, verified.

    Raises:
        ContractError: no policy, another version, weights that are not the contract's.
        CheckpointError: weights that do not fit the network that the contract describes.
    """
    contract = PolicyContract.load(directory)
    return _load(directory, PolicyNetConfig.from_json(contract.network), device), contract


def merge_adapters(directory: str | Path, out: str | Path) -> PolicyContract:
    """A policy whose LoRA adapters are folded into the weights they adapt: the same actions up to rounding,
    plain layers, nothing to add at each step. Where the backbone was kept in 4 bits, its plain weights are.

    Args:
        directory: of a policy whose backbone has ``lora``.
        out: of the policy that is written; its contract says so.

    Raises:
        ConfigError: there is nothing to merge.
        ContractError, CheckpointError: see :func:`load_policy`.
    """
    contract = PolicyContract.load(directory)
    config = PolicyNetConfig.from_json(contract.network)
    net = _load(directory, _with_backbone(config, four_bit=False), "cpu")
    count = merge_lora(net)
    if not count:
        raise ConfigError(f"The policy in {directory} has no LoRA adapters to merge.")
    plain = _with_backbone(config, four_bit=False, lora=None)
    contract = replace(
        contract,
        network=plain.to_json(),
        provenance={
            **contract.provenance,
            "merged_adapters": {"of": contract.weights_sha256, "count": count},
        },
    )
    described = with_description(plain.backbone, plain.backbone_settings, directory)
    return save_policy(out, net.state_dict(), contract, described_by=described)


def _with_backbone(config: PolicyNetConfig, **changes: Any) -> PolicyNetConfig:
    """Other settings of the pretrained backbone, if there is one, also below one that reads examples."""
    settings = dict(config.backbone_settings)
    if config.backbone in FROM_SCRATCH:
        return config
    if config.backbone != "in_context":
        return replace(config, backbone_settings=settings | changes)
    if settings["base"] not in FROM_SCRATCH:
        settings["base_settings"] = {**settings["base_settings"], **changes}
    return replace(config, backbone_settings=settings)


def _load(directory: str | Path, config: PolicyNetConfig, device: str | torch.device) -> PolicyNet:
    """The network of that config with the weights in ``directory``, in evaluation mode."""
    settings = with_description(config.backbone, config.backbone_settings, directory)
    net = PolicyNet(replace(config, backbone_settings=settings))
    try:
        net.load_state_dict(load_file(Path(directory) / WEIGHTS_FILE), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"Weights in {directory} do not fit the contract's network: {error}") from error
    net = net.to(device=device).eval()
    for weight in net.parameters():
        if weight.dim() == 4:  # of convolutions over pictures
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return net
