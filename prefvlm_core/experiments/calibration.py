"""How long each part of a training takes on this machine, measured for a moment when it is first asked for.

Times are those of the processor on one thread, so that other processes on the machine do not count.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prefvlm_core.agent.exploration import exploring_actions
from prefvlm_core.agent.policy import FleetPolicy
from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import SAC
from prefvlm_core.common.arrays import FloatArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import AdapterConfig, EvaluationConfig, FeedbackConfig, RunConfig
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.registry import domain_of, main_tasks, sizes_of
from prefvlm_core.experiments.timings import TIMINGS
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.reward.learning import learn_together, one_pass
from prefvlm_core.vlm import VisionLanguageModel, load
from prefvlm_core.vlm.feature_cache import FeatureCache
from prefvlm_core.vlm.frame_pairs import FramePairs
from prefvlm_core.vlm.labeller import fresh_adapters

MANY = 8
"""Runs of the fleet that is measured beside a single run; fleets of other sizes lie on the line through both."""
_STEPS = 2_000  # transitions in the replay
_FRAMES = 40
_LARGE_SIZE, _LARGE_GIGAFLOP = 224, 12.0
"""Pixels, and 10^9 operations per frame, of a model whose weights are not here: LIV's."""
_CPU = torch.device("cpu")


class _Fleet(NamedTuple):
    """A small fleet full of random transitions."""

    agent: SAC
    replay: Replay
    ensemble: RewardEnsemble
    generators: list[np.random.Generator]


class Calibration:
    """The `Timings` of this machine."""

    def environment_step(self, config: RunConfig) -> float:
        """See `Timings`."""
        return _environment_step(_measured_task(config.task), config.action_repeat)

    def acting(self, config: RunConfig, runs: int) -> float:
        """See `Timings`."""
        return _on_the_line(_acting, config, runs)

    def storing(self, config: RunConfig, runs: int) -> float:
        """See `Timings`."""
        return _on_the_line(_storing, config, runs)

    def update(self, config: RunConfig, runs: int) -> float:
        """See `Timings`."""
        return _on_the_line(_update, config, runs)

    def reward_update(self, config: RunConfig) -> float:
        """See `Timings`."""
        return _reward_update(_shape(config))

    def reward_step(self, config: RunConfig) -> float:
        """See `Timings`."""
        return _reward_step(_shape(config))

    def frame(self, config: RunConfig) -> float:
        """See `Timings`. Where the model's weights are missing, the operations of LIV's network are counted."""
        return _frame(config.vlm.model, _measured_task(config.task))

    def adapter_update(self, config: RunConfig) -> float:
        """See `Timings`."""
        return (self._session(config, updates=3) - self._session(config, updates=1)) / 2

    def judged_pair(self, config: RunConfig) -> float:
        """See `Timings`. What a session of adapters takes beside their updates."""
        updates = self.adapter_update(config) if config.adapter.kind == "mlp" else 0.0
        return max(0.0, self._session(config, updates=1) - updates) / config.adapter.batch_pairs

    def adapted_frame(self, config: RunConfig) -> float:
        """See `Timings`."""
        return _adapted_frame(config.adapter, self.dimension(config), sizes_of(config.task).action)

    def dimension(self, config: RunConfig) -> int:
        """See `Timings`."""
        model = _model(config.vlm.model)
        return TIMINGS["cpu"].dimension(config) if model is None else len(model.encode_task(config.task))

    def _session(self, config: RunConfig, updates: int) -> float:
        adapter = dataclasses.replace(config.adapter, first_updates=updates)
        frames = config.feedback.segment_length // config.vlm.frame_stride
        return _adapter_session(adapter, frames, self.dimension(config), sizes_of(config.task).action)


def _on_the_line(measure: Callable[[RunConfig, int], float], config: RunConfig, runs: int) -> float:
    one, many = measure(_shape(config), 1), measure(_shape(config), MANY)
    return one + (many - one) * (runs - 1) / (MANY - 1)


@functools.cache
def _measured_task(task: str) -> str:
    """The task at which those of a domain are measured that are described by as many numbers."""
    return next((each for each in main_tasks(task) if sizes_of(each) == sizes_of(task)), task)


@functools.cache
def _shape(config: RunConfig) -> RunConfig:
    """A config that is the same for all runs whose networks and batches are."""
    inputs = "state-action" if config.reward.embedded else config.reward.inputs
    return RunConfig(
        task=_measured_task(config.task),
        method="pebble",
        seed=0,
        profile="paper",
        total_steps=10_000 * config.horizon,
        horizon=config.horizon,
        action_repeat=config.action_repeat,
        evaluation=EvaluationConfig(every=config.horizon),
        sac=config.sac,
        reward=dataclasses.replace(config.reward, learning="plain", inputs=inputs),
        feedback=FeedbackConfig(segment_length=config.feedback.segment_length),
    )


def _seconds(work: Callable[[], object]) -> float:
    """Processor seconds of `work`, mean over as many rounds as take a moment."""
    work()
    rounds = 1
    while True:
        start = time.process_time()
        for _ in range(rounds):
            work()
        if (spent := time.process_time() - start) > 0.1:
            return spent / rounds
        rounds *= 4


@functools.cache
def _environment_step(task: str, action_repeat: int) -> float:
    environment = Environment(task, domain_of(task).longest_episode // action_repeat, action_repeat=action_repeat)
    actions = _actions(task, min(90, environment.horizon))

    def episode() -> None:
        environment.reset(0)
        for action in actions:
            environment.step(action)

    return _seconds(episode) / len(actions)


def _actions(task: str, count: int) -> FloatArray:
    return np.random.default_rng(0).uniform(-1, 1, (count, sizes_of(task).action)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _fleet(config: RunConfig, runs: int) -> _Fleet:
    sizes, generators = sizes_of(config.task), [np.random.default_rng(run) for run in range(runs)]
    replay = Replay(runs, _STEPS, config.horizon, sizes.observation, sizes.action, 1, 1, _CPU)
    for tensor in (replay.observations, replay.actions, replay.true_rewards, replay.rewards):
        tensor.uniform_(-1, 1)
    replay.size = _STEPS
    temperatures = [config.sac.initial_temperature] * runs
    agent = SAC.create(config.sac, sizes.observation, sizes.action, generators, _CPU, temperatures)
    ensemble = RewardEnsemble(config.reward, replay.input_size, generators, _CPU, config.task)
    return _Fleet(agent, replay, ensemble, generators)


@functools.cache
def _acting(config: RunConfig, runs: int) -> float:
    fleet, observations = _fleet(config, runs), torch.randn(runs, sizes_of(config.task).observation)
    policy = FleetPolicy(fleet.agent)
    return _seconds(lambda: exploring_actions(policy, observations, fleet.generators, False))


@functools.cache
def _storing(config: RunConfig, runs: int) -> float:
    fleet, sizes = _fleet(config, runs), sizes_of(config.task)
    observations, actions = torch.randn(runs, sizes.observation), torch.rand(runs, sizes.action)
    snapshots = np.zeros((runs, 1), np.float32)

    def store() -> None:
        fleet.replay.size = _STEPS - 1
        rewards = fleet.ensemble.predict(observations, actions)
        fleet.replay.add(actions, rewards, rewards, observations, snapshots)

    return _seconds(store)


@functools.cache
def _update(config: RunConfig, runs: int) -> float:
    fleet, size = _fleet(config, runs), config.sac.batch_size

    def update() -> None:
        batch = fleet.replay.sample(fleet.generators, size)
        fleet.agent.update(batch, fleet.agent.update_noise(fleet.generators), True)

    return _seconds(update)


@functools.cache
def _reward_update(config: RunConfig) -> float:
    fleet, size, length = _fleet(config, 1), config.reward.batch_size, config.feedback.segment_length
    starts = fleet.replay.of_run(0).draw_segments(fleet.generators[0], size, length, 4)
    pairs = PreferenceBuffer(starts, (np.arange(size) % 2).astype(np.float32))

    def update() -> None:
        learning = one_pass(pairs, config.reward, length, fleet.generators[0], _CPU)
        learn_together(fleet.ensemble, fleet.replay, {0: learning})

    return _seconds(update)


@functools.cache
def _reward_step(config: RunConfig) -> float:
    fleet = _fleet(config, 1)
    return _seconds(lambda: fleet.ensemble.of_run(0).relabel(fleet.replay.of_run(0))) / _STEPS


@functools.cache
def _model(name: str) -> VisionLanguageModel | None:
    """None where its weights or its extra are missing."""
    try:
        return load(name)
    except PrefVLMError:
        return None


@functools.cache
def _frame(name: str, task: str) -> float:
    model = _model(name)
    environment = Environment(task, _FRAMES)
    environment.reset(0)
    snapshots = []
    for action in _actions(task, _FRAMES):
        environment.step(action)
        snapshots.append(environment.snapshot())
    scenes = np.repeat(environment.scene()[None], _FRAMES, axis=0)
    renderer = FrameRenderer(task, _LARGE_SIZE if model is None else model.frame_size)
    drawing = _seconds(lambda: renderer.render(np.stack(snapshots), scenes)) / _FRAMES
    if model is None:
        return drawing + _LARGE_GIGAFLOP * _gigaflop_seconds()
    frames = renderer.render(np.stack(snapshots), scenes)
    return drawing + _seconds(lambda: model.encode_image(frames)) / _FRAMES


@functools.cache
def _gigaflop_seconds() -> float:
    """Seconds of 10^9 operations of a matrix product."""
    matrix = torch.randn(512, 512)
    return _seconds(lambda: matrix @ matrix) / (2 * 512**3 / 1e9)


def _embeddings(count: int, dimension: int) -> FloatArray:
    drawn = np.random.default_rng(0).standard_normal((count, dimension), np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@functools.cache
def _adapter_session(adapter: AdapterConfig, frames: int, dimension: int, action_size: int) -> float:
    """One session in which fresh adapters learn from `batch_pairs` labels."""
    labels = adapter.batch_pairs
    text, *rows = _embeddings(1 + labels * 2 * frames, dimension)
    pairs = FramePairs.of(np.stack(rows).reshape(labels, 2, frames, dimension))
    wanted = np.random.default_rng(1).integers(0, 2, labels).astype(np.float32)
    moves = np.stack(rows[:64]), np.stack(rows[:64]), np.zeros((len(rows[:64]), action_size), np.float32)

    def session() -> None:
        generator = np.random.default_rng(0)
        fresh_adapters(adapter, dimension, action_size, generator).learn(text, pairs, wanted, moves, generator)

    return _seconds(session)


@functools.cache
def _adapted_frame(adapter: AdapterConfig, dimension: int, action_size: int) -> float:
    text = _embeddings(1, dimension)[0]
    adapters = fresh_adapters(adapter, dimension, action_size, np.random.default_rng(0))
    if adapter.enabled:
        adapters.load(adapters.state() | {"accepted": torch.tensor(True)})
    steps, shown = np.arange(_STEPS), np.arange(_STEPS).reshape(-1, 50)
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), "random", 1, _STEPS, dimension)
        runs = np.zeros_like(steps)

        def look_up() -> FloatArray:
            return cache.get(
                runs,
                steps,
                lambda _, absent: absent[:, None].astype(np.float32),
                lambda _, absent: _embeddings(len(absent), dimension),
            )

        return _seconds(lambda: adapters.segment_returns(text, look_up(), shown)) / _STEPS
