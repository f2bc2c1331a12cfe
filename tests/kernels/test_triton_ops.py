"""Triton kernels in the interpreter equal the float64 formulas, forward and backward, at odd shapes."""

import os

import pytest
import torch

from vla.errors import ConfigError
from vla.kernels import native, reference
from vla.kernels.select import interpreting, triton_version

if triton_version() is None:
    pytest.skip("Triton is not installed: pip install 'vla[kernels]'", allow_module_level=True)
if not interpreting():
    pytest.skip("TRITON_INTERPRET=1 was not set before Triton was imported", allow_module_level=True)

from vla.kernels import triton_ops

G, B, H, D, F, A = 4, 2, 7, 48, 40, 5


def rand(*shape: int, size: float = 1.0, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=source, dtype=torch.float64) * size


def mask(seed: int = 0) -> torch.Tensor:
    return torch.rand(B, 37, generator=torch.Generator().manual_seed(seed)) > 0.3


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return rand(*shape, seed=1), rand(*shape, seed=2)


OUT = (rand(1, D), rand(1, D, seed=3), rand(A, D, size=0.2), rand(A))
CASES = {
    "adaptive norm + qkv": (
        "norm_linear",
        (rand(G, H, D), rand(G, D), rand(G, D, seed=3), rand(70, D, size=0.2), rand(70)),
    ),
    "shared norm + GELU": (
        "norm_linear",
        (rand(G, H, D), rand(1, D), None, rand(70, D, size=0.2), rand(70), "gelu"),
    ),
    "plain norm": ("norm_linear", (rand(G, H, D), None, None, rand(20, D, size=0.2), rand(20))),
    "norm + qkv + gated product": (
        "norm_parallel",
        (rand(G, H, D), rand(1, D), rand(G, D), rand(3 * D + 2 * F, D, size=0.2), rand(3 * D + 2 * F), 3 * D),
    ),
    "attention to prefix and self": (
        "attention",
        (rand(G, 2, H, 24), pair(G, 2, H, 24), pair(B, 2, 37, 24), mask()),
    ),
    "attention to itself": ("attention", (rand(G, 2, H, 24), pair(G, 2, H, 24), None, None)),
    "attention to the prefix": ("attention", (rand(G, 2, H, 24), None, pair(B, 2, 37, 24), mask(1))),
    "two parts, gated residual": (
        "linear_residual",
        (
            rand(G, H, D),
            (rand(G, H, D, seed=5), rand(G, H, F)),
            rand(D, D + F, size=0.2),
            rand(D),
            rand(G, D),
        ),
    ),
    "one part, no gate": (
        "linear_residual",
        (rand(G, H, D), (rand(G, H, F),), rand(D, F, size=0.2), rand(D), None),
    ),
    "finish step": (
        "finish_step",
        (
            rand(G, H, D),
            OUT,
            rand(G, H, A),
            torch.tensor([0.9, 0.1], dtype=torch.float64),
            rand(D, A),
            rand(H, D),
        ),
    ),
}
FIXED = ("finish step",)  # its coefficients belong to the schedule and get no gradient


def convert(value, dtype: torch.dtype, leaves: list[torch.Tensor]):
    """A copy of the arguments in ``dtype``, every floating tensor a leaf that wants a gradient."""
    if isinstance(value, tuple):
        return tuple(convert(v, dtype, leaves) for v in value)
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        made = value.detach().clone().to(dtype).requires_grad_(value.shape != (2,))
        leaves.append(made)
        return made
    return value


def run(ops, operation: str, arguments, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Results, and gradients of a fixed random projection of them."""
    leaves: list[torch.Tensor] = []
    made = getattr(ops, operation)(*convert(arguments, dtype, leaves))
    results = [r for r in (made if isinstance(made, tuple) else (made,)) if r.numel()]
    sum((r * rand(*r.shape, seed=9).to(dtype)).sum() for r in results).backward()
    return [r.detach() for r in results], [leaf.grad for leaf in leaves if leaf.requires_grad]


def error(made: list[torch.Tensor], truth: list[torch.Tensor]) -> float:
    assert len(made) == len(truth)
    pairs = zip(made, truth, strict=True)
    return max(float((a.double() - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs)


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_formulas_forward_and_backward_in_float32(name: str):
    truth = run(reference, *CASES[name], torch.float64)
    made = run(triton_ops, *CASES[name], torch.float32)
    assert error(made[0], truth[0]) < 1e-5
    assert error(made[1], truth[1]) < 1e-4


@pytest.mark.parametrize("name", ["adaptive norm + qkv", "attention to itself", "two parts, gated residual"])
def test_kernels_equal_the_formulas_in_float16(name: str):
    truth = run(reference, *CASES[name], torch.float64)
    made = run(triton_ops, *CASES[name], torch.float16)
    assert error(made[0], truth[0]) < 4e-3
    assert error(made[1], truth[1]) < 1e-2


@pytest.mark.parametrize("name", CASES)
def test_torch_calls_equal_the_formulas(name: str):
    truth = run(reference, *CASES[name], torch.float64)
    made = run(native, *CASES[name], torch.float64)
    assert max(error(made[0], truth[0]), error(made[1], truth[1])) < 1e-12


def test_a_row_that_may_read_nothing_gives_zero_and_no_gradient():
    arguments = (rand(G, 2, H, 24), None, pair(B, 2, 37, 24), torch.zeros(B, 37, dtype=torch.bool))
    for ops, dtype in ((reference, torch.float64), (triton_ops, torch.float32)):
        results, gradients = run(ops, "attention", arguments, dtype)
        assert not any(t.any() for t in (*results, *gradients))


def test_what_the_mask_hides_is_never_read():
    q, memory, hidden = rand(G, 2, H, 24).float(), pair(B, 2, 37, 24), mask()
    broken = tuple(t.masked_fill(~hidden[:, None, :, None], torch.nan).float() for t in memory)
    whole = tuple(t.float() for t in memory)
    assert torch.equal(
        triton_ops.attention(q, None, broken, hidden), triton_ops.attention(q, None, whole, hidden)
    )


def test_long_rows_and_many_of_them_use_the_large_tile():
    x, weight = rand(3, 50, 136).float(), rand(72, 136, size=0.1).float()
    made = triton_ops.norm_linear(x, None, None, weight, rand(72).float())
    truth = reference.norm_linear(x.double(), None, None, weight.double(), rand(72).float().double())
    assert error([made], [truth]) < 1e-5


def test_mixed_dtypes_and_misfitting_shapes_are_refused():
    x, weight, bias = rand(G, H, D).float(), rand(20, D).float(), rand(20).float()
    with pytest.raises(ConfigError, match="one dtype"):
        triton_ops.norm_linear(x, None, None, weight.half(), bias)
    with pytest.raises(ConfigError, match="do not fit"):
        triton_ops.norm_linear(x, None, None, weight[:, 1:], bias)
    with pytest.raises(ConfigError, match="no activation"):
        triton_ops.norm_linear(x, None, None, weight, bias, "relu")
    with pytest.raises(ConfigError, match="two equal halves"):
        triton_ops.norm_parallel(x, None, None, weight, bias, 3)
    with pytest.raises(ConfigError, match="does not serve"):
        triton_ops.attention(
            rand(3, 2, H, 24).float(), None, tuple(t.float() for t in pair(2, 2, 9, 24)), None
        )
    memory = tuple(t.float() for t in pair(B, 2, 37, 24))
    with pytest.raises(ConfigError, match="mask must be bool"):
        triton_ops.attention(rand(G, 2, H, 24).float(), None, memory, mask()[:, 1:])


def test_the_interpreter_is_what_runs():
    assert os.environ["TRITON_INTERPRET"] == "1"
