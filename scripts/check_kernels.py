"""Compile every fused kernel for GPUs that are not here; exit with 1 where one spills or outgrows its limits.

usage: python scripts/check_kernels.py [--arch 80 89 90 100] [--dtype bf16] [--json] [--out FILE]

No GPU, driver or toolkit is needed: Triton brings its assembler (pip install 'vla[kernels]'). A gate, not a
benchmark: it says what the machine code needs, not how long it takes. One to seven seconds a kernel.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import tyro

from vla.files import write_json
from vla.kernels.aot import SHARED_LIMIT, Compiled, compile_variant, variants
from vla.provenance import package_versions
from vla.text import text_table


@dataclass(frozen=True, kw_only=True)
class CheckKernels:
    """What each kernel needs on each architecture.

    Args:
        arch: compute capabilities without the point.
        dtype: of the tensors: bf16, fp16 or fp32.
        only: kernels whose name holds this.
        json: print one JSON list instead of a table.
        out: also write the list, with versions, there.
    """

    arch: tuple[int, ...] = tuple(SHARED_LIMIT)
    dtype: str = "bf16"
    only: str = ""
    json: bool = False
    out: Path | None = None


def main(flags: CheckKernels) -> int:
    chosen = [variant for variant in variants() if flags.only in variant.name]
    made = [compile_variant(variant, arch, flags.dtype) for variant in chosen for arch in flags.arch]
    if flags.json:
        print(json.dumps([asdict(c) for c in made]))
    else:
        rows = [
            [c.name, f"sm_{c.arch}", str(c.registers), f"{c.shared / 1024:.1f}", " ".join(c.instructions),
             "; ".join(c.faults) or "ok"]
            for c in made
        ]  # fmt: skip
        print(text_table(["kernel", "arch", "registers", "shared KiB", "instructions", "verdict"], rows))
    bad = [c for c in made if c.faults]
    if flags.out is not None:
        write_json(flags.out, summary(made, flags.dtype))
    print(f"{len(made) - len(bad)} of {len(made)} within limits", file=sys.stderr)
    return int(bool(bad))


def summary(made: list[Compiled], dtype: str) -> dict[str, Any]:
    """What is stored: the limits, and each kernel on each architecture."""
    faultless = sum(not c.faults for c in made)
    return {
        "claim": "fused kernels compiled for compute capability " + ", ".join(_named(made)),
        "target": "no stack, no spills, shared memory within the limit, tensor core instructions",
        "measured": f"{faultless} of {len(made)} ({dtype}); compiled and interpreted, not timed",
        "command": "python scripts/check_kernels.py",
        "dtype": dtype,
        "timing": "compiled and interpreted, not timed",
        "kernels": len({c.name for c in made}),
        "compiled": len(made),
        "within_limits": faultless,
        "shared_limit_bytes": {f"sm_{arch}": limit for arch, limit in SHARED_LIMIT.items()},
        "versions": package_versions(("torch", "triton")),
        "rows": [asdict(c) for c in made],
    }


def _named(made: list[Compiled]) -> list[str]:
    return [f"{arch / 10:.1f}" for arch in sorted({c.arch for c in made})]


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CheckKernels)))
