"""Builders that several tests use."""

import numpy as np
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.config.run import RewardConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward.ensemble import RewardEnsemble

CONFIG = RewardConfig(hidden_layers=2, width=32, learning_rate=3e-3, batch_size=32, max_epochs=60)
CPU = torch.device("cpu")


LENGTH = 5


def random_replay(episodes: int = 20, horizon: int = 20) -> Replay:
    """True reward: the first observation."""
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
    starts = replay.draw_segments(np.random.default_rng(seed), count, LENGTH, 100)
    returns = replay.true_segment_rewards(0, starts, LENGTH).sum(-1)
    return PreferenceBuffer(starts, (returns[:, 1] > returns[:, 0]).astype(np.float32))


def ensemble(config: RewardConfig = CONFIG) -> RewardEnsemble:
    return RewardEnsemble(config, 6, [np.random.default_rng(run) for run in range(2)], CPU)
