"""Frozen linear layers whose weights are kept in 4-bit NormalFloat blocks (QLoRA, arXiv:2305.14314).

The state dict holds the plain weights that the blocks stand for, under the plain names: a checkpoint loads
with and without 4-bit layers, and packing them again gives the same blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vla.errors import ConfigError, MissingExtraError
from vla.models.lora import is_within

_BLOCK = 64  # weights that share one scale


def _library() -> Any:
    try:
        import bitsandbytes  # type: ignore[import-not-found]
        from bitsandbytes import functional  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", "quant", "A 4-bit backbone") from error
    return bitsandbytes, functional


class FourBitLinear(nn.Module):
    """A frozen linear layer in 4 bits a weight (plus one float32 scale for each 64).

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ConfigError: the library cannot pack these weights on their device.
    """

    packed: Tensor
    scales: Tensor
    code: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        self.bias = linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        for name in ("packed", "scales", "code"):
            self.register_buffer(name, None, persistent=False)
        self._pack(linear.weight.detach())

    def _pack(self, weight: Tensor) -> None:
        _, functional = _library()
        try:
            self.packed, state = functional.quantize_4bit(
                weight.contiguous(), blocksize=_BLOCK, quant_type="nf4"
            )
        except (NotImplementedError, RuntimeError) as error:
            raise ConfigError(
                f"bitsandbytes cannot pack 4-bit weights on {weight.device}: {error}"
            ) from error
        self.scales, self.code = state.absmax, state.code

    def _state(self) -> Any:
        _, functional = _library()
        return functional.QuantState(
            absmax=self.scales,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.code,
            blocksize=_BLOCK,
            quant_type="nf4",
            dtype=self.dtype,
        )

    @property
    def weight(self) -> Tensor:
        """The plain weights that the blocks stand for, [out in]."""
        _, functional = _library()
        return functional.dequantize_4bit(self.packed, self._state())

    @property
    def packed_bytes(self) -> int:
        """Of what a product reads: half a byte a weight, and the scales."""
        return sum(t.numel() * t.element_size() for t in (self.packed, self.scales, self.code))

    def forward(self, x: Tensor) -> Tensor:
        bitsandbytes, _ = _library()
        return bitsandbytes.matmul_4bit(x, self.packed.t(), quant_state=self._state(), bias=self.bias)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        weight = state_dict.pop(prefix + "weight", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        missing_keys = rest[2]
        if weight is None:
            missing_keys.append(prefix + "weight")
        else:
            self._pack(weight.to(device=self.packed.device, dtype=self.dtype))


def to_four_bit(model: nn.Module, within: Sequence[str] = ("",)) -> list[str]:
    """Replace the linear layers of these parts in place (also those below LoRA adapters); their names."""
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and is_within(name, within)
        and ".lora_" not in name
        and not hasattr(module, "base_layer")
    ]
    for name, module in chosen:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, FourBitLinear(module))
    return [name for name, _ in chosen]
