"""How long each part of a training takes once, which `costs` multiplies by how often it takes place: on this machine as
`calibration` measures it, on others as a table says, which every job of a cluster reads and so is light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.vlm import takes_weights


class Timings(Protocol):
    """Seconds of one piece of work each, on one core."""

    def environment_step(self, config: RunConfig) -> float:
        """One action in one environment."""

    def acting(self, config: RunConfig, runs: int) -> float:
        """The choice of one action in each of `runs` runs at once."""

    def storing(self, config: RunConfig, runs: int) -> float:
        """The learned reward and the place in the replay of one step of `runs` runs."""

    def update(self, config: RunConfig, runs: int) -> float:
        """One gradient update of the agents of `runs` runs at once, with the batch that is drawn for it."""

    def reward_update(self, config: RunConfig) -> float:
        """One gradient update of one run's reward ensemble."""

    def reward_step(self, config: RunConfig) -> float:
        """The rewards that one run's ensemble gives to one step, of many at once."""

    def frame(self, config: RunConfig) -> float:
        """One frame, drawn and embedded."""

    def adapter_update(self, config: RunConfig) -> float:
        """One gradient update of all adapters of one run, those of cross-validation too."""

    def judged_pair(self, config: RunConfig) -> float:
        """One human-labeled pair that one run's adapters judge; kernel adapters learn from it as well."""

    def adapted_frame(self, config: RunConfig) -> float:
        """One frame read from the cache and adapted."""

    def dimension(self, config: RunConfig) -> int:
        """Numbers of an embedding."""


@dataclass(frozen=True)
class StoredTimings:
    """The `Timings` of one kind of machine, from few numbers: within a factor of two or three on another machine."""

    call: float
    """Seconds of one pass through the networks of a fleet, however many and however small."""
    call_in_update: float
    """The same within an update of the agents, whose operations a GPU launches together."""
    batch: float
    """Seconds of the batch and the noise of one run's update."""
    gigaflop: float
    """Seconds of 10^9 floating-point operations of the agent and of the reward ensemble."""
    large_frame: float
    """Seconds of drawing one frame of 224 pixels and embedding it by a model with weights of its own, such as LIV."""
    small_frame: float = 2.2e-3
    """Seconds of drawing one frame of 64 pixels and embedding it by TinyLIV."""
    environment: float = 0.13e-3
    """Seconds of one environment step; Meta-World's, since those of other domains are shorter."""
    adapter_gigaflop: float = 19e-3
    """Seconds of 10^9 floating-point operations of the adapters, which learn on the CPU."""
    reading: float = 5e-6
    """Seconds of reading and adapting one frame."""

    def environment_step(self, config: RunConfig) -> float:
        """See `Timings`."""
        return config.action_repeat * self.environment

    def acting(self, config: RunConfig, runs: int) -> float:
        """See `Timings`."""
        return self.call

    def storing(self, config: RunConfig, runs: int) -> float:
        """See `Timings`."""
        return self.call

    def update(self, config: RunConfig, runs: int) -> float:
        """See `Timings`."""
        return _UPDATE_PASSES * self.call_in_update + runs * (self.batch + update_gigaflop(config) * self.gigaflop)

    def reward_update(self, config: RunConfig) -> float:
        """See `Timings`."""
        steps = 2 * config.reward.batch_size * config.feedback.segment_length
        return _LEARNING_PASSES * (self.call + steps * self.reward_step(config))

    def reward_step(self, config: RunConfig) -> float:
        """See `Timings`."""
        reward, sizes = config.reward, sizes_of(config.task)
        inputs = self.dimension(config) if reward.embedded else sizes.observation + sizes.action
        return reward.members * _pass_gigaflop(inputs, reward.width, reward.hidden_layers) * self.gigaflop

    def frame(self, config: RunConfig) -> float:
        """See `Timings`."""
        return self.large_frame if takes_weights(config.vlm.model) else self.small_frame

    def adapter_update(self, config: RunConfig) -> float:
        """See `Timings`."""
        adapter = config.adapter
        return _LEARNING_PASSES * (adapter.folds + 1) * adapter.batch_pairs * self.judged_pair(config)

    def judged_pair(self, config: RunConfig) -> float:
        """See `Timings`."""
        adapter, frames = config.adapter, 2 * config.feedback.segment_length / config.vlm.frame_stride
        return frames * 2 * adapter.hidden * (self.dimension(config) + adapter.output) / 1e9 * self.adapter_gigaflop

    def adapted_frame(self, config: RunConfig) -> float:
        """See `Timings`."""
        return self.reading

    def dimension(self, config: RunConfig) -> int:
        """See `Timings`: LIV's, or TinyLIV's."""
        return 1_024 if takes_weights(config.vlm.model) else 128


DRAWING_CORES = 16
"""Cores of a GPU's job whose runs show frames to a model: all but one draw them."""
TIMINGS = {
    "cpu": StoredTimings(call=0.14e-3, call_in_update=0.14e-3, batch=1.8e-3, gigaflop=19e-3, large_frame=0.5),
    "cuda": StoredTimings(  # frames are estimated: drawn by the other cores, and embedded meanwhile
        call=0.3e-3,
        call_in_update=0.032e-3,
        batch=7e-6,
        gigaflop=0.024e-3,
        large_frame=5e-3 / (DRAWING_CORES - 1),
        small_frame=2.1e-3 / (DRAWING_CORES - 1),
        reading=2e-6,
    ),
}
"""By device: one slow core that other programs share, as the stored fleets of profile laptop were trained on it, and an
H200, whose updates were measured (`results/gpu`)."""
_LEARNING_PASSES = 3
"""Passes through a network in a gradient update of it: one forward, and as much as two of them backward."""
_UPDATE_PASSES = 16
"""Passes of one batch through one network in an update of SAC: to learn, 2 critics and the actor 3 each; forward alone,
2 targets and the actor for the next action; and the 2 critics that judge the actor, forward and back to the action."""


def update_gigaflop(config: RunConfig) -> float:
    """10^9 floating-point operations of one gradient update of a run's agent."""
    sac, sizes = config.sac, sizes_of(config.task)
    inputs = sizes.observation + sizes.action
    return _UPDATE_PASSES * sac.batch_size * _pass_gigaflop(inputs, sac.width, sac.hidden_layers)


def _pass_gigaflop(inputs: int, width: int, hidden_layers: int) -> float:
    """Of one input through one network with one output, two operations per multiplication and addition."""
    return 2 * width * (inputs + (hidden_layers - 1) * width + 1) / 1e9
