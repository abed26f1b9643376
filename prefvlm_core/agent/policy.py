"""The actions of a fleet's agents, which are needed at every step."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from prefvlm_core.agent.captured import CapturedFunction
from prefvlm_core.agent.sac import SAC


class FleetPolicy:
    """Actions (environments, A) float32 for observations (environments, O); as many of these belong to each run, one
    run after the other.

    On a CUDA device, what is returned is overwritten by the next call.
    """

    def __init__(self, agent: SAC) -> None:
        self._agent = agent
        self.runs, self.action_size = len(agent.log_temperature), agent.action_size
        self.device = agent.actor.values.device
        self._sample, self._mean = (CapturedFunction(agent.act, self.device) for _ in range(2))

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Samples of the policies, drawn by standard normal `noise` (environments, A)."""
        return self._sample(self._by_run(observations), self._by_run(noise)).flatten(0, 1)

    def mean(self, observations: Tensor) -> Tensor:
        """What the policies take for best: the tanh of their means."""
        return self._mean(self._by_run(observations)).flatten(0, 1)

    def frozen(self) -> FleetPolicy:
        """The policies as they are now, whatever the agents learn from now on."""
        actor = self._agent.actor.frozen_copy()
        if actor.scaling is not None:
            actor.scaling = actor.scaling.clone()
        return FleetPolicy(dataclasses.replace(self._agent, actor=actor))

    def _by_run(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, (self.runs, -1))
