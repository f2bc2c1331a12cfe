"""Which way the action head runs on this machine, decided once, and why; the others are named with a reason.

The stock head (``eager``) always runs. ``static`` runs the fixed graphs of :mod:`vla.models.fused` through
torch's own operations (captured as CUDA graphs on a GPU), ``compiled`` the same through ``torch.compile``,
``triton`` the same through the kernels of this package. Nothing is chosen by trying and catching.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import torch

from vla.errors import ConfigError, UnknownNameError
from vla.kernels import tiles

PATHS = ("eager", "static", "compiled", "triton")
OVERRIDE = "VLA_HEAD_PATH"
#: Releases of Triton that the kernels were interpreted and compiled with; torch 2.13 comes with 3.7.
TRITON_SERIES = ("3.7",)
LEAST_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class HeadShape:
    """What the kernels' limits are about: widths of the head and of one attention head."""

    width: int
    num_heads: int
    action_dim: int


@dataclass(frozen=True)
class Choice:
    """The path that runs, why, and why each other one does not."""

    path: str
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        others = "".join(f"; not {name}: {why}" for name, why in self.refused.items())
        return f"head path {self.path}: {self.reason}{others}"


def select(
    shape: HeadShape, device: torch.device, dtype: torch.dtype, wish: str | None = None, announce: bool = True
) -> Choice:
    """The path for a head.

    Args:
        wish: a path by name; None: ``static``, since it alone needs nothing. The environment variable
            ``VLA_HEAD_PATH`` overrides it, and says so on standard error.

    Raises:
        UnknownNameError: no such path.
        ConfigError: the wished path would not run here, or not correctly; it is never replaced silently.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        if announce:
            print(f"vla: {OVERRIDE}={override} decides how the action head runs", file=sys.stderr)
        wish = override
    if wish is not None and wish not in PATHS:
        raise UnknownNameError("head path", wish, PATHS)
    reasons = {name: refusal(name, shape, device, dtype) for name in PATHS}
    refused = {name: why for name, why in reasons.items() if why is not None}
    if wish is not None:
        if wish in refused:
            raise ConfigError(
                f"The head cannot run by {wish!r} here: {refused[wish]}. It can by: {_can(refused)}."
            )
        return Choice(wish, f"asked for by {OVERRIDE}" if override else "asked for", refused)
    reason = "CUDA graphs over torch's operations" if device.type == "cuda" else "needs no compiler"
    if "triton" not in refused:
        refused["triton"] = "only when asked for: never timed on a GPU"
    return Choice("static", reason, refused)


def refusal(path: str, shape: HeadShape, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a path would not run, or not run correctly, here; None: it would."""
    if path == "compiled":
        needs = ("g++", "clang++") if device.type == "cpu" else ()
        if needs and os.environ.get("CXX") is None and not any(shutil.which(name) for name in needs):
            return f"torch.compile needs a C++ compiler ({' or '.join(needs)})"
        if device.type == "cuda" and triton_version() is None:
            return "torch.compile needs Triton on a GPU"
        return None
    return _triton_refusal(shape, device, dtype) if path == "triton" else None


def _triton_refusal(shape: HeadShape, device: torch.device, dtype: torch.dtype) -> str | None:
    installed = triton_version()
    if installed is None:
        return "Triton is not installed (pip install 'vla[kernels]')"
    if not installed.startswith(tuple(f"{series}." for series in TRITON_SERIES)):
        return (
            f"Triton {installed} was never checked with these kernels (checked: {', '.join(TRITON_SERIES)})"
        )
    if dtype not in tiles.DTYPES:
        return f"no kernel for {dtype}"
    if device.type == "cpu":
        if not interpreting():
            return "on a CPU only in Triton's interpreter: set TRITON_INTERPRET=1 before Python starts"
        if dtype == torch.bfloat16:
            return "the interpreter multiplies bfloat16 as integers"
    elif device.type != "cuda":
        return f"no kernel for {device.type}"
    elif interpreting():
        return "TRITON_INTERPRET=1 is set: that is for CPUs"
    elif torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return f"needs compute capability {LEAST_CAPABILITY}, has {torch.cuda.get_device_capability(device)}"
    if shape.width // shape.num_heads > tiles.MAX_HEAD_WIDTH:
        return f"heads of {shape.width // shape.num_heads} entries are over {tiles.MAX_HEAD_WIDTH}"
    if shape.width > tiles.MAX_ROW or shape.action_dim > tiles.COLUMNS:
        return f"width over {tiles.MAX_ROW} or more than {tiles.COLUMNS} action entries"
    return None


def triton_version() -> str | None:
    """Of the installed Triton; None where there is none."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def interpreting() -> bool:
    """Whether kernels run in the interpreter; decided when Triton is imported, hence read from there."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def _can(refused: Mapping[str, str]) -> str:
    return ", ".join(name for name in PATHS if name not in refused)
