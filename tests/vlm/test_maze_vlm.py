"""The mazes' TinyLIV: its recipe in a tiny size, and what the shipped weights say of balls on their way."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.registry import MAZES, domain_of
from prefvlm_core.methods import run_config
from prefvlm_core.vlm import load
from prefvlm_core.vlm.pretraining import pretrain
from prefvlm_core.vlm.pretraining.demonstrations import successful_episodes
from prefvlm_core.vlm.pretraining.pretrain import RECIPES, zero_shot_labels
from prefvlm_core.vlm.pretraining.recordings import expert_episodes, play, record_mixed_behaviors
from prefvlm_core.vlm.tinyliv import TinyLIV

pytest.importorskip("gymnasium_robotics", reason="needs the extra navigation")
NAME = "tinyliv2-maze"


def test_its_recipe_trains_on_all_mazes_and_is_judged_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RECIPES[NAME].tasks == MAZES and len(MAZES) == 6
    tiny = replace(RECIPES[NAME], clean=1, recoveries=1, steps=2, batch=(6, 2))
    monkeypatch.setitem(RECIPES, NAME, tiny)
    monkeypatch.setattr(pretrain, "accuracy_table", lambda models, tasks, seed: f"{len(models[NAME])} on {tasks}")
    assert pretrain.pretrain(NAME, (0,), tmp_path, 5) == f"1 on {MAZES}"
    trained = TinyLIV.load(tmp_path / "seed0" / f"{NAME}.safetensors")
    assert {"ball", "green", "maze", "red", "yellow"} <= set(trained.vocabulary)


def test_its_films_of_several_stages_count_the_steps_through_all_of_them() -> None:
    task = "maze-three-goals"
    for episode in successful_episodes(task, 1, 2, np.random.default_rng(0)):
        visited, remaining = episode.snapshots[:, 2], episode.remaining
        assert (np.diff(visited) >= 0).all() and visited[0] < visited[-1] == 3
        reached = int((visited == 3).argmax())  # the first state of success
        np.testing.assert_array_equal(remaining[: reached + 1], np.arange(reached, -1, -1))
        assert not remaining[reached:].any()


def test_the_mazes_are_judged_by_it_in_every_profile() -> None:
    for task in MAZES:
        for profile in ("quick", "laptop", "paper"):
            assert domain_of(task).profiles[profile]["vlm.model"] == NAME
        assert run_config(task, "prefvlm", 0, "laptop").vlm.model == NAME


def test_it_labels_most_pairs_right() -> None:
    labels = zero_shot_labels(load(NAME), record_mixed_behaviors("point-maze-u", 16, seed=11), 1000, seed=12)
    assert labels.correct.mean() > 0.7


def test_its_cosine_rises_from_stage_to_stage() -> None:
    task, model = "maze-four-goals", load(NAME)
    generator = np.random.default_rng(3)
    episodes = play(task, expert_episodes(task, 0.2, 6, generator), steps=500)
    with closing(FrameRenderer(task)) as renderer:
        recording = episodes.seen_by(renderer)
    cosines = model.encode_image(recording.frames.reshape(-1, 64, 64, 3)) @ model.encode_task(task)
    visited = episodes.snapshots[..., 2].ravel()
    means = [cosines[visited == stage].mean() for stage in range(5)]
    assert (np.diff(means) > 0).all(), means
