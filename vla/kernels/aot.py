# pyright: basic, reportMissingImports=false
"""Compile every kernel for GPUs that are not here, and read from the machine code what it would cost.

Triton brings its own assembler, so no GPU, driver or toolkit is needed. For each kernel and architecture:
registers, stack, spills (loads and stores of local memory), shared memory against the limit, and whether the
tensor cores are used by the instruction that the architecture is fastest with. Nothing here says how long
anything takes.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from vla.errors import ConfigError, MissingExtraError
from vla.kernels import tiles
from vla.kernels.loading import load_triton
from vla.kernels.select import interpreting, triton_version

#: Architecture -> bytes of shared memory a block may use (CUDA programming guide, compute capabilities).
SHARED_LIMIT = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
#: Fastest tensor core instruction, expected at 64 rows; with 16 rows HMMA does as well.
WIDE_INSTRUCTION = {80: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
_INTEGERS = ("R", "H", "D", "A", "M", "T", "PLAIN", "GATED", "N_FIRST", "N_SECOND", "F", "repeat", "width")
_FLOATS = ("eps", "factor")


@dataclass(frozen=True)
class Variant:
    """A kernel and the constants it is compiled with; ``product``: it has a matrix product."""

    name: str
    module: str
    kernel: str
    constants: Mapping[str, Any]
    product: bool = True
    wide: bool = False
    stages: int = tiles.STAGES
    floats: tuple[str, ...] = ()
    masks: tuple[str, ...] = field(default=("mask",))


@dataclass(frozen=True)
class Compiled:
    """What the machine code of one variant for one architecture needs."""

    name: str
    arch: int
    registers: int
    stack: int
    spills: int
    shared: int
    instructions: tuple[str, ...]
    faults: tuple[str, ...]


def variants(head_width: int = 64) -> Iterator[Variant]:
    """Every kernel as the head launches it: 16 rows (one chunk) and 64 rows, forward and backward."""
    project, norm, read, back, rest = (
        f"vla.kernels.{name}"
        for name in ("norm_linear", "normalise", "attention", "attention_backward", "residual")
    )
    square = {"BLOCK_N": tiles.COLUMNS, "BLOCK_K": tiles.DEPTH}
    for rows in tiles.ROW_TILES:
        wide, m = rows == tiles.ROW_TILES[1], {"BLOCK_M": rows}
        for name, chosen in (
            ("adaptive norm + qkv + gated MLP", {"HAS_SHIFT": False, "HAS_GATED": True, "GELU": False}),
            ("adaptive norm + qkv", {"HAS_SHIFT": True, "HAS_GATED": False, "GELU": False}),
            ("norm + GELU", {"HAS_SHIFT": True, "HAS_GATED": False, "GELU": True}),
        ):
            constants = {"HAS_SCALE": True, **chosen, **m, **square}
            yield Variant(f"{name} /{rows}", project, "norm_linear_kernel", constants, wide=wide)
        constants = {"HEADS": 6, "HAS_MASK": True, "BLOCK_T": tiles.KEYS, "BLOCK_D": head_width, **m}
        both = {"HAS_OWN": True, "HAS_MEMORY": True}
        floats = ("logsum",)
        yield Variant(
            f"attention /{rows}",
            read,
            "attention_kernel",
            {**constants, **both},
            wide=wide,
            stages=2,
            floats=floats,
        )
        constants = {"HAS_SECOND": True, "HAS_GATE": True, **m, **square}
        yield Variant(
            f"output + gated residual /{rows}", rest, "linear_residual_kernel", constants, wide=wide
        )
        constants = {"HAS_SCALE": False, "HAS_SHIFT": False, "BLOCK_A": 32, "BLOCK_K": tiles.DEPTH, **m}
        yield Variant(f"finish step /{rows}", rest, "finish_step_kernel", constants, stages=2)
    small = {"BLOCK_M": tiles.ROW_TILES[0], "BLOCK_T": tiles.KEYS, "BLOCK_D": head_width, "HEADS": 6}
    yield Variant(
        "attention, queries' gradient", back, "query_backward_kernel",
        {**small, "HAS_OWN": True, "HAS_MEMORY": True, "HAS_MASK": True},
        stages=1, floats=("logsum", "delta_out"),
    )  # fmt: skip
    yield Variant(
        "attention, keys' gradient", back, "key_backward_kernel", {**small, "HAS_MASK": True},
        stages=1, floats=("logsum", "delta"),
    )  # fmt: skip
    constants = {"HAS_SCALE": True, "HAS_SHIFT": True, "BLOCK_M": tiles.ROW_TILES[0], "BLOCK_K": tiles.DEPTH}
    yield Variant("normalise", norm, "normalise_kernel", constants, product=False)
    floats = ("d_scale", "d_shift")
    constants = {"HAS_SCALE": True, "BLOCK_D": 512}
    kernel = "normalise_backward_kernel"
    yield Variant("norm's gradient", norm, kernel, constants, floats=floats, product=False)
    for gated in (True, False):
        name = "gated product" if gated else "GELU"
        constants = {"GATED": gated, "BLOCK": 256}
        yield Variant(f"{name}'s gradient", project, "activation_backward_kernel", constants, product=False)
    yield Variant(
        "gate's gradient", rest, "gate_backward_kernel", {"BLOCK": 256}, floats=("d_gate",), product=False
    )


def compile_variant(variant: Variant, arch: int, dtype: str = "bf16") -> Compiled:
    """Compile for compute capability ``arch`` (90 is 9.0) with tensors of ``dtype`` (bf16, fp16, fp32).

    Raises:
        MissingExtraError: Triton is not installed.
        ConfigError: an unknown architecture, or a process in which Triton interprets.
    """
    if triton_version() is None:
        raise MissingExtraError("triton", "kernels", "Compiling kernels ahead of time")
    if arch not in SHARED_LIMIT:
        raise ConfigError(f"Architecture {arch} has no stated limits; known: {sorted(SHARED_LIMIT)}.")
    if interpreting():
        raise ConfigError("TRITON_INTERPRET is set: kernels of this process are interpreted, not compiled.")
    load_triton()
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(import_module(variant.module), variant.kernel)
    signature, attributes = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in variant.constants:
            signature[name] = "constexpr"
            continue
        if name in _FLOATS:
            signature[name] = "fp32"
            continue
        integer = name in _INTEGERS or name.endswith(("_row", "_group", "_head"))
        pointer = "*fp32" if name in variant.floats else "*u8" if name in variant.masks else f"*{dtype}"
        signature[name] = "i32" if integer else pointer
        if not integer or name in ("D", "PLAIN", "GATED", "N_FIRST", "N_SECOND", "F", "width") or "_" in name:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(variant.constants), attrs=attributes)
    options = {"num_warps": tiles.WARPS, "num_stages": variant.stages}
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    return _inspect(variant, arch, made.asm["cubin"], int(made.metadata.shared), dtype)


def _inspect(variant: Variant, arch: int, cubin: bytes, shared: int, dtype: str) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage, code = _dump(path, "--dump-resource-usage"), _dump(path, "-sass")
    numbers = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    found = tuple(sorted(set(re.findall(r"\b(UTC[A-Z]*MMA|HGMMA|QGMMA|HMMA|IMMA|FFMA)\b", code))))
    shared = max(shared, numbers.get("SHARED", 0))
    faults = []
    if numbers["STACK"] or numbers.get("LOCAL", 0):
        faults.append(f"stack of {numbers['STACK']} bytes")
    if spills:
        faults.append(f"{spills} spills")
    if shared > SHARED_LIMIT[arch]:
        faults.append(f"{shared} bytes of shared memory, over {SHARED_LIMIT[arch]}")
    if variant.product and dtype != "fp32":
        fastest = WIDE_INSTRUCTION[arch]
        expected = {fastest} if variant.wide else {fastest, "HMMA"}
        if not expected & set(found):
            faults.append(f"no {' or '.join(sorted(expected))}, only {', '.join(found) or 'none'}")
    return Compiled(
        variant.name, arch, numbers["REG"], numbers["STACK"], spills, shared, found, tuple(faults)
    )


def _dump(cubin: Path, flag: str) -> str:
    import triton

    assert triton.__file__ is not None
    tool = Path(os.path.dirname(triton.__file__)) / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        raise MissingExtraError("triton's cuobjdump", "kernels", "Reading machine code")
    return subprocess.run([str(tool), flag, str(cubin)], capture_output=True, text=True, check=True).stdout
