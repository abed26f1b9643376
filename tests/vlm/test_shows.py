"""What the VLM is shown: how frames differ, against differences computed from single frames by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.runs import quiet, small, weights_hash, without_seconds

from prefvlm_core.agent.replay import Replay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import RunConfig, replace
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer, Renderers, difference
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.fleet_state import FleetState
from prefvlm_core.train import train
from prefvlm_core.vlm import load
from prefvlm_core.vlm.encoder import FleetEncoder

HORIZON = 4
DIFFERENCE = {"vlm.shows": "difference"}
TASKS = {  # of every domain -> the module that it needs
    "button-press-v3": "metaworld",
    "point-maze-u": "gymnasium_robotics",
    "maze-two-goals": "gymnasium_robotics",
    "walker-walk": "dm_control",
    "cheetah-run": "dm_control",
}


def by_hand(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """128 and half the change, rounded down, pixel by pixel in whole numbers."""
    pixels = zip(before.ravel().tolist(), after.ravel().tolist(), strict=True)
    return np.array([128 + (new - old) // 2 for old, new in pixels], np.uint8).reshape(after.shape)


def test_every_change_of_a_pixel_has_its_place_around_mid_gray() -> None:
    before, after = (np.array(values, np.uint8) for values in ([255, 0, 9, 0, 1, 0, 2], [0, 255, 9, 1, 0, 2, 0]))
    assert difference(before, after).tolist() == [0, 255, 128, 128, 127, 129, 127]
    values = np.arange(256, dtype=np.uint8)
    before, after = np.repeat(values, 256), np.tile(values, 256)
    np.testing.assert_array_equal(difference(before, after), by_hand(before, after))


def played(task: str, episodes: int = 2) -> tuple[Replay, list[np.ndarray], list[np.ndarray]]:
    """A replay of one run with random actions, and by episode its snapshots (HORIZON + 1, S) and scene (C,)."""
    environment, sizes = Environment(task, HORIZON, action_repeat=5), sizes_of(task)
    environment.reset(0)
    size, scene_size = len(environment.snapshot()), len(environment.scene())
    replay = Replay(
        2, episodes * HORIZON, HORIZON, sizes.observation, sizes.action, size, scene_size, torch.device("cpu")
    )
    generator, snapshots, scenes = np.random.default_rng(0), [], []
    nothing, unknown = torch.zeros(2), torch.zeros(2, sizes.observation)
    for episode in range(episodes):
        environment.reset(episode)
        snapshots.append([environment.snapshot()])
        scenes.append(environment.scene())
        replay.begin_episode(unknown, np.stack(2 * [snapshots[-1][0]]), np.stack(2 * [scenes[-1]]))
        for _ in range(HORIZON):
            action = generator.uniform(-1, 1, sizes.action).astype(np.float32)
            environment.step(action)
            snapshots[-1].append(environment.snapshot())
            actions = torch.from_numpy(np.stack(2 * [action]))
            replay.add(actions, nothing, nothing, unknown, np.stack(2 * [snapshots[-1][-1]]))
    return replay, [np.stack(of_episode) for of_episode in snapshots], scenes


def runs_of(task: str, stride: int = 1) -> list[RunConfig]:
    """One run that is shown frames, and one that is shown differences."""
    changes = {"horizon": HORIZON, "feedback.segment_length": 2, "vlm.frame_stride": stride, "vlm.model": "tinyliv2"}
    changes |= {"total_steps": 1_000, "evaluation.every": 20}
    return [run_config(task, "vlm-preference", 0, "quick", changes | {"vlm.shows": s}) for s in ("frame", "difference")]


@pytest.mark.parametrize("task", TASKS)
def test_the_vlm_sees_what_an_action_changed_in_every_domain(task: str, tmp_path: Path) -> None:
    pytest.importorskip(TASKS[task])
    replay, snapshots, scenes = played(task)
    encoder = FleetEncoder(runs_of(task), replay, Renderers(), tmp_path, Stopwatch())
    renderer = FrameRenderer(task)
    frames = [
        renderer.render(of_episode, np.repeat(scene[None], HORIZON + 1, axis=0))
        for of_episode, scene in zip(snapshots, scenes, strict=True)
    ]
    renderer.close()
    steps = np.array([5, 0, 3, 4, 7])  # in any order; 0 and 4 begin an episode, 3 and 7 end one
    single, seen = (encoder.pictures(run, steps, 64) for run in (0, 1))
    for place, (episode, step) in enumerate(divmod(step, HORIZON) for step in steps.tolist()):
        before, after = frames[episode][step : step + 2]
        np.testing.assert_array_equal(single[place], after)
        np.testing.assert_array_equal(seen[place], by_hand(before, after))
        assert (seen[place] != 128).any()
    expected = load("tinyliv2").encode_image(seen)
    np.testing.assert_allclose(encoder.features(1, steps), expected, atol=2e-3)
    assert np.abs(encoder.features(0, steps) - expected).max() > 0.05
    encoder.close()


def test_with_a_stride_the_difference_is_that_of_the_last_action(tmp_path: Path) -> None:
    replay, *_ = played("button-press-v3")
    every = FleetEncoder(runs_of("button-press-v3"), replay, Renderers(), tmp_path / "1", Stopwatch())
    second = FleetEncoder(runs_of("button-press-v3", stride=2), replay, Renderers(), tmp_path / "2", Stopwatch())
    seen = second.of_run(1).frames(np.array([0, 4]))
    np.testing.assert_allclose(seen[:, 0], every.features(1, np.array([1, 5])), atol=2e-3)
    for encoder in (every, second):
        encoder.close()


def test_caches_tell_frames_and_differences_apart_and_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, *_ = played("button-press-v3")
    steps, configs = np.arange(8), runs_of("button-press-v3")
    first = FleetEncoder(configs, replay, Renderers(), tmp_path, Stopwatch())
    known = [first.features(run, steps) for run in (0, 1)]
    print_of_weights = load("tinyliv2").fingerprint
    size = f"2x8x{known[0].shape[1]}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"frames-{print_of_weights}-{size}.bin",
        f"frames-{print_of_weights}-difference-{size}.bin",
    ]
    drawn: list[int] = []
    render = FrameRenderer.render

    def counted(self: FrameRenderer, snapshots: np.ndarray, scenes: np.ndarray) -> np.ndarray:
        drawn.append(len(snapshots))
        return render(self, snapshots, scenes)

    monkeypatch.setattr(FrameRenderer, "render", counted)
    resumed = FleetEncoder(configs, replay, Renderers(), tmp_path, Stopwatch())
    for run in (0, 1):
        np.testing.assert_array_equal(resumed.features(run, steps), known[run])
    assert drawn == []
    swapped = FleetEncoder(configs[::-1], replay, Renderers(), tmp_path, Stopwatch())
    np.testing.assert_allclose(swapped.features(0, steps), known[1], atol=2e-3)
    assert drawn == [10]  # two episodes of four actions have ten pictures, each drawn once
    resumed.close()
    assert not tmp_path.exists()  # nothing else was in it


def test_killed_and_resumed_it_ends_bit_identical_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = {"reward.inputs": "embedding", "vlm.frame_stride": 1, "vlm.model": "tinyliv2"}
    fleets = [  # the ensembles of a fleet see embeddings in all of its runs or in none
        [small("prefvlm", DIFFERENCE), small("prefvlm"), small("vlm-reward", DIFFERENCE)],
        [small("pebble", embedded | DIFFERENCE)],
    ]
    save, saves = FleetState.save, []

    def stop_after_five(state: FleetState) -> None:
        save(state)
        saves.append(state)
        if len(saves) == 5:
            raise KeyboardInterrupt

    for number, configs in enumerate(fleets):
        saves.clear()
        whole = train(configs, quiet(tmp_path / f"whole-{number}"))
        execution = quiet(tmp_path / f"parts-{number}", checkpoint_seconds=0.0)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(FleetState, "save", stop_after_five)
            train(configs, execution)
        resumed = train(configs, dataclasses.replace(execution, workers=2))
        for before, after in zip(whole, resumed, strict=True):
            assert without_seconds(after) == without_seconds(before)
            assert weights_hash(after) == weights_hash(before)
    fingerprint = load(small("prefvlm").vlm.model).fingerprint
    read = RunDirectory(tmp_path / "whole-0", fleets[0][0]), RunDirectory(tmp_path / "whole-0", fleets[0][1])
    assert [run.manifest["vlm_fingerprint"] for run in read] == [f"{fingerprint}-difference", fingerprint]
    assert [run.manifest["frames"] for run in read] == [
        "after the action, less the one before it",
        "after the action",
    ]
    differ, alike = (run.read_metrics()[-1] for run in read)
    assert differ["vlm_accuracy"] != alike["vlm_accuracy"]
    wrong = replace(fleets[0][0], {"adapter.source": read[1].config.run_id})
    with pytest.raises(PrefVLMError, match=f"{fingerprint}-difference"):
        train([wrong], quiet(tmp_path / "whole-0"))


def test_only_frames_are_shown_to_an_endpoint() -> None:
    changes = {"vlm.model": "endpoint:some", "vlm.ties": "drop", "adapter.enabled": False}
    config = run_config("button-press-v3", "prefvlm", 0, "quick", changes)
    with pytest.raises(PrefVLMError, match=r"endpoint:some sees several frames .* so it sees motion already; set vlm"):
        replace(config, DIFFERENCE)


def test_what_is_shown_is_part_of_a_runs_name_and_the_default_is_not() -> None:
    frame, difference = (run_config("walker-walk", "prefvlm", 0, "laptop", changes) for changes in ({}, DIFFERENCE))
    assert frame.hash != difference.hash
    text = frame.to_json().replace(' "shows": "frame",\n', "")
    assert "shows" not in text and RunConfig.from_json(text).hash == frame.hash
