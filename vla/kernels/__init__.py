"""The action head's operations, four times: as formulas, as torch calls, as Triton kernels, and compared.

``reference`` is the truth; ``native`` is what a CPU runs; ``triton_ops`` is what a GPU may run; ``select``
says which and why; ``parity`` measures every path against the truth. This package imports without Triton.
"""
