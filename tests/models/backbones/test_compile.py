"""One compiled graph for prompts of every length and one to four cameras, in every family."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.backbones.tiny_vlms import CONFIGS, describe, settings
from vla.models.backbones import build_backbone

#: Tracing one family takes some seconds: VLA_TEST_COMPILE=all tries them all.
ALL = os.environ.get("VLA_TEST_COMPILE") == "all"
CAMERAS = ["front", "wrist", "left", "right"]
LINES = ["open", "pick up the red cube", "put it in the blue drawer"]


def build(family: str, folder: Path) -> Any:
    torch.manual_seed(0)
    sizes = {"camera_roles": CAMERAS, "num_layers": 1, "max_tokens": 16}
    return build_backbone(family, settings(family, describe(family, folder), **sizes)).eval()


def observe(net: Any, line: str, num_cameras: int) -> list[torch.Tensor]:
    tokens = net.tokenize([line, "pick"])
    source = torch.Generator().manual_seed(num_cameras)
    images = torch.randint(0, 256, (2, 4, 16, 16, 3), generator=source, dtype=torch.uint8)
    there = (torch.arange(4) < num_cameras).expand(2, -1)
    ids, mask = (torch.from_numpy(x) for x in (tokens.ids, tokens.mask))
    return [images, there, ids, mask, torch.tensor([0, 0])]


@pytest.mark.parametrize("family", list(CONFIGS) if ALL else ["florence2", "paligemma"])
def test_no_prompt_and_no_number_of_cameras_compiles_again(family: str, tmp_path: Path):
    net = build(family, tmp_path)
    torch._dynamo.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=count, dynamic=False)
    with torch.no_grad():
        first = compiled(*observe(net, LINES[0], 1))
        known = len(graphs)
        for cameras, line in ((2, LINES[1]), (3, LINES[2]), (4, LINES[0])):
            inputs = observe(net, line, cameras)
            seen = compiled(*inputs)
            assert seen.features.shape == first.features.shape
            assert seen.mask.shape == first.mask.shape
    torch.testing.assert_close(seen.features, net(*inputs).features, atol=2e-5, rtol=1e-4)
    assert len(graphs) == known > 0
    torch._dynamo.reset()
