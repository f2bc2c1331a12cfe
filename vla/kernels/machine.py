"""The machine this runs on, for the roofline: matrix product peak and memory bandwidth, measured now."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from vla.kernels.roofline import Machine

_SIDE = 512  # of the square product: large enough for the peak, small enough for the cache
_STREAM_BYTES = 256 * 2**20  # eight times a large cache
_CACHES = "/sys/devices/system/cpu/cpu0/cache"


def best_s(call: Callable[[], object], seconds: float = 0.4, least: int = 5) -> float:
    """Shortest of the times that ``call`` took in about ``seconds``: what the machine can do."""
    call()
    best, began, count = float("inf"), time.perf_counter(), 0
    while count < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        best, count = min(best, time.perf_counter() - start), count + 1
    return best


def gemm_flops(seconds: float = 0.4) -> float:
    """float32 FLOP/s of a square product with the threads that torch now has."""
    a, b = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
    out = torch.empty(_SIDE, _SIDE)
    return 2 * _SIDE**3 / best_s(lambda: torch.mm(a, b, out=out), seconds)


def read_bandwidth(seconds: float = 0.4) -> float:
    """Bytes/s of a sum over more than any cache holds."""
    stream = torch.ones(_STREAM_BYTES // 4)
    return _STREAM_BYTES / best_s(stream.sum, seconds)


def last_level_cache() -> int:
    """Bytes; 0 where the system does not say."""
    sizes = [path.read_text().strip() for path in Path(_CACHES).glob("index*/size")]
    units = {"K": 2**10, "M": 2**20}
    return max((int(s[:-1]) * units[s[-1]] for s in sizes if s[-1:] in units), default=0)


def this_cpu() -> Machine:
    """Peaks for float32 as torch reaches them now; other work on the machine lowers them."""
    threads = torch.get_num_threads()
    note = f"measured now, float32, {threads} thread{'s' if threads > 1 else ''}"
    return Machine("this CPU", {32: gemm_flops()}, read_bandwidth(), last_level_cache(), note)
