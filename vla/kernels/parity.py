"""The parity certificate: every way a head can run here, against the float64 formulas, on fresh inputs.

Inputs come from the policy itself (random pictures, states and words through its own backbone), so that
features are of the size the head meets in use; prompts of several lengths and one to all cameras are among
them. The certificate lies beside the weights and names them by hash. It speaks of numbers only, not of speed,
and of the machine it was made on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla.contract import PolicyContract
from vla.errors import CheckpointError
from vla.files import read_json, write_json
from vla.kernels import reference
from vla.kernels.select import PATHS, HeadShape, refusal, triton_version
from vla.models.backbones.interface import PrefixFeatures
from vla.models.fused import decode, operations
from vla.models.heads.flow import FlowHead
from vla.models.heads.history import Past
from vla.models.heads.regression import RegressionHead
from vla.models.policy_net import PolicyInputs, PolicyNet
from vla.models.saving import load_policy
from vla.models.static_graphs import Schedule, StaticHead
from vla.spaces import STATE_DIM

FORMAT_VERSION = 1
CERTIFICATE_FILE = "parity.json"
#: Largest error allowed, relative to the largest action (at least 1): accumulated rounding of some hundred
#: products, ten to twenty units in the last place of the dtype (2^-23, 2^-10, 2^-7).
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
PROMPT_WORDS = (1, 4, 12)
MAX_CAMERAS = 4


@dataclass(frozen=True)
class Case:
    """Encoded observations: prefix features, state tokens, starting noise [B H A]; all float64."""

    name: str
    prefix: PrefixFeatures
    state: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class Row:
    """One path of one head in one dtype. ``error`` None: it does not run here, for ``reason``."""

    head: str
    path: str
    dtype: str
    tolerance: float
    error: float | None = None
    worst_case: str = ""
    reason: str = ""

    @property
    def missed(self) -> bool:
        """A number that is not a number is a miss."""
        return self.error is not None and not self.error <= self.tolerance


@torch.no_grad()
def exact(head: FlowHead | RegressionHead, case: Case, num_steps: int) -> Tensor:
    """The chunk by the formulas of :mod:`vla.kernels.reference` in float64, nothing folded or kept."""
    head = copy.deepcopy(head).double()
    if isinstance(head, RegressionHead):
        memory = head.decoder.encode(case.prefix, case.state)
        start = case.state.new_zeros(memory.batch, head.config.horizon, head.config.width)
        return decode(reference, head.decoder, start, memory, None)
    x = case.noise
    steps = Schedule.flow(num_steps, head.config.schedule)
    for time, step in zip(steps.times, steps.add, strict=True):
        memory = head.decoder.encode(case.prefix, case.state)
        when = head.time_in(_codes(time, len(x), head))
        x = x + decode(reference, head.decoder, head.action_in(x) + when[:, None], memory, when) * step
    return x


def _codes(time: float | None, count: int, head: FlowHead) -> Tensor:
    from vla.models.layers import sinusoids

    return sinusoids(
        torch.full((count,), time or 0.0, device=head.decoder.places.device), head.config.width
    ).double()


@torch.no_grad()
def approximate(
    head: FlowHead | RegressionHead, case: Case, num_steps: int, path: str, dtype: torch.dtype, capacity: int
) -> Tensor:
    """The chunk by one path."""
    mask = case.prefix.mask
    prefix, state = PrefixFeatures(case.prefix.features.to(dtype), mask), case.state.to(dtype)
    noise = case.noise.to(dtype)
    if path != "eager":
        graphs = StaticHead(
            head, num_steps=num_steps, capacity=capacity, dtype=dtype, ops=operations(path),
            compiled=path == "compiled",
        )  # fmt: skip
        return graphs(prefix, state, noise)
    head = copy.deepcopy(head).to(dtype)
    if isinstance(head, RegressionHead):
        return head.predict(prefix, state)
    memory, x = head.encode_prefix(prefix, state), noise
    steps = Schedule.flow(num_steps, head.config.schedule)
    for time, step in zip(steps.times, steps.add, strict=True):
        x = x + head.velocity(memory, x, x.new_full((len(x),), time or 0.0)) * step
    return x


def measure(
    name: str,
    head: FlowHead | RegressionHead,
    cases: Sequence[Case],
    num_steps: int,
    paths: Sequence[str] = PATHS,
) -> Iterator[Row]:
    """Each path and dtype that this machine has; a path that does not run gives a row that says why."""
    device = head.decoder.places.device
    shape = HeadShape(head.config.width, head.config.num_heads, head.config.action_dim)
    capacity = max(case.prefix.features.shape[1] for case in cases) + 3  # padding is always in play
    expected = [exact(head, case, num_steps) for case in cases]
    for path in paths:
        for dtype in _dtypes(path, device):
            row = {"head": name, "path": path, "dtype": str(dtype)[6:], "tolerance": TOLERANCE[dtype]}
            why = refusal(path, shape, device, dtype)
            if why is not None:
                yield Row(**row, reason=why)
                continue
            errors = []
            for case, truth in zip(cases, expected, strict=True):
                made = approximate(head, case, num_steps, path, dtype, capacity).double()
                size = max(1.0, float(truth.abs().max()))
                errors.append(float((made - truth).abs().max()) / size)
            worst = max(
                range(len(errors)), key=lambda i: float("inf") if errors[i] != errors[i] else errors[i]
            )
            yield Row(**row, error=errors[worst], worst_case=cases[worst].name)


def _dtypes(path: str, device: torch.device) -> tuple[torch.dtype, ...]:
    if device.type == "cuda":
        return torch.float32, torch.float16, torch.bfloat16
    return (torch.float32, torch.float16) if path == "triton" else (torch.float32,)


@torch.no_grad()
def policy_cases(net: PolicyNet, contract: PolicyContract, generator: torch.Generator) -> list[Case]:
    """Random pictures, states and sentences of the policy's own words, seen by one to all of its cameras."""
    cameras = min(len(contract.camera_roles), MAX_CAMERAS)
    words = [w for w in contract.instruction.get("vocabulary", ()) if not w.startswith("<")] or [
        "pick",
        "it",
        "up",
    ]
    device, dtype = next(net.parameters()).device, net.dtype
    cases, length = [], net.config.history
    for count in PROMPT_WORDS:
        picks = torch.randint(len(words), (cameras, count), generator=generator)
        tokens = net.backbone.tokenize([" ".join(words[i] for i in row) for row in picks.tolist()])  # type: ignore[operator]
        size = (cameras, len(contract.camera_roles), contract.image_size, contract.image_size, 3)
        mask = torch.arange(len(contract.camera_roles)) <= torch.arange(cameras)[:, None]
        past = Past.random(cameras, length, generator) if length else None
        inputs = PolicyInputs(
            images=torch.randint(256, size, generator=generator).to(device, torch.uint8),
            image_mask=mask.to(device),
            token_ids=torch.as_tensor(tokens.ids, device=device),
            token_mask=torch.as_tensor(tokens.mask, device=device),
            embodiment_id=torch.randint(len(contract.embodiments), (cameras,), generator=generator).to(
                device
            ),
            state=torch.randn(cameras, STATE_DIM, generator=generator).to(device, dtype),
            state_mask=torch.ones(cameras, STATE_DIM, dtype=torch.bool, device=device),
            past=None if past is None else past.like(torch.zeros((), dtype=dtype, device=device)),
        )
        seen = net.encode(inputs)
        noise = torch.randn(cameras, contract.horizon, len(net.config.action_index), generator=generator)
        prefix = PrefixFeatures(seen.prefix.features.double(), seen.prefix.mask)
        named = f"{count} words, 1 to {cameras} cameras"
        told = net.told(seen, inputs).double()
        cases.append(Case(named, prefix, told, noise.to(device, torch.float64)))
    return cases


def certify(
    directory: str | Path,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    paths: Sequence[str] = PATHS,
    seed: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure every path of every head of a policy, and store the certificate.

    Args:
        directory: a policy directory.
        out: where it is written; None: ``parity.json`` beside the weights.
        overwrite: replace a certificate that says that something failed.
        seed: of the inputs; None: fresh ones, whose seed is in the certificate.

    Raises:
        CheckpointError: no policy there, or a failed certificate that must not be lost silently.
    """
    out = out or Path(directory) / CERTIFICATE_FILE
    if out.exists() and not overwrite:
        before = read_json(out, CheckpointError, "Remove it, or write elsewhere with --out.")
        if before.get("passed") is not True:
            raise CheckpointError(
                f"{out} says that parity failed on {before.get('created')}. Keep it, write elsewhere "
                "with --out, or replace it with --overwrite."
            )
    net, contract = load_policy(directory, device)
    seed = int(torch.seed() % 2**31) if seed is None else seed
    cases = policy_cases(net, contract, torch.Generator().manual_seed(seed))
    rows: list[Row] = []
    from vla.kernels.stock_parity import stock_rows  # which needs what stands here

    for name, head in net.heads.items():
        if isinstance(head, FlowHead | RegressionHead):
            rows += measure(name, head, cases, contract.num_flow_steps, paths)
        else:
            rows += stock_rows(name, head, cases, contract.num_flow_steps, seed, paths)
    if device == "cpu":
        from vla.export.certificate import export_rows  # which needs what stands here

        rows += export_rows(Path(directory), net, contract, seed)
    found = certificate(rows, contract.weights_sha256, seed, device, [case.name for case in cases])
    write_json(out, found)
    return found


def certificate(
    rows: Sequence[Row], weights: str, seed: int, device: str, cases: Sequence[str]
) -> dict[str, Any]:
    """What is stored; passed only if something ran and nothing missed."""
    return {
        "format_version": FORMAT_VERSION,
        "passed": any(r.error is not None for r in rows) and not any(r.missed for r in rows),
        "weights_sha256": weights,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "versions": {"torch": torch.__version__, "triton": triton_version()},
        "seed": seed,
        "inputs": list(cases),
        "rows": [{**asdict(r), "missed": r.missed} for r in rows],
    }
