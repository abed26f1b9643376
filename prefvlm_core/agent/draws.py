"""Random numbers of updates that are computed from a counter on the device, where a generator on the host is too slow.

They need no state (Salmon et al. 2011, SC, "Parallel random numbers: as easy as 1, 2, 3"): what an update draws follows
from the run's key and the number of the update, by the mixing function of SplitMix64 (Steele et al. 2014, OOPSLA). Its
integers are the same on every device; normals agree up to float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_INCREMENT, _FIRST, _SECOND = (  # SplitMix64's constants as signed numbers, since torch's integers have a sign
    constant - (1 << 64) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_LOWER = (1 << 32) - 1


class CounterDraws:
    """What the updates of several runs draw: the steps of their batches and the noise of their policies.

    Args:
        keys: A number from 0 to 2^63 - 1 for each run, on which alone its draws depend.
        batch_size: Transitions of each run per update.
        action_size: A, the numbers of an action.
        device: Where the numbers are computed.
    """

    def __init__(self, keys: Sequence[int], batch_size: int, action_size: int, device: torch.device) -> None:
        self.batch_size, self.action_size = batch_size, action_size
        self._keys = torch.tensor(keys, dtype=torch.int64, device=device).unsqueeze(1)
        self._positions = _INCREMENT * torch.arange(1, batch_size * (1 + action_size) + 1, device=device)

    def __call__(self, update: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (runs, batch) int64 and standard normal noise (2, runs, batch, A) float32 of an update.

        Args:
            update: Number of the update, () int64.
            steps: How many first steps each run draws from, less than 2^31, (runs, 1) int64.
        """
        bits = mixed(mixed(self._keys + _INCREMENT * update) + self._positions)
        of_steps, of_noise = bits[:, : self.batch_size], bits[:, self.batch_size :]
        noise = _normals(of_noise).unflatten(2, (self.batch_size, self.action_size))
        return (_upper(of_steps) * steps) >> 32, noise


def mixed(numbers: Tensor) -> Tensor:
    """The mixing function of SplitMix64: int64 in which every bit depends on all bits of `numbers`, of the same shape.

    Products and sums wrap around.
    """
    numbers = (numbers ^ _shifted(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shifted(numbers, 27)) * _SECOND
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, places: int) -> Tensor:
    """Shifted to the right, filled with zeros: torch fills with the sign."""
    return (numbers >> places) & ((1 << (64 - places)) - 1)


def _upper(bits: Tensor) -> Tensor:
    """The upper 32 of 64 bits, as 0 to 2^32 - 1."""
    return _shifted(bits, 32)


def _normals(bits: Tensor) -> Tensor:
    """Two independent standard normals (2, ...) float32 of each 64 `bits` (...), by Box and Muller (1958)."""
    uniform = (_upper(bits).float() + 0.5) * 2.0**-32
    radius, angle = torch.sqrt(-2 * torch.log(uniform)), (bits & _LOWER).float() * (2 * math.pi * 2.0**-32)
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)))
