"""A policy directory: weights and contract, written together and loaded strictly."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla.contract import WEIGHTS_FILE, PolicyContract
from vla.errors import CheckpointError, DivergenceError
from vla.files import replace_directory
from vla.models.policy_net import PolicyNet, PolicyNetConfig


def save_policy(
    directory: str | Path, weights: Mapping[str, Tensor], contract: PolicyContract
) -> PolicyContract:
    """Write ``model.safetensors`` and ``policy.json``; replaces a policy already there, all or nothing.

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
    sealed = contract.save(part)
    replace_directory(directory, part)
    return sealed


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
    net = PolicyNet(PolicyNetConfig.from_json(contract.network))
    try:
        net.load_state_dict(load_file(Path(directory) / WEIGHTS_FILE), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"Weights in {directory} do not fit the contract's network: {error}") from error
    return net.to(device=device, memory_format=torch.channels_last).eval(), contract  # type: ignore[call-overload]
