"""``vla roofline``: what a chunk costs at least on a machine, and how close a measured time comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import tyro

from vla.cli.flags import parse
from vla.errors import CheckpointError, ConfigError
from vla.text import text_table

if TYPE_CHECKING:
    from vla.kernels.roofline import Machine, Model


@dataclass(frozen=True)
class Roofline:
    """What a chunk costs at least. Limits are arithmetic from data sheets, not measurements.

    Args:
        model: smolvla, pi0, default (shipped), or a directory that vla train wrote.
        machines: of h100, 4090, 5090, thor, orin, orin-nano, cpu (measured on the spot).
        bits: of a weight on GPUs, 16 or 8 (this CPU computes in 32).
        views: cameras, for smolvla and pi0.
        steps: denoising steps, for smolvla and pi0.
        chunk: actions a chunk, for smolvla and pi0.
        measured_ms: a time somebody measured for a whole chunk, on the one machine given.
        stages: print every stage.
        json: print JSON instead of a table.
    """

    model: tyro.conf.Positional[str] = "default"
    machines: tuple[str, ...] = ("h100", "4090", "5090", "thor", "orin", "cpu")
    bits: int = 16
    views: int = 2
    steps: int = 10
    chunk: int = 50
    measured_ms: float | None = None
    stages: bool = False
    json: bool = False


def run(argv: Sequence[str]) -> int:
    flags = parse(Roofline, "roofline", argv)
    for name in ("views", "steps", "chunk"):
        if getattr(flags, name) < 1:
            raise ConfigError(f"--{name} is {getattr(flags, name)}; expected at least 1.")
    if flags.measured_ms is not None and flags.measured_ms <= 0:
        raise ConfigError(f"--measured-ms is {flags.measured_ms:g}; expected milliseconds of a whole chunk.")
    if flags.measured_ms is not None and len(flags.machines) != 1:
        raise ConfigError(f"--measured-ms belongs to one machine; --machines names {len(flags.machines)}.")
    from vla.kernels.machine import this_cpu
    from vla.kernels.roofline import machine

    model = _model(flags)
    found = [_on(model, this_cpu() if m == "cpu" else machine(m), flags) for m in flags.machines]
    if flags.json:
        stages = [asdict(stage) for stage in model.stages]
        print(
            json.dumps(
                {"model": model.name, "note": model.note, "stages": stages, "machines": found}, indent=1
            )
        )
        return 0
    print(f"{model.name}: {model.flops / 1e9:.4g} GFLOP a chunk ({model.note})\n")
    print(_table(found, flags))
    print(
        "\nlimit: no implementation is faster. launches: what a graph of fused kernels adds at 2.3 us each."
    )
    return 0


def _model(flags: Roofline) -> Model:
    from vla.kernels.roofline import KNOWN

    if flags.model in KNOWN:
        return KNOWN[flags.model](flags.views, flags.steps, flags.chunk)
    from vla.cli.parity import policy_directory
    from vla.kernels.counting import policy_model

    if flags.model != "default" and not policy_directory(flags.model).is_dir():
        known = ", ".join((*KNOWN, "default"))
        raise CheckpointError(f"No model or policy directory {flags.model!r}. Known: {known}.")
    return policy_model(policy_directory(flags.model))


def _on(model: Model, on: Machine, flags: Roofline) -> dict[str, Any]:
    """One machine's limits, seconds."""
    from vla.kernels.roofline import fraction, total_s

    bits = 32 if 32 in on.flops else flags.bits
    limits = model.limits(on, bits)
    return {
        "machine": on.name,
        "bits": bits,
        "peak_flops": on.flops[bits],
        "bandwidth": on.bandwidth,
        "note": on.note,
        "total_s": total_s(limits),
        "action_s": total_s(limits, action=True),
        "launches_s": sum(item.launches_s for item in limits),
        "stages": [{"name": i.stage.name, "seconds": i.seconds, "bound": i.bound} for i in limits],
        "fraction": None if flags.measured_ms is None else fraction(limits, flags.measured_ms / 1e3),
    }


def _table(found: Sequence[dict[str, Any]], flags: Roofline) -> str:
    header = ["machine", "bits", "limit ms", "of which actions", "chunks/s", "launches ms", "bound by"]
    rows = []
    for on in found:
        bound = " ".join(stage["bound"] for stage in on["stages"])
        times = [f"{1e3 * on[key]:.3g}" for key in ("total_s", "action_s")]
        rows.append(
            [
                on["machine"],
                str(on["bits"]),
                *times,
                f"{1 / on['total_s']:.3g}",
                f"{1e3 * on['launches_s']:.3g}",
                bound,
            ]
        )
    lines = [text_table(header, rows)]
    if flags.stages:
        for on in found:
            parts = (f"{s['name']} {1e3 * s['seconds']:.3g} ms ({s['bound']})" for s in on["stages"])
            lines.append(f"{on['machine']}: {', '.join(parts)}")
    measured = [on for on in found if on["note"].startswith("measured")]
    lines += [
        f"{on['machine']}: {on['peak_flops'] / 1e9:.0f} GFLOP/s, {on['bandwidth'] / 1e9:.1f} GB/s, "
        f"{on['note']}"
        for on in measured
    ]
    if flags.measured_ms is not None:
        share = found[0]["fraction"]
        lines.append(
            f"{flags.measured_ms:g} ms on {found[0]['machine']} is {100 * share:.3g} % of the limit's speed"
        )
        if share > 1:
            lines.append(
                "No implementation is faster than the limit: the time is of something else (other views, "
                "steps or precision, part of a chunk, work still queued on the device), or the machine is."
            )
    return "\n".join(lines)
