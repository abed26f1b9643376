"""Faults on disk: something happens before the n-th change of a file or folder."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""Events (see `sys.audit`) that change a folder, besides opening a file to write."""
_watching: list[tuple[Path, Callable[[str], None]]] = []
_hooked: list[bool] = []


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it."""


@contextmanager
def before_each_change(folder: Path, act: Callable[[str], None]) -> Iterator[None]:
    """Call `act` with the event before each change below `folder`, and before each flush of a file."""
    if not _hooked:  # a hook can never be taken off again
        sys.addaudithook(_on_event)
        _hooked.append(True)
    fsync = os.fsync

    def noted_fsync(descriptor: int) -> None:
        act("fsync")
        fsync(descriptor)

    _watching.append((folder, act))
    os.fsync = noted_fsync
    try:
        yield
    finally:
        os.fsync = fsync
        _watching.clear()


@contextmanager
def killed_before(folder: Path, change: int, kill: Callable[[], Any]) -> Iterator[None]:
    """Call `kill` before change number `change`, counted from 0. A process that only flushes changes nothing yet."""
    left = [change]

    def act(event: str) -> None:
        if event != "fsync":
            left[0] -= 1
            if left[0] == -1:
                kill()

    with before_each_change(folder, act):
        yield


@contextmanager
def full_from(folder: Path, change: int) -> Iterator[None]:
    """From change number `change` on, counted from 0, the disk is full: only removing succeeds."""
    left = [change]

    def act(event: str) -> None:
        if event not in ("os.remove", "os.rmdir"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with before_each_change(folder, act):
        yield


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or (event != "open" and event not in CHANGES):
        return
    folder, act = _watching[-1]
    path = arguments[0]
    below = isinstance(path, str | Path) and Path(path).is_relative_to(folder)
    inside = event in ("os.remove", "os.rmdir") and arguments[-1] != -1  # named relative to an open folder
    writes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (below or inside) and writes and Path(path).name != ".lock":
        act(event)
