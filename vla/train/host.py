"""Making this process train fast: threads, memory, device."""

from __future__ import annotations

import ctypes
import sys

import torch

from vla.provenance import usable_cores

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc malloc.h


def prepare_process(device: torch.device) -> None:
    """One thread a process on the CPU, and no memory given back to the kernel between steps.

    Several threads wait for one another at every operation, which collapses on a busy or limited
    machine; processes that meet once a step do not. Denormals are flushed: they cost up to 100x.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc: page faults took 5 % of a step and most of its jitter
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_M_TOP_PAD, 64 << 20)


def pick_device(name: str) -> torch.device:
    """``auto``: CUDA where there is some."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def auto_num_processes(device: torch.device) -> int:
    """One a physical core that this process may use; 1 on a GPU."""
    return usable_cores() if device.type == "cpu" else 1
