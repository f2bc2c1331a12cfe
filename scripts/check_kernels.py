"""Compile every fused kernel for GPUs that are not here; exit with 1 where one spills or outgrows its limits.

usage: python scripts/check_kernels.py [--arch 80 89 90 100] [--dtype bf16] [--json]

No GPU, driver or toolkit is needed: Triton brings its assembler (pip install 'vla[kernels]'). A gate, not a
benchmark: it says what the machine code needs, not how long it takes. One to seven seconds a kernel.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass

os.environ.pop("TRITON_INTERPRET", None)

import tyro

from vla.kernels.aot import SHARED_LIMIT, compile_variant, variants
from vla.text import text_table


@dataclass(frozen=True, kw_only=True)
class CheckKernels:
    """What each kernel needs on each architecture.

    Args:
        arch: compute capabilities without the point.
        dtype: of the tensors: bf16, fp16 or fp32.
        only: kernels whose name holds this.
        json: print one JSON list instead of a table.
    """

    arch: tuple[int, ...] = tuple(SHARED_LIMIT)
    dtype: str = "bf16"
    only: str = ""
    json: bool = False


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
    print(f"{len(made) - len(bad)} of {len(made)} within limits", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CheckKernels)))
