"""Beds hold what really happened: replays are simulated again, mixed episodes and films compared with recordings."""

import dataclasses

import numpy as np
import pytest
from builders.runs import quiet, tiny

from prefvlm_core.analysis import beds
from prefvlm_core.analysis.beds import CHOOSING_SEED, PLANS, REPORTING_SEED, replay_bed, replay_configs
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.seeding import episode_seed
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.train import train
from prefvlm_core.vlm.pretraining.recordings import segment_returns


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    (directory,) = train([tiny("sac")], quiet(tmp_path_factory.mktemp("kept"), keep_replay=True))
    return directory


def test_a_replay_shows_what_the_run_has_seen(kept):
    """Its actions, in new environments with the seeds of its episodes, lead to its rewards, states and frames."""
    bed, config, episode = replay_bed(kept, 16), kept.config, 3
    actions = kept.read_replay()["actions"].numpy().reshape(-1, 50, 4)
    assert bed.frames.shape == (8, 25, 16, 16, 3) and bed.segment == 5 and (bed.task, bed.draw) == (config.task, "sac")
    environment = Environment(config.task, 50, action_repeat=config.action_repeat)
    environment.reset(episode_seed(config.seed, episode))
    renderer = FrameRenderer(config.task, 16)
    for frame in range(25):
        held = actions[episode, 2 * frame : 2 * frame + 2]
        (_, first, _), (observation, second, _) = (environment.step(action) for action in held)
        picture = renderer.render(environment.snapshot()[None], environment.scene()[None])[0]
        np.testing.assert_array_equal(bed.frames[episode, frame], picture)
        assert bed.rewards[episode, frame] == pytest.approx(first + second, rel=1e-5)
        np.testing.assert_allclose(bed.states[episode, frame, :-1], observation, atol=1e-6)
        distance = np.linalg.norm(observation[:3] - observation[4:7])
        assert bed.states[episode, frame, -1] == pytest.approx(distance, rel=1e-5)
        np.testing.assert_allclose(bed.actions[episode, frame], held.mean(0), atol=1e-6)
    renderer.close()


def test_a_run_that_kept_no_replay_says_so(tmp_path):
    config = dataclasses.replace(tiny("sac"), total_steps=100)
    (directory,) = train([config], quiet(tmp_path))
    with pytest.raises(PrefVLMError, match=r"There is no .*replay\.safetensors: a run keeps .* only if .* keep_replay"):
        replay_bed(directory, 16)


def test_replays_are_kept_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(beds, "replay_configs", lambda profile, seed: [tiny("sac", seed, total_steps=100)])
    (directory,) = beds.kept_replays("quick", quiet(tmp_path), seed=7)
    assert directory.path.is_relative_to(tmp_path / "quick" / "replays") and directory.config.seed == 7
    assert directory.read_replay()["actions"].shape == (100, 4)


def test_a_mixed_bed_sums_the_rewards_between_its_frames():
    bed = beds.mixed_bed("drawer-close-v3", 0, 4, 16)
    again = beds.record_mixed_behaviors("drawer-close-v3", 4, beds._SEED)
    assert bed.frames.shape == (4, 40, 16, 16, 3) and bed.states is None and bed.segment == 10
    sums = np.lib.stride_tricks.sliding_window_view(bed.rewards, 10, axis=1).sum(2)
    np.testing.assert_allclose(sums, segment_returns(again.rewards))
    np.testing.assert_allclose(bed.actions[1, 2], again.actions[1, 10:15].mean(0), rtol=1e-6)
    assert (beds.mixed_bed("drawer-close-v3", 1, 4, 16).rewards != bed.rewards).any()


@pytest.mark.filterwarnings("ignore:Constant")  # the expert asks for more than the environment allows
def test_the_expert_succeeds_in_its_films():
    films = beds.expert_films("drawer-close-v3", 0, 2, 16)
    assert films.frames.shape == (2, 40, 16, 16, 3) and films.successes.shape == (2, 40)
    assert films.successes.any(axis=1).all() and not films.successes[:, 0].any()


@pytest.mark.parametrize("profile", PLANS)
def test_the_replays_of_a_profile_are_two_learners_on_each_task(profile):
    plan, configs = PLANS[profile], replay_configs(profile)
    assert [(config.task, config.method) for config in configs] == [
        (task, method) for task in plan.tasks for method in ("sac", "pebble")
    ]
    assert {config.seed for config in configs} == {REPORTING_SEED} != {CHOOSING_SEED}
    for config, budget in zip(configs[1::2], plan.budgets, strict=True):
        assert config.feedback.budget == budget and config.reward.standardise
        assert config.feedback.first_session_queries + 12 * config.feedback.session_queries >= budget
    assert plan.draws >= 2 and plan.episodes >= 12


def test_every_profile_has_beds():
    assert set(PLANS) == set(PROFILES)
    with pytest.raises(PrefVLMError, match="labtop"):
        beds.plan_of("labtop")
