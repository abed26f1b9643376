"""A command whose processes all end with this one, whatever ends it.

The command runs below a supervisor, a process of its own that outlives this one by a moment: once the command has
ended, or this process has ended, be it by SIGKILL, the supervisor kills whatever the command has started. Nothing is
asked to end politely, because runs, notebooks and records survive a kill at any moment; unless there is more to end
than processes, as the jobs that Snakemake has handed to a cluster.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # options of prctl(2)


def run_with_children(command: Sequence[str], environment: Mapping[str, str], patience: float = 0.0) -> int:
    """Run a command to its end and return its exit code; nothing that it started is left then.

    SIGINT, SIGTERM and SIGHUP end it, and raise `KeyboardInterrupt` or `SystemExit` once everything has ended.
    `patience`: seconds that the command has to end by itself after a SIGINT, where it has more to end than processes.
    """
    supervisor = [sys.executable, "-m", __name__, str(os.getpid()), str(patience), *command]
    with _ended_by_signals():
        # A session of its own: Ctrl-C in a terminal reaches this process alone, which passes it on.
        process = subprocess.Popen(supervisor, env=dict(environment), start_new_session=True)
        try:
            return process.wait()
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise `SystemExit` in the `with` block for each signal that asks to end, unless it is ignored as under nohup."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _supervise(parent: int, patience: float, command: Sequence[str]) -> int:
    """Run a command until it ends or the process `parent` does, and kill all its descendants."""
    process = None
    with _ended_by_signals():
        try:
            _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
            _prctl(_SET_CHILD_SUBREAPER, 1)  # orphans become children of this process, whatever their session
            if os.getppid() != parent:
                return 1
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which the command inherits: not ignored
            process = subprocess.Popen(command)
            code = process.wait()
            return code if code >= 0 else 128 - code
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            if process is not None and patience:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
            _kill_descendants()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _kill_descendants() -> None:
    """Kill every descendant of this process, also those that they start meanwhile."""
    import psutil

    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(descendants, timeout=1)


if __name__ == "__main__":
    sys.exit(_supervise(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
