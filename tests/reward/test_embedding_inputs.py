"""Rewards learned from the VLM's embedding of each step's frame, in place of the state."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.runs import SMALL, quiet, tiny, weights_hash, without_seconds

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.runs.checkpoint import lock_runs
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.fleet_state import FleetState
from prefvlm_core.train import Fleet, train
from prefvlm_core.vlm import load

EMBEDDED = SMALL | {
    "reward.inputs": "embedding",
    "reward.standardise": True,
    "vlm.model": "tinyliv2",
    "vlm.frame_stride": 1,
    "feedback.session_every": 35,  # in the middle of episodes too
}


def configs() -> list[RunConfig]:
    return [tiny(method, **EMBEDDED) for method in ("pebble", "prefvlm", "sac")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A trained fleet, with its replay."""
    results = tmp_path_factory.mktemp("embedded")
    directories = [RunDirectory(results, config) for config in configs()]
    tasks = [config.task for config in configs()]
    with lock_runs(directories, results), EnvironmentFleet(tasks, 50, 1, 5) as environments:
        for directory in directories:
            directory.open()
        trained = Fleet(directories, environments, quiet(results))
        trained.train()
    return trained


def test_the_ensemble_sees_the_frame_after_each_step_and_nothing_else(fleet: Fleet) -> None:
    replay, model = fleet.replay, load("tinyliv2")
    steps = np.array([0, 49, 50, 399])
    renderer = FrameRenderer("button-press-v3", 64)
    for run in (0, 1):
        frames = renderer.render(*replay.shown(np.full(4, run), steps))
        seen = replay.of_run(run).inputs(torch.from_numpy(steps))
        torch.testing.assert_close(seen, torch.from_numpy(model.encode_image(frames)), rtol=1e-3, atol=1e-4)
    renderer.close()
    assert fleet.ensemble.networks.sizes[0] == 128


def test_every_step_has_the_reward_of_todays_ensemble(fleet: Fleet) -> None:
    replay = fleet.replay
    for run in (0, 1):
        of_run = replay.of_run(run)
        expected = fleet.ensemble.of_run(run).member_rewards(of_run.inputs(torch.arange(400))).mean(0)
        torch.testing.assert_close(replay.rewards[run], expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(replay.rewards[2], replay.true_rewards[2])  # sac
    rows = fleet.directories[0].read_metrics()
    assert rows[-1]["human_labels"] == 20 and rows[-1]["reward_accuracy"] > 0


def test_interrupted_and_resumed_it_ends_bit_identical(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = quiet(tmp_path, checkpoint_seconds=0.0)
    save, saves = FleetState.save, []

    def stop_after_three(state: FleetState) -> None:
        save(state)
        saves.append(state)
        if len(saves) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FleetState, "save", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            train(configs(), execution)
    for before, resumed in zip(fleet.directories, train(configs(), execution), strict=True):
        assert without_seconds(resumed) == without_seconds(before)
        assert weights_hash(resumed) == weights_hash(before)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("prefvlm", {"vlm.model": "simulated:0.8", "adapter.enabled": False}, "gives none; choose another"),
        ("pebble", {"vlm.frame_stride": 5}, "frame after every action"),
        ("rune", {}, "only after an episode"),
        ("mrn", {}, "only after an episode"),
        ("rime", {}, "only after an episode"),
    ],
)
def test_what_does_not_go_together_is_refused(method: str, changes: dict, message: str) -> None:
    with pytest.raises(PrefVLMError, match=message):
        tiny(method, **EMBEDDED | changes)
