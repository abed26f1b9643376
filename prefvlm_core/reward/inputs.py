"""What the reward networks see of a step, by the names that `reward.inputs` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prefvlm_core.common.registry import Registry
from prefvlm_core.domains.tasks import OBSERVATION_SIZE

if TYPE_CHECKING:  # names are also checked where torch is not needed
    from torch import Tensor

InputsOf = Callable[["Tensor"], "Tensor"]
"""Maps what the replay knows of steps, `RunReplay.inputs` (..., O + A), to inputs (..., I) of the reward networks."""


def state_action(steps: Tensor) -> Tensor:
    """The observation and the action, (..., O + A), as in the papers."""
    return steps


def relations(steps: Tensor) -> Tensor:
    """The observation and its `hand_object_relations`, (..., O + 8), without the action.

    Meta-World's reward depends on where the hand is relative to the object, which a network must otherwise learn from
    the labels as a difference of two inputs.
    """
    import torch

    from prefvlm_core.domains.relations import hand_object_relations

    observations = steps[..., :OBSERVATION_SIZE]
    return torch.cat((observations, hand_object_relations(observations)), -1)


def embedding(steps: Tensor) -> Tensor:
    """The VLM's embedding (..., D) of the frame after each step, which the replay gives in place of the state.

    A real robot has no privileged state. An agent of such a run still sees it; only the reward is learned from frames.
    """
    return steps


REWARD_INPUTS: Registry[InputsOf] = Registry(
    "reward.inputs", {"state-action": state_action, "relations": relations, "embedding": embedding}
)
"""Maps `reward.inputs` to what makes the inputs."""
