"""What the reward networks see of a step, by the names that `reward.inputs` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.registry import Registry
from prefvlm_core.domains.registry import domain_of

if TYPE_CHECKING:  # names are also checked where torch is not needed
    from torch import Tensor

InputsOf = Callable[["Tensor"], "Tensor"]
"""Maps what the replay knows of steps, `RunReplay.inputs` (..., O + A), to inputs (..., I) of the reward networks."""


def state_action(steps: Tensor) -> Tensor:
    """The observation and the action, (..., O + A), as in the papers."""
    return steps


class Relations:
    """The observation and the relations that the task's domain names, (..., O + R), without the action.

    A reward depends on where things are relative to each other, such as a hand and an object, which a network must
    otherwise learn from the labels as a difference of two inputs.
    """

    def __init__(self, task: str) -> None:
        domain = domain_of(task)
        relations = domain.relations(task)
        if relations is None:
            raise PrefVLMError(f"reward.inputs is relations, but {domain.title} names none of '{task}'.")
        self._relations, self._size = relations, domain.sizes(task).observation

    def __call__(self, steps: Tensor) -> Tensor:
        import torch

        observations = steps[..., : self._size]
        return torch.cat((observations, self._relations(observations)), -1)


def embedding(steps: Tensor) -> Tensor:
    """The VLM's embedding (..., D) of the frame after each step, which the replay gives in place of the state.

    A real robot has no privileged state. An agent of such a run still sees it; only the reward is learned from frames.
    """
    return steps


REWARD_INPUTS: Registry[InputsOf | type[Relations]] = Registry(
    "reward.inputs", {"state-action": state_action, "relations": Relations, "embedding": embedding}
)
"""Maps `reward.inputs` to what makes the inputs; see `inputs_of`."""


def inputs_of(name: str, task: str) -> InputsOf:
    """What makes the inputs named `name` for the networks of a task. Raises `PrefVLMError` where there is none."""
    entry = REWARD_INPUTS[name]
    return entry(task) if isinstance(entry, type) else entry
