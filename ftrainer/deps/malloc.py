"""glibc's allocator, told to keep what a step frees: the next step wants as much again."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, MAPPED = 2**28, 2**25
"""Bytes that stay with the process at the heap's end, and from which a tensor is mapped and unmapped by itself."""
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed() -> bool:
    """Let this process keep freed memory, up to 256 MB of it, where the C library is glibc; whether it now does.

    By default memory at the heap's end goes back to the system as soon as it is free, and every page of it is cleared
    anew when the next step asks: at width 1024, 8,400 page faults a step, 8 of 34 ms. Whoever set glibc's own
    environment variables is left alone.
    """
    if sys.platform != "linux" or any(name in os.environ for name in VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(M_MMAP_THRESHOLD, MAPPED), mallopt(M_TRIM_THRESHOLD, KEPT)])
