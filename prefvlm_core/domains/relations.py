"""Where the hand is relative to the object, computed from Meta-World's observations."""

from __future__ import annotations

import torch
from torch import Tensor

_HAND, _OBJECT = slice(0, 3), slice(4, 7)  # positions, meters
_PREVIOUS_OBJECT = slice(22, 25)  # one environment step before


def hand_object_relations(observations: Tensor) -> Tensor:
    """Relations (..., 8) in observations (..., 39), in meters.

    They are the vector from hand to object and its length, and the object's displacement during the latest environment
    step and its length.
    """
    reach = observations[..., _OBJECT] - observations[..., _HAND]
    displacement = observations[..., _OBJECT] - observations[..., _PREVIOUS_OBJECT]
    return torch.cat([part for vector in (reach, displacement) for part in (vector, _length(vector))], -1)


def _length(vector: Tensor) -> Tensor:
    return vector.norm(dim=-1, keepdim=True)
