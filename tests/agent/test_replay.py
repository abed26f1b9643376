"""Tests of the replay against transitions written out one by one."""

import numpy as np
import pytest
import torch

from prefvlm_core.agent.replay import Replay

HORIZON, RUNS = 4, 2


def filled(episodes: int, capacity: int = 16) -> Replay:
    """A replay in which every number is run * 1000 + episode * 100 + step in the episode."""
    replay = Replay(RUNS, capacity, HORIZON, 3, 2, 5, 6, torch.device("cpu"))
    run = torch.arange(RUNS) * 1000.0
    for episode in range(episodes):
        start = run + 100 * episode
        replay.begin_episode(start[:, None].expand(-1, 3), np.tile(start[:, None], 5), np.tile(start[:, None], 6))
        for step in range(HORIZON):
            now = start + step
            after = now + 1
            replay.add(now[:, None].expand(-1, 2), now, -now, after[:, None].expand(-1, 3), np.tile(after[:, None], 5))
    return replay


def test_sampled_transitions_belong_together_and_never_cross_episodes() -> None:
    replay = filled(3)
    batch = replay.sample([np.random.default_rng(run) for run in range(RUNS)], 200)
    now = batch.observations[..., 0]
    assert torch.equal(batch.actions[..., 1], now) and torch.equal(batch.rewards, -now)
    assert torch.equal(batch.next_observations[..., 2], now + 1)
    for run in range(RUNS):
        expected = {run * 1000 + 100 * episode + step for episode in range(3) for step in range(HORIZON)}
        assert set(now[run].int().tolist()) == expected


def test_a_run_samples_the_same_alone_and_in_the_fleet() -> None:
    replay = filled(3)
    together = replay.sample([np.random.default_rng(run) for run in range(RUNS)], 20)
    alone = replay.of_run(1).sample(np.random.default_rng(1), 20)
    assert all(torch.equal(one[0], all_runs[1]) for one, all_runs in zip(alone, together, strict=True))


def test_segments_stay_inside_complete_recent_episodes() -> None:
    replay = filled(4)
    starts = replay.of_run(0).draw_segments(np.random.default_rng(0), 500, 3, recent_episodes=2)
    assert starts.shape == (500, 2)
    assert set(starts.ravel().tolist()) == {8, 9, 12, 13}  # episodes 2 and 3, starts 0 and 1
    rewards = replay.of_run(1).true_segment_rewards(np.array([[8, 13]]), 3)
    assert rewards.tolist() == [[[1200, 1201, 1202], [1301, 1302, 1303]]]
    assert replay.of_run(1).true_labels(np.array([[8, 13], [13, 8], [8, 8]]), 3).tolist() == [1, 0, 0.5]


def test_reward_inputs_are_observation_and_action_of_the_same_step() -> None:
    replay = filled(2)
    inputs = replay.of_run(1).inputs(torch.tensor([[0, 5]]))
    assert inputs.tolist() == [[[1000.0] * 5, [1101.0] * 5]]
    assert replay.of_run(0).seen_observations()[:, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]


def test_recent_return_is_the_mean_over_the_last_episodes() -> None:
    replay = filled(3)
    assert replay.of_run(0).recent_return(episodes=1) == 200 + 201 + 202 + 203
    assert replay.of_run(0).recent_return() == pytest.approx((6 + 406 + 806) / 3)


def test_pieces_put_together_give_the_replay_back() -> None:
    replay, copy = filled(4), filled(0)
    copy.append_piece(replay.piece(0, 4))
    copy.append_piece(replay.piece(4, 16))
    assert copy.size == 16
    for name in ("observations", "actions", "true_rewards"):
        assert torch.equal(getattr(copy, name), getattr(replay, name)), name
    assert (copy.snapshots == replay.snapshots).all() and (copy.scenes == replay.scenes).all()


def test_memory_per_step_stays_below_300_bytes() -> None:
    """With Meta-World's sizes: 39 observations, 4 actions, snapshots of up to 21 and scenes of up to 321 floats."""
    replay = Replay(1, 5_000, 250, 39, 4, 21, 321, torch.device("cpu"))
    tensors = [replay.observations, replay.actions, replay.true_rewards, replay.rewards]
    size = sum(tensor.numel() * 4 for tensor in tensors) + replay.snapshots.nbytes + replay.scenes.nbytes
    assert size / 5_000 < 300


def test_a_view_of_a_run_shares_the_memory_of_the_fleet() -> None:
    replay = filled(2)
    view = replay.of_run(1)
    view.rewards[3] = 42
    assert replay.rewards[1, 3] == 42 and replay.rewards[0, 3] != 42 and view.size == 8
    replay.begin_episode(torch.zeros(2, 3), np.zeros((2, 5), np.float32), np.zeros((2, 6), np.float32))
    replay.add(torch.ones(2, 2), torch.ones(2), torch.ones(2), torch.ones(2, 3), np.ones((2, 5), np.float32))
    assert view.size == 9 and view.complete_episodes == 2 and view.true_rewards[8] == 1


def test_a_steps_frame_shows_what_its_action_did() -> None:
    replay = filled(3)
    snapshots, scenes = replay.shown(np.array([0, 1]), np.array([0, 7]))
    assert snapshots[:, 0].tolist() == [1, 1104] and scenes[:, 0].tolist() == [0, 1100]
    assert replay.of_run(1).shown(np.array([7]))[0][0, 0] == 1104
