"""One module as one ONNX file, by torch's tracing exporter, with every size a plain number.

The tracing exporter is used on purpose: shapes are fixed, so both of torch's exporters give graphs of the
same speed, and this one takes seconds and no further package. While it traces, sizes are tensors, so that a
graph may serve other sizes; that is of no use here, and model code that counts with them (``round``,
``range``, numpy) fails. Hence :class:`FixedSizes`. What a trace gets wrong (a branch
that the data decides) is what the comparison on fresh inputs finds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vla.errors import ConfigError, MissingExtraError
from vla.kernels.loading import load_triton

OPSET = 20  # the first with GELU as one operation
_SHAPE = torch.Tensor.shape.__get__  # pyright: ignore[reportAttributeAccessIssue]
_SIZES = (torch.Tensor.size, _SHAPE, torch.Tensor.numel, torch.Tensor.nelement)
#: What model code and torch's exporter raise where a trace meets something that has no graph.
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)


class FixedSizes(TorchFunctionMode):
    """Sizes are numbers while tracing, and :data:`SAID_OTHERWISE` holds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = SAID_OTHERWISE.get(func, func)(*args, **(kwargs or {}))
        return _plain(made) if func in _SIZES else made


def _plain(made: Any) -> Any:
    return torch.Size(int(n) for n in made) if isinstance(made, tuple) else int(made)


def unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """``x.unfold(...)`` by one look-up at fixed places: it has no symbol in ONNX."""
    dimension %= x.ndim
    count = (int(x.shape[dimension]) - size) // step + 1
    places = torch.arange(count)[:, None] * step + torch.arange(size)
    read = x.index_select(dimension, places.flatten().to(x.device))
    return read.unflatten(dimension, (count, size)).movedim(dimension + 1, -1)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``total.addcmul_(left, right)``: the exporter's own goes through float32, which loses low bits."""
    return total.add_(left * right)


def shift_right(x: Tensor, bits: int) -> Tensor:
    """``x >> bits``: the exporter's own rounds towards zero."""
    return torch.div(x, 2**bits, rounding_mode="floor")


def store(x: Tensor, index: Any, value: Any) -> None:
    """``x[index] = value``: the exporter loses its way in an index that is a mask and more (Qwen3-VL)."""
    mask, *rest = index if isinstance(index, tuple) else (index,)
    if not (isinstance(mask, Tensor) and mask.dtype == torch.bool and rest == [slice(None)]):
        torch.Tensor.__setitem__(x, index, value)
    else:
        x.copy_(x.masked_scatter(mask[..., None].expand_as(x), value))


#: Operations that the exporter has not, or gets wrong for whole numbers, by ones that are right.
SAID_OTHERWISE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.Tensor.unfold: unfold,
    torch.Tensor.addcmul_: add_product,
    torch.Tensor.__rshift__: shift_right,
    torch.Tensor.__ior__: torch.Tensor.__or__,  # what is assigned is the same
    torch.Tensor.__setitem__: store,
}


@contextmanager
def masks_by_broadcasting() -> Iterator[None]:
    """transformers' attention masks without ``torch.vmap``, through which nothing can be traced."""
    from transformers import masking_utils

    def expanded(inside: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *indices: inside(*masking_utils._non_vmap_expansion_sdpa(*indices))

    instead = {"_vmap_expansion_sdpa": expanded, "TransformGetItemToIndex": nullcontext}
    before = {name: getattr(masking_utils, name) for name in instead}
    try:
        for name, value in instead.items():
            setattr(masking_utils, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(masking_utils, name, value)


def trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: Sequence[str],
    results: Sequence[str],
    what: str = "This network",
) -> None:
    """Write one ONNX file.

    Args:
        names, results: of the graph's inputs and outputs.
        what: begins the message of an error.

    Raises:
        ConfigError: something in the module has no ONNX graph.
        MissingExtraError: no onnx.
    """
    try:
        import onnx  # noqa: F401  (torch asks for it late)
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "Exporting a policy") from None
    load_triton()  # torch's exporter imports it
    torch.onnx.register_custom_op_symbolic("aten::lift_fresh", lambda graph, x: x, 9)  # a constant, as it is
    with warnings.catch_warnings(), torch.no_grad(), masks_by_broadcasting(), FixedSizes():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes are fixed on purpose
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript", DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.onnx\._internal")
        try:
            torch.onnx.export(
                module, inputs, str(path), input_names=list(names), output_names=list(results),
                opset_version=OPSET, dynamo=False,
            )  # fmt: skip
        except _FAILURES as error:
            first = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"{what} has no ONNX graph: {type(error).__name__}: {first} "
                "docs/cpu_inference.md lists the backbones that export; the others run on torch."
            ) from error
    share_weights(path)


def share_weights(path: Path) -> None:
    """Let all steps read a weight by its own name: the exporter's copies by name hide it from int8."""
    import onnx

    model = onnx.load(path)
    names = {weight.name for weight in model.graph.initializer}
    same: dict[str, str] = {}
    for node in [n for n in model.graph.node if n.op_type == "Identity" and n.input[0] in names]:
        same[node.output[0]] = node.input[0]
        model.graph.node.remove(node)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = same.get(name, name)
    onnx.save(model, path)
