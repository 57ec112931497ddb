"""Freed memory is kept: a network's tensors come and go thousands of times, always of the same sizes."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_KEEP, _LARGEST = 2**30, 2**25
"""Bytes that may lie unused at the end of the heap, and the largest block that comes from it (glibc allows no more)."""


def keep_freed_memory() -> bool:
    """Ask the C library not to give freed memory back to the system, where each use of it would be a page fault.

    That was seen to cost a fifth of the processor time of training on pictures. Only glibc can be asked.

    Returns:
        Whether it was understood.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library; Windows has no library of this name
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEEP)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST))
