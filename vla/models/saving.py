"""A policy directory: weights and contract, written together and loaded strictly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla.contract import WEIGHTS_FILE, PolicyContract
from vla.errors import CheckpointError, DivergenceError
from vla.files import replace_directory
from vla.models.backbones import keep_description, with_description
from vla.models.policy_net import PolicyNet, PolicyNetConfig

TRANSFORMERS_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"


def save_policy(
    directory: str | Path, weights: Mapping[str, Tensor], contract: PolicyContract
) -> PolicyContract:
    """Write ``model.safetensors`` and ``policy.json``; replaces a policy already there, all or nothing.

    Also the two small files by which transformers finds the classes of ``vla.models.auto``.

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
    keep_description(contract.network["backbone"], contract.network["backbone_settings"], part)
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
    config = PolicyNetConfig.from_json(contract.network)
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
    return net, contract
