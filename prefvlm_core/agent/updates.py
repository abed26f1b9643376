"""The updates of a fleet's agents: what they draw, and the gradient step.

On the CPU, each run draws from its own generator of NumPy. On a CUDA device this would take longer than the updates of
a large fleet, so the numbers are computed there, and drawing and updating are one CUDA graph each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.captured import Captured
from prefvlm_core.agent.draws import CounterDraws
from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.agent.transfers import to_device
from prefvlm_core.common.seeding import Generators, Stream, key


@dataclass(frozen=True)
class Drawn:
    """What one update learns from."""

    batch: Batch
    noise: Tensor
    """Standard normal, (2, runs, batch, A): for the critics' target and for the actor."""


class Updates(ABC):
    """Draws for the updates of a fleet's agents, and makes them."""

    launched = False
    """Whether `update` only launches the work, so that it runs while this process goes on."""

    def __init__(self, agent: SAC, replay: Replay) -> None:
        self.agent, self.replay = agent, replay

    @abstractmethod
    def draw(self, number: int) -> Drawn:
        """What update `number`, which counts from 0, of every run learns from."""

    @abstractmethod
    def draw_of_run(self, run: int, number: int) -> Drawn:
        """What the extra update `number` of one run, as a fleet of one, learns from."""

    @abstractmethod
    def update(self, update_target: bool) -> None:
        """Update every run by what was drawn last, whose rewards may have been rewritten in place since."""


class HostUpdates(Updates):
    """Draws from the runs' generators, one number after the other; numbers of updates do not matter."""

    def __init__(self, agent: SAC, replay: Replay, generators: Generators) -> None:
        super().__init__(agent, replay)
        self._generators = generators[Stream.LEARNING]
        self._drawn: Drawn | None = None

    def draw(self, number: int) -> Drawn:
        """See `Updates`."""
        batch = self.replay.sample(self._generators, self.agent.config.batch_size)
        self._drawn = Drawn(batch, self.agent.update_noise(self._generators))
        return self._drawn

    def draw_of_run(self, run: int, number: int) -> Drawn:
        """See `Updates`."""
        generator = self._generators[run]
        batch = self.replay.of_run(run).sample(generator, self.agent.config.batch_size)
        return Drawn(batch, self.agent.update_noise([generator]))

    def update(self, update_target: bool) -> None:
        """See `Updates`."""
        assert self._drawn is not None
        self.agent.update(self._drawn.batch, self._drawn.noise, update_target)


class DeviceUpdates(Updates):
    """Draws by counters on the agent's device, into tensors that stay where they are."""

    launched = True

    def __init__(self, agent: SAC, replay: Replay, seeds: Sequence[int]) -> None:
        super().__init__(agent, replay)
        device, size = agent.actor.values.device, (agent.config.batch_size, agent.action_size)
        self._draws = CounterDraws([key(seed, Stream.LEARNING) for seed in seeds], *size, device)
        self._extra = [CounterDraws([key(seed, Stream.LEARNING, 1)], *size, device) for seed in seeds]
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self._steps = torch.ones(len(seeds), 1, dtype=torch.int64, device=device)
        chosen, noise = self._draws(self._number, self._steps)
        self._drawn = Drawn(replay.transitions(chosen), noise)
        draw = partial(_draw, self._draws, replay, self._number, self._steps, self._drawn)
        self._draw = Captured(draw, (), device)
        update = partial(agent.update, self._drawn.batch, self._drawn.noise, False)
        self._update = Captured(update, agent.state().values(), device)

    def draw(self, number: int) -> Drawn:
        """See `Updates`."""
        steps = np.array([[self.replay.sampled_steps(run)] for run in range(len(self._steps))])
        self._steps.copy_(to_device(steps, self._steps.device))
        self._number.fill_(number)
        self._draw()
        return self._drawn

    def draw_of_run(self, run: int, number: int) -> Drawn:
        """See `Updates`."""
        steps = torch.full_like(self._steps[:1], self.replay.sampled_steps(run))
        chosen, noise = self._extra[run](torch.full_like(self._number, number), steps)
        return Drawn(self.replay.of_run(run).transitions(chosen), noise)

    def update(self, update_target: bool) -> None:
        """See `Updates`."""
        self._update()
        if update_target:
            self.agent.update_target()


def make_updates(agent: SAC, replay: Replay, generators: Generators, seeds: Sequence[int]) -> Updates:
    """The updates of runs with these seeds, as suits the agent's device."""
    if agent.actor.values.device.type == "cpu":
        return HostUpdates(agent, replay, generators)
    return DeviceUpdates(agent, replay, seeds)


def _draw(draws: CounterDraws, replay: Replay, number: Tensor, steps: Tensor, drawn: Drawn) -> None:
    """Overwrite `drawn` by what update `number` () draws from the first `steps` (runs, 1)."""
    chosen, noise = draws(number, steps)
    for target, value in zip(drawn.batch, replay.transitions(chosen), strict=True):
        target.copy_(value)
    drawn.noise.copy_(noise)
