"""Memory that training frees stays with the process.

glibc gives every large block back to the system when it is freed, and a training update frees and asks for the same few
megabytes dozens of times: the page faults cost more than the element-wise operations on them.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc refuses more


def keep_freed_memory() -> bool:
    """Tell the C library to reuse freed blocks of up to 32 MiB; returns whether it has such a setting (glibc does)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
