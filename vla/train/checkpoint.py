"""Checkpoints: everything needed to go on exactly, as named tensors and JSON.

    checkpoints/000120/  model.safetensors  average.safetensors  optimizer.safetensors  state.json

A checkpoint is written under another name and renamed, so one that exists is whole.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla.errors import CheckpointError
from vla.files import read_json
from vla.models.saving import check_finite
from vla.train.optim import MovingAverage

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of each parameter
_FILES = ("model.safetensors", "average.safetensors", "optimizer.safetensors", "state.json")


def save_checkpoint(
    directory: Path,
    *,
    net: nn.Module,
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write ``directory/<step>`` (``state["step"]``) and drop all but the newest ``keep``.

    Raises:
        DivergenceError: a weight is not finite; nothing is written.
    """
    check_finite(net.state_dict())
    check_finite(average.state_dict())
    path = directory / f"{state['step']:06d}"
    part = directory / f"{path.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_own(net.state_dict()), part / _FILES[0])
    save_file(_own(average.state_dict()), part / _FILES[1])
    save_file(_optimizer_tensors(net, optimizer), part / _FILES[2])
    (part / _FILES[3]).write_text(json.dumps(state, indent=1) + "\n")
    shutil.rmtree(path, ignore_errors=True)
    part.rename(path)
    for old in list_checkpoints(directory)[:-keep]:
        shutil.rmtree(old)
    return path


def list_checkpoints(directory: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(p for p in directory.glob("[0-9]*") if p.is_dir() and p.suffix != ".part")


def load_checkpoint(
    path: Path, *, net: nn.Module, average: MovingAverage, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore in place, strictly; returns the state.

    Raises:
        CheckpointError: a file is missing or damaged, or belongs to another network.
    """
    state = read_state(path)
    try:
        net.load_state_dict(load_file(path / _FILES[0]), strict=True)
        average.load_state_dict(load_file(path / _FILES[1]))
        _load_optimizer(net, optimizer, load_file(path / _FILES[2]))
        return state
    except (RuntimeError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"Checkpoint {path} does not fit this configuration or is damaged: {error}. "
            "Resume with the configuration stored in run.json, or start a new run directory."
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """The state alone, of a whole checkpoint; same errors as :func:`load_checkpoint`."""
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise CheckpointError(f"Checkpoint {path} lacks {missing}.")
    return read_json(path / _FILES[3], CheckpointError, "Resume from another checkpoint, or start a new run.")


def _own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in state.items()}


def _optimizer_tensors(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value.detach().contiguous()
        for name, parameter in net.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _load_optimizer(net: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    wanted = {f"{name}/{key}" for name in trained for key in _MOMENTS}
    if wanted != set(tensors):
        raise KeyError(
            f"the optimizer's state lacks {sorted(wanted - set(tensors))[:5]} "
            f"and has unknown {sorted(set(tensors) - wanted)[:5]}"
        )
    for full, value in tensors.items():
        name, key = full.rsplit("/", 1)
        like = trained[name]
        if key == "step":  # the fused kernel wants it beside its parameter
            optimizer.state[like][key] = value.to(device=like.device, dtype=torch.float32)
        elif value.shape != like.shape:
            raise ValueError(f"{full} has shape {tuple(value.shape)}, expected {tuple(like.shape)}")
        else:  # laid out in memory like its parameter
            optimizer.state[like][key] = torch.empty_like(like).copy_(value)
