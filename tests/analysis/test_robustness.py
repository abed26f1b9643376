"""Disturbed scenes: the same episodes seen anew, readers that learned when they say, and what tables make of it."""

from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from prefvlm_core.analysis import robustness
from prefvlm_core.analysis.robustness import (
    BEFORE,
    CLEAN_SCENE,
    COLUMNS,
    FACTORS,
    PLANS,
    READERS,
    UNDER,
    ZERO_SHOT,
    Batch,
    RobustnessPlan,
)
from prefvlm_core.analysis.robustness_tables import change_summary, change_table, changes_in_words, costliest
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.domains.experts import RandomActions
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.metaworld_domain import DEFAULT_CAMERA
from prefvlm_core.domains.perturbations import EVERYTHING, STRENGTHS, Perturbation
from prefvlm_core.experiments.grids import DISTURBANCE
from prefvlm_core.vlm import ImageTextModel
from prefvlm_core.vlm.pretraining.recordings import play, record

TASK = "drawer-close-v3"


def test_every_profile_has_a_plan_of_enough_draws():
    assert set(PLANS) == set(PROFILES)
    for plan in PLANS.values():
        assert plan.trajectories >= 12 and plan.draws >= 2 and plan.strengths[0] == DISTURBANCE
        assert set(plan.strengths) <= set(STRENGTHS)


def test_episodes_are_seen_again_and_disturbed():
    def episodes():
        return ((RandomActions(TASK, np.random.default_rng(seed)), seed) for seed in (1, 2))

    played, recorded = play(TASK, episodes()), record(TASK, episodes())
    with closing(FrameRenderer(TASK)) as renderer:
        clean = played.seen_by(renderer)
        renderer.look(DEFAULT_CAMERA, Perturbation(occluder=1))
        hidden = played.seen_by(renderer)
        renderer.look(DEFAULT_CAMERA)
        np.testing.assert_array_equal(played.seen_by(renderer).frames, recorded.frames)
    np.testing.assert_array_equal(clean.frames, recorded.frames)
    np.testing.assert_array_equal(clean.rewards, recorded.rewards)
    assert clean.frames.shape == (2, 40, 64, 64, 3) and (hidden.frames == 128).all()
    assert played.snapshots.nbytes + played.scenes.nbytes < recorded.frames.nbytes / 100


class Sighted(ImageTextModel):
    """A stand-in model that reads a number from the first pixel of a frame; the cosine with any text rises with it."""

    frame_size, fingerprint = 64, "sighted"

    def encode_image(self, frames):
        value = frames[:, 0, 0, 0] / 255
        return np.stack([value, np.sqrt(1 - value**2)], axis=1).astype(np.float32)

    def encode_text(self, texts):
        return np.tile(np.float32([1, 0]), (len(texts), 1))


class Labeled:
    """A stand-in renderer that writes how many snapshots before this one of the episode into the first pixel; `look`
    turns the picture into its negative."""

    def __init__(self, task):
        self.negative = False

    def look(self, camera=None, perturbation=None):
        self.negative = True

    def render(self, snapshots, scenes):
        frames = np.zeros((len(snapshots), 64, 64, 3), np.uint8)
        frames[:, 0, 0, 0] = 5 * (np.arange(len(snapshots)) % 40) + 20
        return 255 - frames if self.negative else frames

    def close(self):
        pass


@pytest.fixture
def measured(monkeypatch):
    """Of a scene whose frames tell the step, and are negatives once disturbed; true rewards rise with the step."""
    play_task = robustness.play_task

    def rising(task, trajectories, seed):
        played = play_task(task, trajectories, seed)
        played.mixed.rewards[:] = np.arange(200)
        return played

    monkeypatch.setattr(robustness, "FrameRenderer", Labeled)
    monkeypatch.setattr(robustness, "play_task", rising)
    monkeypatch.setattr(robustness, "FACTORS", ("light",))
    return robustness.measure(Batch(TASK, 0, "strong"), RobustnessPlan((TASK,), 12, 2, 2), Sighted())


def test_readers_learned_when_they_say(measured):
    """A negative turns every label and every order around, but for those who learned from negatives."""
    assert list(measured.columns) == list(COLUMNS)
    table = measured.set_index(["factor", "reader"])
    for measure, worst in (("accuracy", 0.0), ("value_order", -1.0)):
        for reader in READERS:
            assert table.loc[(CLEAN_SCENE, reader), measure] == pytest.approx(1, abs=0.05)
        assert table.loc[("light", ZERO_SHOT), measure] == pytest.approx(worst)
        assert table.loc[("light", BEFORE), measure] < worst + 0.1
        assert table.loc[("light", UNDER), measure] > 0.9


def made_up():
    """Two draws of two tasks; color costs zero-shot labels 0.2, light 0.1 ± 0.05, other readers nothing."""
    rows = []
    for task, level in (("a", 0.7), ("b", 0.9)):
        for draw, wobble in ((0, -0.05), (1, 0.05)):
            for reader in READERS:
                rows.append((task, draw, CLEAN_SCENE, "", reader, level, 0.5))
                cost = {"light": 0.1 + wobble, "color": 0.2, EVERYTHING: 0.4}
                for factor, lost in cost.items():
                    accuracy = level - lost * (reader == ZERO_SHOT)
                    rows.append((task, draw, factor, "strong", reader, accuracy, np.nan if task == "a" else 0.25))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_changes_are_paired_by_draw():
    table = change_table(made_up()).set_index(["factor", "reader"])
    light = table.loc["light", ZERO_SHOT]
    assert light["accuracy"] == pytest.approx(0.7) and light["accuracy_change"] == pytest.approx(-0.1)
    # Two tasks of two draws: sd 0.0707 each, standard error of the mean of the means 0.0707 / sqrt(2) / sqrt(2).
    assert light["accuracy_change_high"] - light["accuracy_change"] == pytest.approx(4.3027 * 0.0707 / 2, rel=1e-3)
    color = table.loc["color", ZERO_SHOT]
    assert color["accuracy_change_low"] == pytest.approx(-0.2) == color["accuracy_change_high"]
    assert color["value_order_change"] == pytest.approx(-0.25)  # of the task that has films
    assert table.loc[("color", UNDER), "accuracy_change"] == pytest.approx(0)


def test_the_costliest_factor_is_named_first():
    table = change_table(made_up())
    assert costliest(table, "strong") == ["color", "light"]
    clean, first, second, everything = changes_in_words(table, "strong").splitlines()
    assert clean.startswith("- **clean**: ") and "zero-shot 80; adapted before 80" in clean
    assert first.startswith("- **color, strong**: ") and "zero-shot 60" in first
    assert second.startswith("- **light, strong**: ") and "zero-shot 70, −10 (−25 to +5)" in second
    assert everything.startswith("- **everything, strong**: ")
    assert change_summary(table).loc["light, strong", ("labels", ZERO_SHOT)] == "70, −10 (−25 to +5)"


def test_pictures_show_every_scene_once():
    pictures = robustness.pictures(TASK)
    assert list(pictures) == [(CLEAN_SCENE, ""), *((factor, strength) for factor in FACTORS for strength in STRENGTHS)]
    assert len({picture.tobytes() for picture in pictures.values()}) == 1 + len(FACTORS) * len(STRENGTHS)
