# pyright: basic, reportMissingImports=false
"""Triton, imported so that it survives a software renderer in the same process.

Mesa's software renderer brings LLVM as a shared library, and PyOpenGL loads it into the process's global
scope. Triton's library carries its own LLVM of another version; imported after a first EGL picture, its calls
bind to Mesa's and the process dies in ``import triton``. ``RTLD_DEEPBIND`` makes a library look in itself
first. Import Triton from here, or call :func:`load_triton` before anything else may import it (torch.compile
and torch's exporters do).
"""

from __future__ import annotations

import importlib.util
import os
import sys


def load_triton() -> bool:
    """Import Triton, bound to its own LLVM; whether it is there. Does nothing the second time."""
    if "triton" in sys.modules:
        return True
    if importlib.util.find_spec("triton") is None:
        return False
    before = sys.getdlopenflags()
    sys.setdlopenflags(before | getattr(os, "RTLD_DEEPBIND", 0))  # glibc has it
    try:
        import triton  # noqa: F401
    finally:
        sys.setdlopenflags(before)
    return True
