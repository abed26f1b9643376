"""The label explorer: verdicts and details by hand, and clips against an episode that is played again."""

import math

import numpy as np
import pandas as pd
import pytest
from builders.explore import RESULTS, words

from prefvlm_core.common.seeding import episode_seed
from prefvlm_core.domains.environment import Environment
from prefvlm_core.explore.labels import (
    BY_DIVERGENCE,
    LabelExplorer,
    chosen_labels,
    details,
    label_table,
    pairs_kept_by,
)
from prefvlm_core.explore.thresholds import vlm_labels
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.stored import load_labels

LABELS = label_table(
    pd.DataFrame(
        [
            (500, 1, "human", 50, 90, 1.0, 1.0, math.nan, ""),
            (800, 2, "vlm", 110, 160, 0.0, 0.0, 0.25, "clean"),
            (800, 2, "vlm", 210, 260, 1.0, 0.0, 2.302585, "uncertain"),
            (800, 2, "vlm", 310, 320, 1.0, 0.5, 3.0, "flipped"),
            (800, 2, "human", 210, 260, 0.0, 0.0, math.nan, ""),
        ],
        columns=["step", "session", "teacher", "first", "second", "label", "truth", "divergence", "partition"],
    )
)


def test_verdicts_and_choices() -> None:
    assert list(LABELS["verdict"]) == ["right", "right", "wrong", "tie", "right"]
    assert list(chosen_labels(LABELS, "VLM").index) == [1, 2, 3]
    assert list(chosen_labels(LABELS, "human", 2).index) == [4]
    assert list(chosen_labels(LABELS, "uncertain", verdict="wrong").index) == [2]
    assert list(chosen_labels(LABELS, "VLM", order=BY_DIVERGENCE).index) == [3, 2, 1]


def test_details_say_who_said_what() -> None:
    config = run_config("button-press-v3", "prefvlm", 0, "laptop")
    said = details(LABELS, 2, config)
    assert said["the VLM"] == "the second is better" and said["the human"] == "the first is better"
    assert said["the true reward"] == "the first is better" and said["so this label is"] == "wrong"
    assert said["divergence"] == "2.303 nats: the reward ensemble gave this label 10.0 %"  # e ** -2.302585
    assert said["the filter"] == "uncertain, not used"
    assert said["session"] == "2, after 4,000 environment steps"  # 5 of them per step
    assert said["first segment"] == "steps 1,050 to 1,100 of the run"
    human = details(LABELS, 0, config)
    assert "the VLM" not in human and "divergence" not in human


def test_clips_show_the_episode_played_again(kept: RunDirectory) -> None:
    config, pairs = kept.config, pairs_kept_by(kept)
    assert pairs is not None
    label = load_labels([kept]).iloc[-1]
    for start in (int(label["first"]), int(label["second"])):
        episode, within = divmod(start, config.horizon)
        environment = Environment(config.task, config.horizon, action_repeat=config.action_repeat)
        environment.reset(episode_seed(config.seed, episode))
        actions = kept.read_replay()["actions"].numpy()[episode * config.horizon :]
        after = [environment.snapshot() for action in actions[: within + 10] if environment.step(action)]
        snapshots, scenes = pairs.shown(start)
        np.testing.assert_allclose(snapshots, np.stack(after)[within:], atol=1e-6)
        np.testing.assert_allclose(scenes, np.stack([environment.scene()] * 10), atol=1e-6)


def test_published_runs_have_no_clips_and_the_explorer_says_so() -> None:
    explorer = LabelExplorer("laptop", RESULTS)
    assert pairs_kept_by(explorer.chooser.run) is None and explorer.clips.layout.display == "none"
    assert "frames of this pair are not stored" in words(explorer.words.value)
    explorer.group.value, explorer.order.value = "VLM", BY_DIVERGENCE
    table = vlm_labels(load_labels([explorer.chooser.run]))
    for place in (1, 4):
        explorer.label.value = place
        divergence = np.sort(table["divergence"])[-place]
        assert f"label {place} of {len(table)}" in words(explorer.facts.value)
        assert f"{divergence:.3f} nats" in words(explorer.facts.value)
    explorer.group.value, explorer.session.value = "human", 1
    assert f"label 1 of {explorer._config.feedback.first_session_queries} " in words(explorer.facts.value)
    explorer.verdict.value = "wrong"  # of an oracle
    assert words(explorer.facts.value) == "The run has no such label."


def test_a_kept_replay_gives_clips(kept: RunDirectory) -> None:
    explorer = LabelExplorer("quick", kept.path.parents[3])
    first = bytes(explorer.clips.value)
    assert explorer.clips.layout.display == "" and first.startswith(b"\x89PNG")
    explorer.step.value = 10
    assert bytes(explorer.clips.value) != first


@pytest.mark.parametrize("session", [1, 2])
def test_an_empty_choice_is_no_error(session: int) -> None:
    assert chosen_labels(LABELS, "clean", session, "wrong").empty
