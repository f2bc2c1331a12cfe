"""Kernels compile for GPUs that are not here, and the gate refuses what it should."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from vla.errors import ConfigError
from vla.kernels import aot
from vla.kernels.select import triton_version

needs_triton = pytest.mark.skipif(triton_version() is None, reason="Triton is not installed")

_COMPILE = """
from vla.kernels.aot import compile_variant, variants
for variant in variants():
    if variant.name == "output + gated residual /64":
        made = compile_variant(variant, 90)
        print(made.name, made.stack, made.spills, "HGMMA" in made.instructions, "HMMA" in made.instructions,
        made.faults)
"""


@needs_triton
def test_kernels_compile_for_hopper_within_limits():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    answer = subprocess.run(
        [sys.executable, "-c", _COMPILE], capture_output=True, text=True, env=environment, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "output + gated residual /64 0 0 True False ()",
    ]


@needs_triton
def test_an_interpreting_process_or_an_unknown_architecture_is_refused(monkeypatch: pytest.MonkeyPatch):
    variant = next(aot.variants())
    with pytest.raises(ConfigError, match="interpreted, not compiled"):
        aot.compile_variant(variant, 90)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ConfigError, match="known: "):
        aot.compile_variant(variant, 61)


def test_machine_code_that_spills_or_misses_the_tensor_cores_is_a_fault(monkeypatch: pytest.MonkeyPatch):
    usage, code = (
        "Function k: REG:128 STACK:32 SHARED:0 LOCAL:0",
        "STL [R1], R2; LDL R2, [R1]; FFMA R1, R2, R3, R4;",
    )
    monkeypatch.setattr(aot, "_dump", lambda path, flag: code if flag == "-sass" else usage)
    variant = replace(next(aot.variants()), wide=True)
    made = aot._inspect(variant, 90, b"", 300 * 1024, "bf16")
    assert [word in " ".join(made.faults) for word in ("stack of 32", "2 spills", "over", "no HGMMA")] == [
        True
    ] * 4


def test_every_kernel_of_the_package_is_among_the_variants():
    import re
    from pathlib import Path

    folder = Path(aot.__file__).parent
    defined = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"^def (\w+_kernel)\(", path.read_text(), re.M)
    }
    assert defined == {variant.kernel for variant in aot.variants()}
