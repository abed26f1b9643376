"""Locks: one process at a time trains a run or publishes a profile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from prefvlm_core.common.errors import PrefVLMError


@contextmanager
def file_lock(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock file `path`, which any user of a shared folder may take next.

    Waits `timeout` seconds for another process, for ever if negative, and raises `filelock.Timeout` after that. Raises
    `PrefVLMError` where the lock cannot be taken at all.
    """
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise
    except PermissionError as error:
        raise PrefVLMError(
            f"{path} belongs to another user; ask them for permission to write to it, or, if no process of theirs is "
            "running, remove it."
        ) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PrefVLMError(
            f"The folder {path.parent} cannot be locked ({reason}), so two processes could write to it at once; choose "
            "a results folder on a file system that has locks and free space."
        ) from error
    try:
        yield
    finally:
        lock.release()
