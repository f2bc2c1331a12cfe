"""The head's operations as Triton kernels: same names, arguments and results as ``vla.kernels.reference``.

Differentiable. On a CPU they run only in Triton's interpreter (``TRITON_INTERPRET=1``, set before Triton is
imported), which is for proofs, not for speed. :mod:`vla.kernels.select` says whether this module may be used.
"""

from __future__ import annotations

from vla.kernels.attention import attention
from vla.kernels.norm_linear import norm_linear, norm_parallel
from vla.kernels.residual import finish_step, linear_residual

__all__ = ["attention", "finish_step", "linear_residual", "norm_linear", "norm_parallel"]
