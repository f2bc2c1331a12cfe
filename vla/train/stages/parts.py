"""Parts of a policy that a stage can freeze, which of its weights learn then, and how many those are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import nn

from vla.errors import ConfigError, UnknownNameError
from vla.models.four_bit import FourBitLinear
from vla.models.lora import is_adapter, is_within

#: ``vision``, ``connector`` and ``language``: of the backbone; ``adapters``: its LoRA weights;
#: ``embodiment``: its token for the arm; ``projector``: with token compression, a connector that replaced the
#: backbone's own, and what reads example episodes; ``trunk``: fusion, state and localisation; ``heads``: with
#: their history.
PARTS = ("vision", "connector", "language", "adapters", "embodiment", "projector", "trunk", "heads")
#: What ``backbone`` stands for.
BACKBONE = PARTS[:4]

_TOP = {"projector": "projector", "compress": "projector", "heads": "heads", "history": "heads"}


def check_parts(frozen: Collection[str]) -> None:
    """Raise UnknownNameError unless all are parts, or ``backbone``."""
    for part in frozen:
        if part != "backbone" and part not in PARTS:
            raise UnknownNameError("part to freeze", part, ("backbone", *PARTS))


def part_of(name: str, net: nn.Module) -> str:
    """The part that a parameter or module of a policy network belongs to, by its dotted name."""
    top, _, inner = name.partition(".")
    if top == "backbone":
        return _backbone_part(inner, net.get_submodule("backbone"))
    return _TOP.get(top, "trunk")


def _backbone_part(name: str, backbone: nn.Module) -> str:
    from vla.models.backbones.in_context import InContextBackbone
    from vla.models.backbones.pretrained import PretrainedVLM

    if isinstance(backbone, InContextBackbone):
        inner, _, rest = name.partition(".")
        return _backbone_part(rest, backbone.base) if inner == "base" else "projector"
    if is_adapter(name):
        return "adapters"
    if is_within(name, ("embodiment",)):
        return "embodiment"
    if not isinstance(backbone, PretrainedVLM):
        return "vision" if is_within(name, ("cameras",)) else "language"
    inner, family = name.removeprefix("vlm."), backbone.family
    if not is_within(inner, family.connector):
        if is_within(inner, family.vision):
            return "vision"
        if is_within(inner, family.language):
            return "language"
    return "connector" if backbone.settings.connector == "own" else "projector"


def is_frozen(name: str, net: nn.Module, frozen: Collection[str]) -> bool:
    """Whether a stage that freezes these parts leaves this weight or module alone."""
    part = part_of(name, net)
    return part in frozen or ("backbone" in frozen and part in BACKBONE)


def freeze_parts(net: nn.Module, learnable: Collection[str], frozen: Collection[str]) -> list[str]:
    """Let the ``learnable`` weights outside the frozen parts learn, and nothing else; their names.

    Modules of frozen parts that hold nothing to learn compute as in evaluation (no dropout).

    Raises:
        ConfigError: nothing is left to learn.
    """
    left = frozenset(name for name in learnable if not is_frozen(name, net, frozen))
    if not left:
        raise ConfigError(
            f"Nothing is left to learn when {sorted(frozen)} are frozen; parts that can learn in this "
            f"network: {sorted({part_of(name, net) for name in learnable})}."
        )
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in left)
    net.train()
    for name, module in net.named_modules():
        learns = any(parameter.requires_grad for parameter in module.parameters())
        if name and not learns and is_frozen(name, net, frozen):
            module.training = False
    return sorted(left)


def count_weights(net: nn.Module, learnable: Collection[str], frozen: Collection[str]) -> dict[str, Any]:
    """``learning`` and ``frozen``: how many weights; ``parts``: how many learn of how many, by part."""
    learning, total = Counter[str](), Counter[str]()
    for name, parameter in net.named_parameters():
        part = part_of(name, net)
        total[part] += parameter.numel()
        if name in learnable and not is_frozen(name, net, frozen):
            learning[part] += parameter.numel()
    for name, module in net.named_modules():
        if isinstance(module, FourBitLinear):  # packed: no parameters
            total[part_of(name, net)] += module.in_features * module.out_features
    return {
        "learning": learning.total(),
        "frozen": total.total() - learning.total(),
        "parts": {part: [learning[part], total[part]] for part in PARTS if total[part]},
    }
