"""From a policy to ONNX files beside it, compared with float64 before anything is kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vla.contract import sha256_of
from vla.errors import CheckpointError, ConfigError
from vla.export.engine import SETTINGS, OnnxEngine, make_session, onnx_runtime
from vla.export.graphs import (
    MEMORY,
    STEPS,
    PolicyPrefix,
    Sizes,
    exact_actions,
    exportable,
    names_of,
    random_inputs,
)
from vla.export.manifest import FOLDER, Manifest, file_names
from vla.export.steps import ExportedSteps
from vla.export.tracing import trace
from vla.files import replace_directory
from vla.models.heads.flow import FlowHead
from vla.models.policy_net import PolicyNet
from vla.models.saving import load_policy
from vla.provenance import package_versions

#: Largest error of the float32 files, relative to the largest action (at least 1). Backbone, trunk and head
#: round one after the other, hence ten times what the head alone is allowed in ``vla.kernels.parity``.
TOLERANCE = 1e-4
NUM_CHECKS = 4


def export_policy(
    policy: str | Path,
    out: str | Path | None = None,
    *,
    head: str | None = None,
    batch: int = 1,
    words: int | None = None,
) -> Manifest:
    """Write ``prefix.onnx``, ``steps.onnx`` and ``export.json``; all or nothing, replacing an older export.

    Args:
        policy: a policy directory.
        out: None: the folder ``onnx`` beside the weights, where the policy finds it.
        head: None: the policy's default.
        batch: observations at once.
        words: tokens of the longest instruction; None: as many as the backbone takes.

    Raises:
        ConfigError: a head or network without fixed graphs, or more words than the backbone takes.
        CheckpointError: the files do not compute what the policy does.
        MissingExtraError: no onnx or ONNX Runtime.
    """
    onnx_runtime()
    policy = Path(policy)
    net, contract = load_policy(policy)
    name = head or contract.heads[0]
    chosen, config = exportable(net, name), net.config
    sizes = _sizes(net, batch, words)
    inputs = random_inputs(net, contract, sizes, torch.Generator().manual_seed(0))
    module = PolicyPrefix(net, chosen).eval()
    with torch.no_grad():
        memory, mask, _ = module(*inputs)
    noise = torch.zeros(sizes.batch, contract.horizon, len(config.action_index))
    loop = ExportedSteps(chosen, contract.num_flow_steps).eval()
    out = policy / FOLDER if out is None else Path(out)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    prefix, steps = (part / file for file in file_names("float32"))
    seen = f"{config.backbone} backbone, {config.projector} projector, {config.compression} compression"
    try:
        trace(module, inputs, prefix, names_of(net), MEMORY, f"The prefix ({seen})")
        trace(loop, (noise, memory, mask), steps, STEPS, ("actions",), f"The head {name!r}")
        manifest = Manifest(
            weights_sha256=contract.weights_sha256,
            head=name,
            num_steps=contract.num_flow_steps if isinstance(chosen, FlowHead) else 1,
            draws_noise=isinstance(chosen, FlowHead),
            batch=sizes.batch,
            words=sizes.words,
            horizon=contract.horizon,
            action_index=config.action_index,
            files={path.name: sha256_of(path) for path in (prefix, steps)},
            parity={},
            settings=SETTINGS,
            versions=package_versions(("torch", "onnx", "onnxruntime")),
        )
        engine = OnnxEngine(manifest, "float32", make_session(prefix, 1), make_session(steps, 1))
        error = parity_error(engine, net, [random_inputs(net, contract, sizes, g) for g in _seeds()])
        if not error <= TOLERANCE:
            raise CheckpointError(
                f"The ONNX files of {policy} ({seen}) miss the float64 reference by {error:.1e} of the "
                f"largest action, allowed {TOLERANCE:.0e}: something in this network does not export. "
                "Nothing was written."
            )
        parity = {"error": error, "allowed": TOLERANCE, "inputs": NUM_CHECKS * sizes.batch}
        manifest = replace(manifest, parity=parity)
        manifest.save(part)
    except BaseException:
        shutil.rmtree(part)
        raise
    replace_directory(out, part)
    return manifest


def _sizes(net: PolicyNet, batch: int, words: int | None) -> Sizes:
    most = net.backbone.max_tokens
    assert isinstance(most, int)
    if words is not None and words > most:
        raise ConfigError(f"The backbone reads {most} tokens of an instruction at most, --words is {words}.")
    return Sizes(batch=batch, words=most if words is None else words)


def parity_error(
    engine: OnnxEngine, net: PolicyNet, cases: Sequence[tuple[Tensor, ...]], seed: int = 1
) -> float:
    """Largest error of actions and locations against float64, relative to the largest action (at least 1)."""
    made, generator, errors = engine.manifest, torch.Generator().manual_seed(seed), []
    for inputs in cases:
        noise = torch.zeros(made.batch, made.horizon, len(made.action_index))
        if made.draws_noise:
            noise = torch.randn(noise.shape, generator=generator)
        for found, truth in zip(
            engine.run(*inputs, noise),
            exact_actions(net, made.head, made.num_steps, inputs, noise),
            strict=True,
        ):
            errors.append((found.double() - truth).abs().max() / truth.abs().max().clamp(min=1.0))
    return float(torch.stack(errors).max())  # NaN if one is


def _seeds() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1 + i) for i in range(NUM_CHECKS)]
