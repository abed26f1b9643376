"""Work whose many small operations a CUDA device launches at once, as a CUDA graph."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_WARM_UP = 3  # calls, as PyTorch's notes on CUDA graphs advise


class Captured:
    """Calls `work`; on a CUDA device, what its first call recorded is repeated.

    What is repeated are operations on the same memory: `work` must only read and write tensors that stay where they
    are, and nothing else that changes may decide what it does. `changed` are those that it changes and that matter
    after it; what warming up does to them is undone. On other devices each call is one of `work`.
    """

    def __init__(self, work: Callable[[], None], changed: Iterable[Tensor], device: torch.device) -> None:
        self._work, self._changed, self._device = work, list(changed), device
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do the work once."""
        if self._device.type != "cuda":
            self._work()
            return
        if self._graph is None:
            self._graph = self._recorded()
        self._graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        before = [tensor.clone() for tensor in self._changed]
        current, aside = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):  # libraries allocate what they need, which no graph may do
            for _ in range(_WARM_UP):
                self._work()
        current.wait_stream(aside)
        gc.collect()  # what is left of earlier fleets must not be freed while a graph is recorded
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # which records and does not do the work
            self._work()
        for tensor, value in zip(self._changed, before, strict=True):
            tensor.copy_(value)
        return graph
