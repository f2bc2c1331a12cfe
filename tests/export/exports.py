"""Small networks of every kind as ONNX files, and how far ONNX Runtime is from torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.models.backbones.tiny_vlms import describe, settings
from tests.models.nets import VOCABULARY, net_config
from vla.export.engine import make_session
from vla.export.graphs import MEMORY, STEPS, PolicyPrefix, Sizes, exportable, names_of, random_inputs
from vla.export.steps import ExportedSteps
from vla.export.tracing import trace
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyNet

#: Heads, blocks, compressions and projectors on a small backbone of patches.
CHOICES = {
    "regression": {"heads": ("regression",)},
    "parallel blocks": {"head_block": "parallel"},
    "pool": {"compression": "pool", "keep": 0.25},
    "shuffle": {"compression": "shuffle", "keep": 0.25},
    "attention": {"compression": "attention", "keep": 0.5},
    "instruction": {"compression": "instruction", "keep": 0.5},
    "mlp": {"projector": "mlp"},
    "qformer": {"projector": "qformer"},
    "perceiver": {"projector": "perceiver"},
}


def family_config(family: str, folder: Path) -> PolicyNetConfig:
    chosen = settings(family, describe(family, folder))
    return replace(net_config(), backbone=family, backbone_settings=chosen)


def choice_config(choice: str, folder: Path) -> PolicyNetConfig:
    config = net_config(backbone="patches", backbone_settings={"image_size": 32})
    return replace(config, **CHOICES[choice])


def largest_difference(config: PolicyNetConfig, folder: Path) -> float:
    """Largest difference of ONNX Runtime from torch, float32, on a sentence and cameras not traced with."""
    torch.manual_seed(0)
    net = PolicyNet(config).eval()
    head = exportable(net, config.heads[0])
    sizes, source = Sizes(batch=2, words=net.backbone.max_tokens), torch.Generator().manual_seed(0)
    contract = SimpleNamespace(
        camera_roles=("front", "wrist"),
        image_size=config.backbone_settings.get("image_size", 16),
        instruction={"vocabulary": VOCABULARY},
        embodiments=("a", "b"),
    )
    first, other = (random_inputs(net, contract, sizes, source) for _ in range(2))
    other[1][:] = torch.tensor([[True, True], [True, False]])
    seen, loop = PolicyPrefix(net, head).eval(), ExportedSteps(head, 2).eval()
    noise = torch.randn(2, config.horizon, len(config.action_index), generator=source)
    with torch.no_grad():
        memory, mask, _ = seen(*first)
        trace(seen, first, folder / "prefix.onnx", names_of(net), MEMORY)
        trace(loop, (noise, memory, mask), folder / "steps.onnx", STEPS, ("actions",))
        memory, mask, located = seen(*other)
        actions = loop(noise, memory, mask)
    given = {name: value.numpy() for name, value in zip(names_of(net), other, strict=True)}
    made = _run(folder / "prefix.onnx", given)
    (done,) = _run(folder / "steps.onnx", dict(zip(STEPS, (noise.numpy(), made[0], made[1]), strict=True)))
    real = memory * mask[:, None, None, :, None]  # what is masked may hold anything
    assert abs(made[0] * made[1][:, None, None, :, None] - real.numpy()).max() < 1e-3
    return float(max(abs(done - actions.numpy()).max(), abs(made[2] - located.numpy()).max()))


def _run(path: Path, given: dict):
    session = make_session(path, 1)
    return session.run(None, {i.name: given[i.name] for i in session.get_inputs()})
