"""What the reward networks see of a step, by the names that `reward.inputs` takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prefvlm_core.common.registry import Registry
from prefvlm_core.domains.relations import hand_object_relations
from prefvlm_core.domains.tasks import OBSERVATION_SIZE

InputsOf = Callable[[Tensor], Tensor]
"""Maps observations with actions (..., O + A) to the inputs (..., I) of the reward networks."""


def state_action(steps: Tensor) -> Tensor:
    """The observation and the action, (..., O + A), as in the papers."""
    return steps


def relations(steps: Tensor) -> Tensor:
    """The observation and its `hand_object_relations`, (..., O + 8), without the action.

    Meta-World's reward depends on where the hand is relative to the object, which a network must otherwise learn from
    the labels as a difference of two inputs.
    """
    observations = steps[..., :OBSERVATION_SIZE]
    return torch.cat((observations, hand_object_relations(observations)), -1)


REWARD_INPUTS: Registry[InputsOf] = Registry("reward.inputs", {"state-action": state_action, "relations": relations})
"""Maps `reward.inputs` to what makes the inputs."""
