"""Tests of the frames that a run's VLM sees: those after the actions, each rendered and embedded once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.registries import restored_registries
from builders.runs import finish

from prefvlm_core.agent.replay import Replay
from prefvlm_core.checks.start import check_start
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import Execution
from prefvlm_core.domains import frames
from prefvlm_core.domains.perturbations import CLEAN, Perturbation
from prefvlm_core.methods import run_config
from prefvlm_core.vlm import VLMS, ImageTextModel, encoder

HORIZON = 4


class Counted:
    """A stand-in renderer whose frame is the number in the snapshot, and which counts its frames."""

    drawn = 0

    def __init__(self, task: str, size: int, perturbation: Perturbation) -> None:
        self.brightness = 0 if perturbation == CLEAN else 1000

    def render(self, snapshots: np.ndarray, scenes: np.ndarray) -> np.ndarray:
        Counted.drawn += len(snapshots)
        return snapshots + self.brightness


class Reader(ImageTextModel):
    """A stand-in model whose embedding is (the number in the frame, 0) for a frame and (1, 0) for any text."""

    frame_size, fingerprint = 8, "reader:0"

    def encode_image(self, frames: Any) -> np.ndarray:
        return np.stack((frames[:, 0], np.zeros(len(frames))), axis=1).astype(np.float32)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[1, 0]], np.float32)


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[encoder.RunEncoder]:
    """The second of three runs with three episodes of 4 steps; the frame after step s holds 100 + s, actions are s.

    The third run differs in its view, in which frames hold 1000 more.
    """
    monkeypatch.setattr(frames, "FrameRenderer", Counted)
    monkeypatch.setattr(Counted, "drawn", 0)
    with restored_registries():
        VLMS.register("reader", lambda name, weights: Reader())  # type: ignore[arg-type, return-value]
        yield fleet_encoder(tmp_path).of_run(1)


def fleet_encoder(folder: Path, weights: str = "", models: Sequence[str] = ("reader",) * 3) -> encoder.FleetEncoder:
    changes = {"feedback.segment_length": 2, "vlm.frame_stride": 2, "horizon": HORIZON}
    changes |= {"total_steps": 1_000, "evaluation.every": 20}
    views: list[dict[str, Any]] = [{}, {}, {"view.light": 0.5}]
    configs = [
        run_config("button-press-v3", "vlm-preference", seed, "quick", changes | view | {"vlm.model": model})
        for seed, (view, model) in enumerate(zip(views, models, strict=True))
    ]
    replay = Replay(3, 12, HORIZON, 3, 4, 1, 1, torch.device("cpu"))
    for step in range(12):
        if step % HORIZON == 0:
            replay.begin_episode(torch.zeros(3, 3), np.full((3, 1), -1, np.float32), np.zeros((3, 1), np.float32))
        after = np.array([[0], [100 + step], [100 + step]], np.float32)
        replay.add(torch.full((3, 4), float(step)), torch.zeros(3), torch.zeros(3), torch.zeros(3, 3), after)
    return encoder.FleetEncoder(configs, replay, frames.Renderers(), folder, Stopwatch(), weights)


@pytest.mark.parametrize("beside", ["random", "tinyliv2", "goal:tinyliv"])
def test_only_models_that_read_a_weights_file_are_given_it(tmp_path: Path, beside: str) -> None:
    given = []
    with restored_registries():
        VLMS.register("reader", lambda name, weights: given.append(weights) or Reader())  # type: ignore[func-returns-value]
        fleet_encoder(tmp_path, "model.pt", ["reader", beside, "reader"])
        fleet_encoder(tmp_path, "", ["reader", beside, "reader"])
    assert given == ["model.pt", None]


def test_a_weights_file_that_no_model_of_a_fleet_reads_is_refused(tmp_path: Path) -> None:
    changes = {"vlm.model": "random", "total_steps": 3_000}
    waiting = run_config("button-press-v3", "prefvlm", 0, "quick", changes)
    with pytest.raises(PrefVLMError, match=r"'random' comes with the package and takes no weights file, but got x\.pt"):
        check_start([waiting], Execution(str(tmp_path), vlm_weights="x.pt"))
    reading = run_config("button-press-v3", "prefvlm", 1, "quick", changes | {"vlm.model": "liv"})
    finish(tmp_path, reading)  # the others of a mixed fleet go on with the same command
    check_start([reading, waiting], Execution(str(tmp_path), vlm_weights="x.pt"))


def test_frames_are_those_after_every_second_action(seen: encoder.RunEncoder) -> None:
    frames = seen.frames(np.array([[0, 1], [4, 10]]))
    assert frames[..., 0].tolist() == [[[101], [101]], [[105], [111]]]
    assert seen.zero_shot_returns(frames).tolist() == [[202, 202], [210, 222]]  # each frame stands for two steps


def test_each_frame_is_rendered_once(seen: encoder.RunEncoder) -> None:
    for _ in range(2):
        seen.frames(np.array([[0, 1], [4, 10]]))
    assert Counted.drawn == 3


def test_each_run_sees_its_own_view(seen: encoder.RunEncoder) -> None:
    starts = np.array([[0, 1]])
    disturbed = seen._fleet.of_run(2)
    for _ in range(2):  # rendered, then from the cache
        assert seen.frames(starts)[..., 0].tolist() == [[[101], [101]]]
        assert disturbed.frames(starts)[..., 0].tolist() == [[[1101], [1101]]]


def test_an_episode_is_rewarded_by_the_next_frame_of_each_step(seen: encoder.RunEncoder) -> None:
    assert seen.episode_rewards(1).tolist() == [105, 105, 107, 107]


def test_actions_between_frames_are_those_that_led_from_one_to_the_next(seen: encoder.RunEncoder) -> None:
    seen.length = 4
    starts = np.array([[0, 4]])
    before, after, actions = seen.dynamics(starts, seen.frames(starts))
    assert before[:, 0].tolist() == [101, 105] and after[:, 0].tolist() == [103, 107]
    assert actions.tolist() == [[2.5] * 4, [6.5] * 4]  # steps 2 and 3, steps 6 and 7
