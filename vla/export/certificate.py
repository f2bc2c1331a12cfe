"""Rows of the parity certificate for exported files, end to end from pictures to actions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from vla.contract import PolicyContract
from vla.export.engine import OnnxEngine, has_export
from vla.export.graphs import Sizes, random_inputs
from vla.export.manifest import FOLDER, MANIFEST_FILE, Manifest
from vla.export.writing import TOLERANCE, parity_error
from vla.kernels.parity import Row
from vla.models.policy_net import PolicyNet


def export_rows(directory: Path, net: PolicyNet, contract: PolicyContract, seed: int) -> Iterator[Row]:
    """One row for the float32 export beside a policy, if there is one.

    int8 is judged by ``vla export`` alone: on observations as they are met, not on random ones.
    """
    folder = directory / FOLDER
    if not (folder / MANIFEST_FILE).is_file():
        return
    manifest = Manifest.load(folder, contract)
    row = {"head": manifest.head, "path": "onnx", "dtype": "float32", "tolerance": TOLERANCE}
    if not has_export(folder):
        yield Row(**row, reason="onnxruntime is not installed (pip install 'vla[onnx]')")
        return
    engine = OnnxEngine.load(folder, contract)
    sizes, generator = Sizes(batch=manifest.batch, words=manifest.words), torch.Generator().manual_seed(seed)
    cases = [random_inputs(net, contract, sizes, generator) for _ in range(3)]
    yield Row(**row, error=parity_error(engine, net, cases, seed), worst_case="pictures to actions")
