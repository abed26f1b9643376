"""Where the hand is relative to the object, computed from Meta-World's observations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names of inputs are also checked where torch is not needed
    from torch import Tensor

HAND, OBJECT = slice(0, 3), slice(4, 7)
"""Where an observation holds the positions of the hand and of the (first) object, meters."""
_PREVIOUS_OBJECT = slice(22, 25)  # one environment step before


def hand_object_relations(observations: Tensor) -> Tensor:
    """Relations (..., 8) in observations (..., 39), in meters.

    They are the vector from hand to object and its length, and the object's displacement during the latest environment
    step and its length.
    """
    import torch

    reach = observations[..., OBJECT] - observations[..., HAND]
    displacement = observations[..., OBJECT] - observations[..., _PREVIOUS_OBJECT]
    return torch.cat([part for vector in (reach, displacement) for part in (vector, _length(vector))], -1)


def _length(vector: Tensor) -> Tensor:
    return vector.norm(dim=-1, keepdim=True)
