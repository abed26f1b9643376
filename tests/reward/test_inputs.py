"""Tests of what the reward networks see of a step, against positions that the simulator reports."""

import dataclasses

import numpy as np
import pytest
import torch
from builders.registries import restored_registries

from prefvlm_core.agent.replay import Replay
from prefvlm_core.checks.names import check_names
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.groups import RewardConfig
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.relations import hand_object_relations
from prefvlm_core.domains.tasks import ACTION_SIZE, OBSERVATION_SIZE
from prefvlm_core.methods import run_config
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.reward.inputs import REWARD_INPUTS, inputs_of

CPU = torch.device("cpu")
TASK = "drawer-close-v3"
RELATIONS = RewardConfig(inputs="relations", width=16, standardise=True)


def test_relations_are_those_of_the_simulator() -> None:
    """The hand pushes a drawer shut: what is computed from an observation equals what the steps before it showed."""
    environment = Environment("drawer-close-v3", 200)
    before = environment.reset(0)
    moved = 0.0
    for step in range(60):
        toward = before[4:7] - before[0:3] + (0, 0.1, 0.06) if step < 20 else np.array((0, 1.0, -0.2))
        after = environment.step(np.clip(np.append(10 * toward, 0), -1, 1).astype(np.float32))[0]
        found = hand_object_relations(torch.from_numpy(np.asarray(after)[None]))[0].numpy()
        reach, displacement = after[4:7] - after[0:3], after[4:7] - before[4:7]
        expected = (*reach, np.sqrt((reach**2).sum()), *displacement, np.sqrt((displacement**2).sum()))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        moved, before = moved + float(found[7]), after
    assert moved > 0.02


def test_relations_leave_out_the_action() -> None:
    steps = torch.randn(5, OBSERVATION_SIZE + ACTION_SIZE)
    other = torch.cat((steps[:, :OBSERVATION_SIZE], torch.randn(5, ACTION_SIZE)), -1)
    relations = inputs_of("relations", TASK)
    assert relations(steps).shape == (5, OBSERVATION_SIZE + 8)
    assert torch.equal(relations(steps), relations(other))


def test_every_door_of_the_ensemble_sees_the_same_inputs() -> None:
    replay = Replay(1, 100, 50, OBSERVATION_SIZE, ACTION_SIZE, 1, 1, CPU)
    replay.observations[:], replay.actions[:], replay.size = torch.randn(1, 2, 51, 39), torch.rand(1, 100, 4), 100
    ensemble = RewardEnsemble(RELATIONS, OBSERVATION_SIZE + ACTION_SIZE, [np.random.default_rng(0)], CPU, TASK)
    run, of_run = ensemble.of_run(0), replay.of_run(0)
    run.standardise(of_run)
    steps = of_run.inputs(torch.arange(100))
    seen = torch.cat((steps[:, :39], hand_object_relations(steps[:, :39])), -1)
    scaled = (seen - seen.mean(0)) / seen.std(0).clamp(min=0.05)
    ensemble.networks.scaling = None
    expected = torch.tanh(ensemble.networks(scaled.unsqueeze(0)))[0, :, :, 0].detach()
    ensemble.networks.scaling = ensemble.scaling
    torch.testing.assert_close(run.member_rewards(steps).detach(), expected, rtol=1e-4, atol=1e-5)
    predicted = ensemble.predict(steps[7:8, :39], steps[7:8, 39:])
    torch.testing.assert_close(predicted, expected[:, 7].mean(0, keepdim=True), rtol=1e-4, atol=1e-5)
    starts = torch.tensor([[[3, 60]]]).expand(3, 1, 2)
    segments = run.segment_rewards(of_run, starts, 5).detach()
    torch.testing.assert_close(segments[:, 0, 1], expected[:, 60:65], rtol=1e-4, atol=1e-5)
    run.relabel(of_run)
    torch.testing.assert_close(replay.rewards[0], expected.mean(0), rtol=1e-4, atol=1e-5)


def test_own_inputs_can_be_registered_and_unknown_ones_are_refused_before_training() -> None:
    with restored_registries():
        REWARD_INPUTS.register("hand", lambda steps: steps[..., :3])
        ensemble = RewardEnsemble(
            dataclasses.replace(RELATIONS, inputs="hand"), 43, [np.random.default_rng(0)], CPU, TASK
        )
        assert ensemble.networks.sizes[0] == 3
    config = run_config("drawer-close-v3", "pebble", 0, "quick", {"reward.inputs": "relation"})
    with pytest.raises(PrefVLMError, match=r"relation.*Did you mean 'relations'"):
        check_names(config)
