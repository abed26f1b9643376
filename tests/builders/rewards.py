"""Builders of replays, labels, ensembles and learners for tests."""

from typing import Any

import numpy as np
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.config.groups import FeedbackConfig, RewardConfig
from prefvlm_core.config.run import RunConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.preferences.selection import PairSource
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.reward.learning import Learning, LearningSetting, Outcome, learn_together

CONFIG = RewardConfig(hidden_layers=2, width=32, learning_rate=3e-3, batch_size=32, max_epochs=60)
CPU = torch.device("cpu")


LENGTH = 5


def random_replay(episodes: int = 20, horizon: int = 20) -> Replay:
    """A replay of two runs with random observations, in which the true reward is the first observation."""
    replay = Replay(2, episodes * horizon, horizon, 4, 2, 1, 1, CPU)
    generator = torch.Generator().manual_seed(0)
    empty = np.zeros((2, 1), np.float32)
    for _ in range(episodes):
        observations = torch.randn(2, 4, generator=generator)
        replay.begin_episode(observations, empty, empty)
        for _ in range(horizon):
            following = torch.randn(2, 4, generator=generator)
            actions = torch.rand(2, 2, generator=generator)
            replay.add(actions, observations[:, 0], torch.zeros(2), following, empty)
            observations = following
    return replay


def labelled(replay: Replay, count: int, seed: int) -> PreferenceBuffer:
    """Random pairs of run 0, labeled by the true reward."""
    seen = replay.of_run(0)
    starts = seen.draw_segments(np.random.default_rng(seed), count, LENGTH, 100)
    returns = seen.true_segment_rewards(starts, LENGTH).sum(-1)
    return PreferenceBuffer(starts, (returns[:, 1] > returns[:, 0]).astype(np.float32))


def ensemble(config: RewardConfig = CONFIG) -> RewardEnsemble:
    return RewardEnsemble(config, 6, [np.random.default_rng(run) for run in range(2)], CPU, "drawer-close-v3")


def setting(replay: Replay, rewards: RewardEnsemble, seed: int, **groups: Any) -> LearningSetting:
    """What a learner of run 0 works with; `groups` are groups of a `RunConfig`, for example surf=SURFConfig()."""
    changes = {"total_steps": 10_000, "horizon": 20, "reward": rewards.config} | groups
    config = RunConfig(
        "drawer-close-v3", "pebble", 0, "paper", feedback=FeedbackConfig(segment_length=LENGTH), **changes
    )
    generator = np.random.default_rng(seed)
    pairs = PairSource(config, replay.of_run(0), generator)
    return LearningSetting(config, rewards.of_run(0), replay.of_run(0), pairs, generator)


def learned(replay: Replay, rewards: RewardEnsemble, learning: Learning[Outcome]) -> Outcome:
    """The outcome of what run 0 learns."""
    return learn_together(rewards, replay, {0: learning})[0]


def accuracy(replay: Replay, rewards: RewardEnsemble, held_out: PreferenceBuffer) -> float:
    """Fraction of run 0's held-out labels that its ensemble agrees with."""
    returns = rewards.of_run(0).member_returns(replay.of_run(0), held_out.starts, LENGTH).mean(0)
    return float(((returns[:, 1] > returns[:, 0]).numpy() == held_out.labels).mean())
