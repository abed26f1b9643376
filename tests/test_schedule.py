"""Tests of fair schedules: labels when they are due, the same first pairs, learning judged on human labels."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.rewards import CONFIG, CPU, ensemble, labelled, learned, random_replay, setting
from builders.runs import SMALL, content_hash, quiet, tiny, train_until_300, weights_hash, without_seconds

from prefvlm_core.preferences.budget import Budget
from prefvlm_core.preferences.labels import RunLabels
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward.learning import PlainLearner, one_pass
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.train import train

PAIRED = {"feedback.paired_start": True}
NEW = {"filter.human_selection": "uncertain", "reward.stop_on": "all"}
DUE = PAIRED | {"feedback.schedule": "even", "filter.human_selection": "uncertain-pool"}
ALL_UNCERTAIN = {"filter.mode": "adaptive", "filter.adaptive_minimum": 1000}
TWICE = {"feedback.budget": 40, "feedback.first_session_queries": 16}


# 9 sessions after the first one, at steps 300, 400, …, 1100
RUN = {"total_steps": 1_150, "exploration.random_steps": 100, "exploration.entropy_steps": 100}
ASK = {"feedback.budget": 30, "feedback.first_session_queries": 10, "feedback.session_queries": 5}


def sessions(found: Sequence[int], schedule: str) -> list[int]:
    """The queries of each session, of which it finds only so many pairs."""
    config = tiny("pebble", **RUN | ASK | {"feedback.session_every": 100, "feedback.schedule": schedule})
    budget, queries = Budget(config), []
    for session, pairs in enumerate(found):
        queries.append(budget.queries(session))
        budget.spend(min(pairs, queries[-1]), 0)
    return queries


def test_an_even_schedule_ends_with_the_run_and_makes_up_for_what_it_could_not_ask() -> None:
    """A budget of 30: 10 in the first session, and 20 in the nine later ones, of which the fourth finds no pairs."""
    found = [99, 99, 99, 0, 99, 99, 99, 99, 99, 99]
    assert sessions(found, "fixed") == [10, 5, 5, 5, 5, 5, 0, 0, 0, 0]
    assert sessions(found, "even") == [10, 2, 2, 2, 4, 3, 2, 2, 2, 3]


def test_pairs_left_open_are_not_asked_twice() -> None:
    budget = Budget(tiny("pebble", **RUN | ASK | {"feedback.session_every": 100, "feedback.schedule": "even"}))
    budget.spend(6, waiting=4)
    assert budget.queries(1) == 2


@pytest.mark.parametrize("schedule", ["fixed", "even"])
def test_without_a_budget_nobody_is_asked(tmp_path: Path, schedule: str) -> None:
    changes = SMALL | {"feedback.budget": 0, "feedback.first_session_queries": 16, "feedback.schedule": schedule}
    (directory,) = train([tiny("prefvlm", **changes)], quiet(tmp_path))
    last = directory.read_metrics()[-1]
    assert last["human_labels"] == 0 and last["sessions"] == 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    configs = {
        "pebble": tiny("pebble", **SMALL | PAIRED),
        "pebble, 2B": tiny("pebble", **SMALL | PAIRED | TWICE),
        "prefvlm": tiny("prefvlm", **SMALL | PAIRED | NEW),
        "due": tiny("prefvlm", **SMALL | DUE | ALL_UNCERTAIN | {"reward.stop_on": "human"}),
        "unpaired": tiny("prefvlm", **SMALL | NEW | {"feedback.paired_start": False}),
    }
    return dict(zip(configs, train(list(configs.values()), quiet(tmp_path_factory.mktemp("fair"))), strict=True))


def human(run: RunDirectory) -> pd.DataFrame:
    return run.labels().query("teacher == 'human'")


def test_methods_and_budgets_begin_with_the_same_pairs(trained: dict[str, RunDirectory]) -> None:
    first = {
        name: human(run).query("session == 1")[["first", "second"]].to_numpy().tolist() for name, run in trained.items()
    }
    assert [len(pairs) for pairs in first.values()] == [8, 16, 8, 8, 8]
    assert first["pebble"] == first["prefvlm"] == first["due"] == first["pebble, 2B"][:8] != first["unpaired"]


def test_uncertain_pairs_of_earlier_sessions_may_be_asked(trained: dict[str, RunDirectory]) -> None:
    """Then every quota is met: 8 queries at first, and the other 12 in equal parts."""
    assert human(trained["due"]).groupby("session").size().tolist() == [8, 4, 4, 4]
    pair = ["first", "second"]
    drawn = trained["due"].labels().query("teacher == 'vlm'").set_index(pair)["session"]
    later = human(trained["due"]).query("session > 1").set_index(pair)["session"]
    assert (drawn.loc[later.index] <= later).all() and (drawn.loc[later.index] < later).any()
    assert (human(trained["prefvlm"]).query("session > 1").set_index(pair)["session"] >= 2).all()


def test_metrics_say_how_many_labels_are_right(trained: dict[str, RunDirectory]) -> None:
    for name, run in trained.items():
        last = run.read_metrics()[-1]
        assert last["human_label_accuracy"] == 1.0, name  # the oracle's
        assert np.isfinite(last["entropy"]) and 0 < last["reward_std"] < 1
        assert np.isnan(last["vlm_label_accuracy"]) == (last["vlm_labels"] == 0)


def test_stopping_judged_on_human_labels_goes_on_while_these_are_not_learned() -> None:
    """Ten contradictory human labels before 300 that the ensemble has learned already."""
    replay, rewards = random_replay(), ensemble(dataclasses.replace(CONFIG, max_epochs=20, stop_accuracy=0.9))
    learner = PlainLearner(setting(replay, rewards, seed=2))
    easy = labelled(replay, 300, seed=1)
    learned(replay, rewards, learner.learn(easy, 300))
    labels = RunLabels()
    starts = np.repeat(labelled(replay, 5, seed=3).starts, 2, axis=0)
    labels.human.add(starts, np.tile(np.float32([0, 1]), 5))
    labels.kept.add(easy.starts, easy.labels)
    assert labels.for_learning().reliability is None
    everything, human_only = labels.for_learning(), labels.for_learning(judged_by_human=True)
    assert (everything.judged, human_only.judged, len(human_only)) == (None, 10, 310)
    assert learned(replay, rewards, learner.learn(everything, 10)).epochs < 20
    learning = learned(replay, rewards, learner.learn(human_only, 10))
    assert learning.epochs == 20 and learning.accuracy < 0.9
    assert RunLabels().for_learning(judged_by_human=True).judged is None  # a VLM alone is judged on its own labels


def test_the_accuracy_of_a_pass_is_that_of_the_judged_pairs() -> None:
    replay, rewards = random_replay(), ensemble()
    right = labelled(replay, 200, seed=1)
    learned(replay, rewards, PlainLearner(setting(replay, rewards, seed=2)).learn(right, 200))
    wrong = PreferenceBuffer(right.starts, np.concatenate((1 - right.labels[:50], right.labels[50:])), judged=50)
    small_steps = dataclasses.replace(CONFIG, learning_rate=1e-12)
    frozen = ensemble(small_steps)
    frozen.networks.values.copy_(rewards.networks.values)
    judged, whole = (
        learned(replay, frozen, one_pass(labels, small_steps, 5, np.random.default_rng(0), CPU))
        for labels in (wrong, dataclasses.replace(wrong, judged=None))
    )
    assert judged < 0.1 and 0.7 < whole < 0.8


def test_a_fair_run_resumes_bit_identical(
    trained: dict[str, RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after sessions that have asked the pool, kept to the even schedule and stopped on human labels."""
    due = trained["due"].config
    asked = due.filter.human_selection, due.feedback.schedule, due.reward.stop_on
    assert asked == ("uncertain-pool", "even", "human")
    configs = [run.config for run in trained.values()]
    train_until_300(configs, quiet(tmp_path, checkpoint_seconds=0), monkeypatch)
    assert [FleetCheckpoint(tmp_path, [config.run_id for config in configs]).load().step] == [250]
    for run, resumed in zip(trained.values(), train(configs, quiet(tmp_path)), strict=True):
        assert without_seconds(run) == without_seconds(resumed)
        assert weights_hash(run) == weights_hash(resumed)
        assert run.labels().equals(resumed.labels())
        assert content_hash(run) == content_hash(resumed)
