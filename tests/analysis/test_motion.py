"""The measurement of bodies in motion, against rewards that are made to be what the VLM sees."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from prefvlm_core.analysis import motion
from prefvlm_core.analysis.motion import COLUMNS, KINDS, PLANS, SHOWN, accuracy_table, motion_in_words
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.machine import one_thread
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.vlm import load
from prefvlm_core.vlm.labeller import FrozenVLM, Judgement

HORIZON, EPISODES = 50, 20  # of the runs of profile quick


@pytest.fixture(scope="module")
def kept() -> dict[str, torch.Tensor]:
    """What a run of walker-walk with random actions would keep; its rewards are still to be set."""
    pytest.importorskip("dm_control", reason="needs the extra dmc")
    environment, generator = Environment("walker-walk", HORIZON, action_repeat=5), np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (EPISODES, HORIZON, 6)).astype(np.float32)
    observations, snapshots = [], []
    for episode in range(EPISODES):
        observations.append([environment.reset(episode)])
        snapshots.append([environment.snapshot()])
        for action in actions[episode]:
            observations[-1].append(environment.step(action)[0])
            snapshots[-1].append(environment.snapshot())
    return {
        "observations": torch.tensor(np.array(observations, np.float32)),
        "actions": torch.from_numpy(actions.reshape(-1, 6)),
        "true_rewards": torch.zeros(EPISODES * HORIZON),
        "snapshots": torch.tensor(np.array(snapshots)),
        "scenes": torch.zeros(EPISODES, 1),
    }


def run_with(kept: dict[str, torch.Tensor], rewards: np.ndarray) -> Any:
    """A stand-in for the folder of the first run of profile quick."""
    replay = kept | {"true_rewards": torch.from_numpy(rewards.astype(np.float32))}
    return SimpleNamespace(config=motion.replay_configs("quick")[0], read_replay=lambda: replay)


@one_thread()
def cosines_by_hand(kept: dict[str, torch.Tensor], shows: str) -> np.ndarray:
    """The cosine of the text and what is shown of every step, from pictures drawn here."""
    model, renderer, values = load("tinyliv2"), FrameRenderer("walker-walk"), []
    for snapshots in kept["snapshots"].numpy():
        pictures = renderer.render(snapshots, np.zeros((HORIZON + 1, 1), np.float32)).astype(int)
        before, after = pictures[:-1], pictures[1:]
        shown = after if shows == "frame" else 128 + np.floor((after - before) / 2).astype(int)
        values.append(model.encode_image(shown.astype(np.uint8)) @ model.encode_task("walker-walk"))
    renderer.close()
    return np.concatenate(values)


@pytest.mark.parametrize("shows", SHOWN)
def test_a_reward_that_is_the_cosine_of_what_is_shown_is_labeled_rightly(
    kept: dict[str, torch.Tensor], shows: str
) -> None:
    measured = motion.measure(run_with(kept, cosines_by_hand(kept, shows)))
    assert tuple(measured) == COLUMNS and len(measured) == 2 * 2
    assert (measured["task"] == "walker-walk").all() and (
        measured["seed"] == motion.replay_configs("quick")[0].seed
    ).all()
    right = measured.groupby("shows")["zero_shot"]
    assert right.min()[shows] > 0.98  # embeddings are kept in float16
    assert right.max()[({*SHOWN} - {shows}).pop()] < 0.9


def test_lessons_and_questions_are_of_different_episodes_and_the_same_for_frames_and_differences(
    kept: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards, taught, asked = np.random.default_rng(3).random(EPISODES * HORIZON), [], []

    class Spy(FrozenVLM):
        """Answers that the first segment of every pair is better, and looks at nothing."""

        def __init__(self, *_: object) -> None:
            pass

        def adapt(self, human: Any, *_: object) -> dict[str, float]:
            taught.append((human.starts, human.labels))
            return {}

        def judge(self, starts: np.ndarray) -> Judgement:
            asked.append(starts)
            return Judgement(np.tile((1.0, 0.0), (len(starts), 1)), np.tile((0.0, 1.0), (len(starts), 1)))

    monkeypatch.setattr(motion, "AdaptedVLM", Spy)
    measured = motion.measure(run_with(kept, rewards))
    sums = np.convolve(rewards.astype(np.float32).astype(np.float64), np.ones(10))[9:]  # of segments of 10 steps
    for starts, labels in taught:
        assert len(labels) == 50
        assert set(starts.ravel() // HORIZON % 3) == {0, 1}
        np.testing.assert_array_equal(labels, sums[starts[:, 1]] > sums[starts[:, 0]])
    for kind, starts in zip(2 * KINDS, asked, strict=True):
        assert len(starts) == 1_000
        assert set(starts.ravel() // HORIZON) <= ({14, 17} if kind == "late" else {2, 5, 8, 11, 14, 17})
        assert (starts % HORIZON <= HORIZON - 10).all()
        first = (sums[starts[:, 0]] > sums[starts[:, 1]]).mean()
        rows = measured[measured["pairs"] == kind]
        assert rows["adapted"].to_numpy() == pytest.approx(first) and rows["zero_shot"].to_numpy() == pytest.approx(
            1 - first
        )
    np.testing.assert_array_equal(taught[0][0], taught[1][0])
    for kind in (0, 1):
        np.testing.assert_array_equal(asked[kind], asked[kind + 2])


def rows_of(seeds: int) -> pd.DataFrame:
    """Two draws per run; run number s is right in 50 + s % of frames and 60 + 3 s % of differences once adapted."""
    rows = []
    for seed in range(seeds):
        for draw, off in enumerate((-0.05, 0.05)):
            rows.append(("walker-walk", seed, "frame", "all", draw, 0.5 + off, 0.50 + 0.01 * seed + off))
            rows.append(("walker-walk", seed, "difference", "all", draw, 0.4 - off, 0.60 + 0.03 * seed - off))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_table_has_means_over_runs_and_paired_differences() -> None:
    frames, differences = accuracy_table(rows_of(5)).to_dict("records")
    assert (frames["shows"], differences["shows"], differences["seeds"]) == ("frame", "difference", 5)
    assert (frames["zero_shot"], frames["adapted"], differences["adapted"]) == pytest.approx((0.5, 0.52, 0.66))
    assert (frames["gain"], differences["gain"]) == pytest.approx((0.02, 0.26))
    assert (frames["over_frames"], differences["over_frames"]) == pytest.approx((0, 0.14))
    # The difference of run s is .10 + .02 s. Of 5 ** 5 equally likely draws of five runs, 2.5 % have a sum of s of at
    # most 4 (126 / 3125 = 4.0 %) or 3 (56 / 3125 = 1.8 %): the bound is between these, or at one of them.
    assert 0.10 + 0.02 * 3 / 5 <= differences["over_frames_low"] <= 0.10 + 0.02 * 4 / 5 + 1e-9
    assert 0.18 - 0.02 * 4 / 5 - 1e-9 <= differences["over_frames_high"] <= 0.18 - 0.02 * 3 / 5 + 1e-9
    assert np.isnan(accuracy_table(rows_of(4))["adapted_low"]).all()


def test_the_words_say_the_table() -> None:
    table = accuracy_table(rows_of(5)).assign(over_frames_low=0.114, over_frames_high=0.166)
    for name in ("zero_shot", "adapted"):
        table = table.assign(**{f"{name}_low": 0.3, f"{name}_high": 0.7})
    assert motion_in_words(table) == (
        "- **walker-walk**, all pairs: of frames 50 (30–70) % zero-shot and 52 (30–70) % adapted; of differences "
        "40 (30–70) % zero-shot and 66 (30–70) % adapted. Shown differences, adapters gain +14 (+11 to +17) points."
    )
    assert motion_in_words(accuracy_table(rows_of(2))).endswith("gain +11 points, which may be chance.")


def test_the_runs_are_those_of_the_plan_and_fresh() -> None:
    laptop = motion.replay_configs("laptop")
    assert [(config.task, config.seed) for config in laptop] == [
        (task, seed) for task in ("walker-walk", "cheetah-run") for seed in range(300, 305)
    ]
    assert {config.total_steps for config in laptop} == {12_000} and PLANS["laptop"].draws == 3
    with pytest.raises(PrefVLMError, match="profile"):
        motion.replay_configs("huge")
