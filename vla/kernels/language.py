# pyright: basic, reportMissingImports=false
"""``triton`` and ``tl`` for the kernels' modules, imported by :mod:`vla.kernels.loading`."""

from __future__ import annotations

from vla.kernels.loading import load_triton

load_triton()

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

__all__ = ["tl", "triton"]
