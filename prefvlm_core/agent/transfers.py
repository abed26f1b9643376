"""Numbers on their way between the host and the learner's device, for which neither waits longer than it has to."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on `device`, without waiting for what was launched there before."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from other memory, CUDA copies only once the device has nothing else to do
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """A copy of a tensor on the host, without waiting for what is launched on the tensor's device after it."""

    def __init__(self, tensor: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._copy.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._copy = tensor

    def array(self) -> NDArray[Any]:
        """The numbers, once they have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy.numpy()
