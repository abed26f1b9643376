"""Work of many small operations, which a CUDA device does as few fused ones, launched at once as a CUDA graph."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Work = Callable[[], None]
_WARM_UP = 3  # calls, as PyTorch's notes on CUDA graphs advise


class Captured:
    """Calls `work`; on a CUDA device, what its first call recorded is repeated.

    What is repeated are operations on the same memory: `work` must only read and write tensors that stay where they
    are, and nothing else that changes may decide what it does. `changed` are those that it changes and that matter
    after it; what warming up does to them is undone. On other devices each call is one of `work`.
    """

    def __init__(self, work: Work, changed: Iterable[Tensor], device: torch.device) -> None:
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
        work = self._fused()
        gc.collect()  # what is left of earlier fleets must not be freed while a graph is recorded
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # which records and does not do the work
            work()
        for tensor, value in zip(self._changed, before, strict=True):
            tensor.copy_(value)
        return graph

    def _fused(self) -> Work:
        """The work with its elementwise operations fused, warmed up; as it is where this machine cannot compile."""
        torch.compiler.reset()  # torch compiles one function for a few sizes only, those of earlier fleets included
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own doings while it traces gradients
                fused = torch.compile(self._work, dynamic=False)
                self._warm_up(fused)
        except RuntimeError as error:
            why = str(error).strip().partition("\n")[0]
            warnings.warn(f"torch.compile fails here, so updates are slower than need be: {why}", stacklevel=2)
            self._warm_up(self._work)
            return self._work
        return fused

    def _warm_up(self, work: Work) -> None:
        current, aside = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):  # libraries allocate what they need, which no graph may do
            for _ in range(_WARM_UP):
                work()
        current.wait_stream(aside)


class CapturedFunction:
    """Calls a `function` of tensors as `Captured` work, which is recorded anew for other shapes than those before.

    On a CUDA device, the result is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        self._arguments: list[Tensor] = []
        self._result = torch.empty(0)
        self._captured: Captured | None = None

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The function of `arguments`."""
        if self._device.type != "cuda":
            return self._function(*arguments)
        if self._captured is None or [a.shape for a in arguments] != [a.shape for a in self._arguments]:
            self._arguments = [argument.clone() for argument in arguments]
            self._result = self._function(*arguments).clone()
            self._captured = Captured(self._write, (), self._device)
        for kept, argument in zip(self._arguments, arguments, strict=True):
            kept.copy_(argument)
        self._captured()
        return self._result

    def _write(self) -> None:
        self._result.copy_(self._function(*self._arguments))
