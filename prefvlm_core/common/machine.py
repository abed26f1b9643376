"""What the machine has, as far as this process may use it: cores and memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefvlm_core.common.errors import PrefVLMError

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # versions 2 and 1


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or a smaller limit of its container or its user."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [sys.maxsize]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            limits.append(int(Path(path).read_text(encoding="ascii")))
    with suppress(ImportError):  # Windows has no such limits
        import resource

        limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    return min(limits)


def in_bytes(size: float) -> str:
    """A number of bytes as people read it, for example "159 TB"."""
    units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"]
    while size >= 1000 and len(units) > 1:
        size, _ = size / 1000, units.pop(0)
    return f"{size:.3g} {units[0]}"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what NumPy and torch raise when memory runs out in a training into a `PrefVLMError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        texts = ("can't allocate memory", "not enough memory", "out of memory")
        if isinstance(error, RuntimeError) and not any(text in str(error).lower() for text in texts):
            raise
        raise PrefVLMError(
            "The memory ran out during the training; train fewer runs at a time, or with smaller networks and batches."
        ) from error


@contextmanager
def learner_settings(threads: int) -> Iterator[None]:
    """Train on so many torch threads, and multiply matrices in TF32 on a GPU, in a fraction of the time. What the
    caller had set comes back afterwards."""
    import torch

    before = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cuda.matmul.allow_tf32 = before[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread. With 2 threads on 2 cores that another process used too, adapters learned 12 to 60 times
    slower (measured)."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
