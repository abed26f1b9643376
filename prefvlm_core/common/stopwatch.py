"""How long work takes: the wall time of a fleet by part, and the processor time of a piece of work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Stopwatch:
    """Wall seconds, in total and by part. Time in a nested part counts for that part alone, so parts never overlap.

    After `restore`, counting continues from the seconds of the interrupted process.
    """

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._start = self._mark = time.perf_counter()
        self._inner = 0.0  # seconds of the parts nested in the current one

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time spent inside the `with` block for `part`."""
        start, outer, self._inner = time.perf_counter(), self._inner, 0.0
        yield
        elapsed = time.perf_counter() - start
        self.parts[part] = self.parts.get(part, 0.0) + elapsed - self._inner
        self._inner = outer + elapsed

    @property
    def seconds(self) -> float:
        """Wall seconds in total, those of interrupted processes included."""
        return time.perf_counter() - self._start

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The seconds counted so far, as the tensors and values of a checkpoint."""
        return {}, {"seconds": self.seconds, "parts": self.parts}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self._start, self.parts = time.perf_counter() - values["seconds"], dict(values["parts"])

    @property
    def since_mark(self) -> float:
        """Seconds since the last `mark`, or since the start."""
        return time.perf_counter() - self._mark

    def mark(self) -> None:
        """Restart `since_mark` from 0."""
        self._mark = time.perf_counter()

    def columns(self) -> dict[str, float]:
        """Columns for metrics.csv: seconds of the whole fleet, in total and by part."""
        parts = {f"seconds_{part}": round(seconds, 3) for part, seconds in sorted(self.parts.items())}
        return {"seconds": round(self.seconds, 3)} | parts


def processor_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of processor time that `work` takes, which exclude other processes on the machine; the least of
    `rounds`."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)
