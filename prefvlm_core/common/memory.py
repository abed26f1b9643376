"""A setting of the C library that keeps the memory that training frees in the process.

By default, glibc returns every large block to the system when it is freed. A training update frees and requests the
same few megabytes dozens of times, and the page faults cost more than the element-wise operations on these blocks.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3), as in glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc refuses more


def keep_freed_memory() -> bool:
    """Make the C library reuse freed blocks of up to 32 MiB. Returns whether it has that setting, as glibc does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
