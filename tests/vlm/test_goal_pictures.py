"""Tests of tasks known by pictures of their goal: which pictures, what models make of them, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefvlm_core import register_goal_pictures
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Expert, RandomActions
from prefvlm_core.vlm import goal_pictures as module
from prefvlm_core.vlm import load
from prefvlm_core.vlm.goal_pictures import GoalPictures, goal_pictures
from prefvlm_core.vlm.pretraining.recordings import record

TASK = "drawer-close-v3"


class MeanColor:
    """An image encoder whose embedding is the direction of the mean color."""

    frame_size, fingerprint = 24, "mean-color"

    def encode_image(self, frames: np.ndarray) -> np.ndarray:
        colors = frames.mean((1, 2), dtype=np.float32) + 1
        return colors / np.linalg.norm(colors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_registered", {})


def picture(level: int, side: int = 24) -> np.ndarray:
    return np.full((side, side, 3), (level, 10, 20), np.uint8)


# ---- which pictures


def test_every_picture_shows_a_finished_task() -> None:
    """The handle of the drawer is as far back as Meta-World's criterion asks, and starts 15 cm in front of it."""
    finished = module._finished(TASK)
    environment = Environment(TASK)
    environment.reset(0)
    slides = [snapshot[9] for snapshot in (environment.snapshot(), *finished.snapshots)]  # after the arm's 9 joints
    assert slides[0] == pytest.approx(-0.15) and len(slides) == 1 + module.PICTURES
    assert all(abs(slide) < 0.06 for slide in slides[1:])
    assert len({scene.tobytes() for scene in finished.scenes}) == module.PICTURES  # each with another goal


def test_pictures_are_the_same_at_every_call() -> None:
    first = goal_pictures(TASK, 32)
    module._finished.cache_clear()
    np.testing.assert_array_equal(goal_pictures(TASK, 32), first)
    assert first.shape == (module.PICTURES, 32, 32, 3) and first.dtype == np.uint8
    assert not np.array_equal(goal_pictures("drawer-open-v3", 32), first)


def test_a_task_is_the_mean_of_its_pictures() -> None:
    encoder = MeanColor()
    mean = encoder.encode_image(goal_pictures(TASK, 24)).mean(0)
    np.testing.assert_allclose(GoalPictures(encoder).encode_task(TASK), mean / np.linalg.norm(mean), rtol=1e-6)


def test_frames_of_success_are_closest_to_the_goal() -> None:
    """In an episode of the expert, of other seeds than the pictures', against its start and random actions."""
    generator = np.random.default_rng(0)
    recording = record(TASK, [(Expert(TASK, 0.0, generator), 5), (RandomActions(TASK, generator), 5)])
    model = load("goal:tinyliv")
    scores = model.encode_image(recording.frames.reshape(-1, 64, 64, 3)) @ model.encode_task(TASK)
    expert, random = scores.reshape(2, -1)
    success = recording.successes[0].reshape(-1, 5).any(1)
    first = int(success.argmax())
    assert 0 < first < 30
    assert expert[first : first + 3].min() > max(expert[0], random.max())


# ---- any model


def test_a_model_keeps_its_frames_and_gives_up_its_text() -> None:
    plain, pictured = load("tinyliv"), load("goal:tinyliv")
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(pictured.encode_image(frames), plain.encode_image(frames))
    assert pictured.frame_size == plain.frame_size == 64
    assert plain.encode_task(TASK) @ pictured.encode_task(TASK) < 0.9
    assert re.fullmatch(rf"{plain.fingerprint}-goals-[0-9a-f]{{8}}", pictured.fingerprint)


def test_what_the_model_refuses_is_refused() -> None:
    with pytest.raises(PrefVLMError, match="Did you mean 'tinyliv'"):
        load("goal:tinylv")
    with pytest.raises(PrefVLMError, match=r"'tinyliv' comes with the package and takes no weights file"):
        load("goal:tinyliv", "x.pt")
    with pytest.raises(PrefVLMError, match="Unknown task 'drawer-v3'"):
        load("goal:random").encode_task("drawer-v3")


def test_an_expert_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle(Expert):
        def __call__(self, observation: np.ndarray, step: int) -> np.ndarray:
            return np.zeros(4, np.float32)

    monkeypatch.setattr(module, "Expert", Idle)
    monkeypatch.setattr(module, "PICTURES", 1)
    monkeypatch.setattr(module, "_LONGEST_EPISODE", 3)
    with pytest.raises(PrefVLMError, match=r"expert of 'door-open-v3' succeeded in only 0 of 10 .* of your own"):
        goal_pictures("door-open-v3", 32)


# ---- pictures of one's own


def test_registered_pictures_replace_the_experts(tmp_path: Path) -> None:
    Image.fromarray(picture(200, side=48)).save(tmp_path / "photo.png")
    register_goal_pictures(TASK, [picture(100), str(tmp_path / "photo.png")])
    assert goal_pictures(TASK, 24).tolist() == [picture(100).tolist(), picture(200).tolist()]
    encoder = MeanColor()
    mean = encoder.encode_image(np.stack([picture(100), picture(200)])).mean(0)
    np.testing.assert_allclose(GoalPictures(encoder).encode_task(TASK), mean / np.linalg.norm(mean), rtol=1e-6)
    register_goal_pictures(TASK, [picture(3)])
    assert len(goal_pictures(TASK, 16)) == 1


def test_the_fingerprint_names_registered_pictures() -> None:
    def fingerprint() -> str:
        return GoalPictures(MeanColor()).fingerprint

    seen = [fingerprint(), fingerprint()]
    for level in (1, 2, 1):
        register_goal_pictures(TASK, [picture(level)])
        seen.append(fingerprint())
    assert seen[0] == seen[1] and seen[2] == seen[4] and len(set(seen)) == 3


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ([], "No pictures of the goal of 'drawer-close-v3' were given"),
        ([np.zeros((8, 9, 3), np.uint8)], r"must be square, .* but an array is \(8, 9, 3\) uint8"),
        ([np.zeros((8, 8, 3))], r"an array is \(8, 8, 3\) float64"),
        ([np.zeros((0, 0, 3), np.uint8)], r"an array is \(0, 0, 3\) uint8"),
        ([np.zeros((8, 8), np.uint8)], r"an array is \(8, 8\) uint8"),
        (["nowhere.png"], r"picture nowhere\.png of the goal of 'drawer-close-v3' cannot be read: .*No such file"),
        ([__file__], r"test_goal_pictures\.py of the goal .* cannot be read: cannot identify image"),
    ],
)
def test_what_is_no_picture_is_refused(pictures: list, said: str) -> None:
    with pytest.raises(PrefVLMError, match=said):
        register_goal_pictures(TASK, pictures)
    assert module._registered == {}
    with pytest.raises(PrefVLMError, match="Did you mean 'drawer-close-v3'"):
        register_goal_pictures("drawer-close", [picture(1)])
