"""Buffers of large messages are used again instead of being fetched from the kernel each time."""

from __future__ import annotations

import ctypes

#: mallopt(3), malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
#: Bytes that stay with the process when they are free: pictures of a few clients.
KEPT = 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc's allocator so, for this process; False where there is another one.

    By default it maps fresh pages for every buffer above 128 KiB and gives them back at once; the page faults
    of a message of 300 kB with its copies cost more time than everything else that is done with it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = (
        (_M_MMAP_THRESHOLD, KEPT // 2),
        (_M_TRIM_THRESHOLD, KEPT),
        (_M_TOP_PAD, KEPT // 4),
        (_M_ARENA_MAX, 1),
    )
    taken = [mallopt(option, value) == 1 for option, value in options]
    return all(taken)
