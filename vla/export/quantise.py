"""The int8 option: the head's matrix products in 8 bits, judged by what the actions lose.

Dynamic quantisation: scales of activations are found at run time, so no calibration data is needed. Only the
step graph is quantised: the prefix of a small network is mostly convolutions, and rounding it costs the
actions as much again (docs/cpu_inference.md).

The judge is the action, in units of the range that the embodiment declares for it, on observations as the
policy meets them; beyond the limit the file is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.contract import PolicyContract, sha256_of
from vla.embodiment import Embodiment
from vla.errors import CheckpointError, ConfigError, MissingExtraError
from vla.export.manifest import INT8_FILE, Manifest, file_names
from vla.interfaces import Policy, Suite, observation_from_gym
from vla.types import Observation

LIMIT = 1e-2  # of the action range
#: Products with a side below this stay in float32: they cost little and carry actions.
LEAST_SIDE = 96
_STRIDE = 7  # few observations shall not all be of the first task


def quantise(directory: Path, contract: PolicyContract) -> Manifest:
    """Write the int8 step graph beside the float32 files; accepted for measuring only, see :func:`judge`."""
    manifest = Manifest.load(directory, contract)
    manifest.check_files(directory, file_names("float32"))
    quantise_file(directory / file_names("float32")[1], directory / INT8_FILE)
    files = {**manifest.files, INT8_FILE: sha256_of(directory / INT8_FILE)}
    manifest = replace(manifest, files=files, int8={"accepted": True})
    manifest.save(directory)
    return manifest


def quantise_file(source: Path, target: Path) -> None:
    """The large matrix products of an ONNX file in 8 bits, a scale for each output.

    Raises:
        MissingExtraError: no ONNX Runtime.
        ConfigError: a file without large products.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "Quantising an export") from None
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises steps that these graphs do not need
    try:
        quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul"], per_channel=True,
            nodes_to_quantize=large_products(source),
            reduce_range=True,  # AVX2 saturates sums of 8-bit pairs otherwise
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        root.setLevel(level)


def large_products(path: Path) -> list[str]:
    """Names of the matrix products of an ONNX file whose weights are large in both directions."""
    import onnx

    graph = onnx.load(path).graph
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    found = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in shapes]
    names = [n.name for n in found if min(shapes[n.input[1]]) >= LEAST_SIDE]
    if not names:
        raise ConfigError(
            f"{path} has no matrix product with {LEAST_SIDE} rows and columns: int8 gains nothing."
        )
    return names


def judge(
    directory: Path,
    contract: PolicyContract,
    report: Mapping[str, Any],
    *,
    limit: float = LIMIT,
    accept: bool = False,
) -> Manifest:
    """Keep the int8 file with its report, or remove it.

    Raises:
        CheckpointError: an error above ``limit``, unless ``accept``; the float32 export stays.
    """
    manifest = Manifest.load(directory, contract)
    good = report["largest"] <= limit  # false for NaN
    if good or (accept and np.isfinite(report["largest"])):
        manifest = replace(manifest, int8={**report, "limit": limit, "within_limit": good, "accepted": True})
        manifest.save(directory)
        return manifest
    kept = {name: value for name, value in manifest.files.items() if name != INT8_FILE}
    replace(manifest, files=kept, int8=None).save(directory)
    (directory / INT8_FILE).unlink(missing_ok=True)
    raise CheckpointError(
        f"int8 moves actions by up to {report['largest']:.1e} of their range (99th percentile "
        f"{report['percentile_99']:.1e}, mean {report['mean']:.1e}, {report['observations']} observations), "
        f"allowed {limit:.0e}. The int8 file was removed, the float32 export stays. "
        "--accept-error keeps it all the same."
    )


def action_error(
    reference: Policy, other: Policy, observations: Sequence[Observation], arms: Mapping[str, Embodiment]
) -> dict[str, Any]:
    """How far ``other``'s actions are from ``reference``'s, as a share of each entry's declared range.

    Returns ``largest``, ``percentile_99``, ``mean`` and ``observations`` (their number).
    """
    if not observations:
        raise ConfigError("An action error takes at least one observation.")
    errors = []
    for observation in observations:
        arm = arms[observation.embodiment]
        low = np.concatenate([np.asarray(member.low) for member in arm.action])
        high = np.concatenate([np.asarray(member.high) for member in arm.action])
        (one,), (two,) = reference.act([observation]), other.act([observation])
        errors.append(np.abs(one.actions - two.actions) / (high - low))
    flat = np.concatenate([error.ravel() for error in errors])
    return {
        "largest": float(flat.max()),
        "percentile_99": float(np.percentile(flat, 99)),
        "mean": float(flat.mean()),
        "observations": len(observations),
    }


def first_observations(
    suite: Suite, contract: PolicyContract, count: int, seed: int = 0
) -> Iterator[Observation]:
    """What the policy sees when episodes of a suite begin: all tasks and arms that both know, in turn."""
    arms = [name for name in suite.embodiments if name in contract.embodiments]
    if not arms:
        raise ConfigError(
            f"The suite {suite.name!r} has none of the policy's arms: "
            f"{', '.join(sorted(contract.embodiments))}."
        )
    cells = [(task, arm) for task in suite.tasks for arm in arms]
    for i in range(count):
        stride = 1 if len(cells) % _STRIDE == 0 else _STRIDE
        task, arm = cells[i * stride % len(cells)]
        env = suite.make(task, arm, image_size=contract.image_size)
        try:
            seen, _ = env.reset(seed=seed + i)
            yield observation_from_gym(seen, env.embodiment)
        finally:
            env.close()
