"""What a fleet needs of a machine, estimated from its configs alone: hours, memory, cores and GPUs.

The figures in `COSTS` are for planning: within a factor of two or three on another machine, which is what a job's
limits need. A job that meets them is started again with higher ones, and its runs go on from their last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prefvlm_core.config.memory import memory_needed
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.tasks import ACTION_SIZE, OBSERVATION_SIZE
from prefvlm_core.vlm import takes_weights, uses_vlm

_LARGE, _SMALL = 1_024, 128
"""Numbers of an embedding: LIV's, and TinyLIV's."""


@dataclass(frozen=True)
class Costs:
    """Seconds that each part of a training takes on one kind of machine."""

    step: float
    """One step of a fleet, however many runs and however small."""
    run_step: float
    """One step of one run: replay, batches, rewards."""
    learning: float
    """10^9 floating-point operations of the agent."""
    labelling: float = 17e-3
    """10^9 floating-point operations of the adapters, which learn on the CPU."""
    environment: float = 0.12e-3
    """One step of one environment, in training or evaluation."""
    session: float = 0.1
    """One feedback session of one run: choosing pairs, and learning the reward."""
    frame: float = 4e-3
    """Drawing one frame of 64 pixels and embedding it by TinyLIV."""
    large_frame: float = 0.5
    """Drawing one frame of 224 pixels and embedding it by a model with weights of its own, such as LIV."""
    reading: float = 25e-6
    """Reading and adapting one of the distinct frames of the pairs that are labeled again."""


COSTS = {
    "cpu": Costs(step=2e-3, run_step=1.6e-3, learning=17e-3),  # measured on one slow core
    "cuda": Costs(step=3.5e-3, run_step=0.1e-3, learning=0.05e-3, large_frame=8e-3),  # estimated
}
"""By device."""


@dataclass(frozen=True)
class Resources:
    """What a job asks for."""

    minutes: int
    megabytes: int
    cpus: int
    gpus: int


def fleet_resources(configs: Sequence[RunConfig], device: str, costs: Costs | None = None) -> Resources:
    """What a fleet of `configs` needs on `device`, cpu or cuda, with a margin; `costs` are by default those of `COSTS`.

    The time is half as much again as `fleet_seconds`, and ten minutes for the start.
    """
    minutes = 10 + 1.5 * fleet_seconds(configs, costs or COSTS[device]) / 60
    on_gpu = device == "cuda"
    # A GPU learns faster than one process can step environments. On a CPU the learner is the slower part, and runs best
    # on one thread, so fleets run side by side, one per core.
    cpus, gpus = (4, 1) if on_gpu else (1, 0)
    megabytes = 1.25 * fleet_bytes(configs) / 1e6 + (6_000 if on_gpu else 2_000)
    return Resources(math.ceil(minutes), math.ceil(megabytes), cpus, gpus)


def fleet_seconds(configs: Sequence[RunConfig], costs: Costs) -> float:
    """Seconds of training that a fleet takes from its first step to its last."""
    return configs[0].total_steps * costs.step + sum(_run_seconds(config, costs) for config in configs)


def fleet_bytes(configs: Sequence[RunConfig]) -> float:
    """Bytes that a fleet needs beside its programs, see `memory_needed`."""
    return float(sum(sum(memory_needed(config).values()) for config in configs))


def update_gigaflop(config: RunConfig) -> float:
    """10^9 floating-point operations of one gradient update of a run's agent (two per multiplication and addition).

    A pass through the layers of one network counts once forward and twice backward: twin critics 2 · 3, their targets
    2, the actor 1 for the next action and 3 to learn, and the critics that judge it 2 forward and 2 back to the action.
    """
    sac = config.sac
    inputs, between = OBSERVATION_SIZE + ACTION_SIZE, (sac.hidden_layers - 1) * sac.width
    return 16 * 2 * sac.batch_size * sac.width * (inputs + between + 1) / 1e9


def _run_seconds(config: RunConfig, costs: Costs) -> float:
    evaluation, steps = config.evaluation, config.total_steps
    episodes = steps // evaluation.every * evaluation.episodes + evaluation.final_episodes
    stepping = (steps + episodes * config.horizon) * config.action_repeat * costs.environment
    learning = steps / config.sac.update_every * update_gigaflop(config) * costs.learning
    seconds = steps * costs.run_step + stepping + learning
    if config.reward.source == "learned":
        seconds += _sessions(config) * costs.session
    if uses_vlm(config):
        large = takes_weights(config.vlm.model)
        seconds += steps / config.vlm.frame_stride * (costs.large_frame if large else costs.frame)
    seconds += _frames_seen_again(config) * costs.reading
    return seconds + _adapter_gigaflop(config) * costs.labelling


def _sessions(config: RunConfig) -> int:
    return max(0, config.total_steps - config.first_session_step) // config.feedback.session_every


def _frames_seen_again(config: RunConfig) -> float:
    """Frames that are adapted in all sessions together, each of the distinct ones of the pairs so far once per session;
    of a model that looks at no frames, none."""
    if not config.vlm.labels or not uses_vlm(config):
        return 0.0
    sessions = _sessions(config)
    labels = sessions * config.vlm.queries * ((sessions + 1) / 2 if config.vlm.relabel else 1)
    return min(labels * _frames_per_pair(config), sessions / 2 * config.total_steps / config.vlm.frame_stride)


def _frames_per_pair(config: RunConfig) -> float:
    return 2 * config.feedback.segment_length / config.vlm.frame_stride


def _dimension(config: RunConfig) -> int:
    return _LARGE if takes_weights(config.vlm.model) else _SMALL


def _adapter_gigaflop(config: RunConfig) -> float:
    """10^9 floating-point operations of all adapters of a run, one for each fold and one for all."""
    adapter = config.adapter
    if not adapter.enabled or not config.vlm.labels or adapter.kind != "mlp":
        return 0.0
    updates = adapter.first_updates + adapter.later_updates * max(0, _sessions(config) - 1)
    layers = adapter.hidden * (_dimension(config) + adapter.output)
    frames = adapter.batch_pairs * _frames_per_pair(config)
    return updates * (adapter.folds + 1) * frames * 6 * layers / 1e9
