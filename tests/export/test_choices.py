"""Every backbone, projector, compression and head block exports, and the files compute the same."""

from __future__ import annotations

import pytest
import torch

from tests.export.exports import CHOICES, choice_config, family_config, largest_difference
from vla.errors import CheckpointError, ConfigError
from vla.export.engine import make_session
from vla.export.tracing import trace

pytest.importorskip("onnx", reason="exporting needs onnx: pip install 'vla[onnx]'")
pytest.importorskip("onnxruntime", reason="running an export needs ONNX Runtime: pip install 'vla[onnx]'")

#: One of each kind of graph; ``scripts/study_export.py`` goes through all families.
FAMILIES = ("smolvlm", "qwen3_vl", "gemma3", "blip-2", "florence2")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_exports(family, tmp_path):
    assert largest_difference(family_config(family, tmp_path), tmp_path) < 1e-4


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_after_the_backbone_exports(choice, tmp_path):
    assert largest_difference(choice_config(choice, tmp_path), tmp_path) < 1e-5


def test_what_has_no_graph_is_named(tmp_path):
    class Strange(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(ConfigError, match=r"The prefix has no ONNX graph: .*bessel"):
        trace(Strange(), (torch.ones(2),), tmp_path / "x.onnx", ("x",), ("y",), "The prefix")


def test_a_file_that_onnx_runtime_cannot_read_is_named(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"ONNX Runtime cannot read .*x\.onnx"):
        make_session(tmp_path / "x.onnx", 1)
