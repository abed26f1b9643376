"""Tests of the simulated VLMs: their accuracy is the given one, their label of a pair is always the same, and their
errors are of the kind that they should be."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from builders.runs import quiet, small
from scipy.stats import binomtest

from prefvlm_core.agent.replay import Replay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.groups import SIMULATED_VLMS
from prefvlm_core.methods import run_config
from prefvlm_core.runs.stored import load_labels
from prefvlm_core.train import train
from prefvlm_core.vlm.simulated import SIMULATED, SimulatedModel, error_angle, simulated_returns

GENERATOR = np.random.default_rng(0)
STARTS = GENERATOR.integers(0, 100_000, (4_000, 2))
TRUTH = GENERATOR.choice([0.0, 0.5, 1.0], len(STARTS))


def says_second(starts: np.ndarray, truth: np.ndarray, accuracy: float, seed: int = 0) -> np.ndarray:
    returns = simulated_returns(starts, truth, accuracy, seed)
    assert returns.shape == starts.shape and returns.dtype == np.float32
    return returns[:, 1] > returns[:, 0]


@pytest.mark.parametrize("accuracy", [0.7, 0.9])
def test_accuracy_is_the_given_one(accuracy: float) -> None:
    said = says_second(STARTS, TRUTH, accuracy)
    for truth in (0, 1):
        right = (said == truth)[truth == TRUTH]
        assert binomtest(int(right.sum()), len(right), accuracy).pvalue > 0.001
    ties = said[TRUTH == 0.5]
    assert binomtest(int(ties.sum()), len(ties), 0.5).pvalue > 0.001


def test_a_pair_is_always_labeled_alike() -> None:
    said, shuffled = says_second(STARTS, TRUTH, 0.7), GENERATOR.permutation(len(STARTS))
    assert (says_second(STARTS[shuffled], TRUTH[shuffled], 0.7) == said[shuffled]).all()
    decided = TRUTH != 0.5
    assert (says_second(STARTS, TRUTH, 1.0) == TRUTH)[decided].all()
    assert 0.3 < (says_second(STARTS, TRUTH, 0.7, seed=1) == said).mean() < 0.7


def test_a_simulated_vlm_labels_in_place_of_a_model(tmp_path: Path) -> None:
    changes = {"adapter.enabled": False}
    models = ("simulated:1", "simulated:0.6")
    directories = train(
        [small("prefvlm", {"vlm.model": model, **changes}) for model in models],
        quiet(tmp_path),
    )
    sure, unsure = (directory.read_metrics()[-1] for directory in directories)
    assert sure["vlm_accuracy"] == sure["clean_accuracy"] == 1 > unsure["vlm_accuracy"] > 0.4
    assert sure["vlm_labels"] > 0 and "seconds_rendering" not in sure
    with pytest.raises(PrefVLMError, match=r"vlm.model simulated:0.9 gives no embeddings"):
        small("prefvlm", {"vlm.model": "simulated:0.9"})


# ---- every kind

HORIZON, LENGTH, SIZE, EPISODES = 50, 10, 12, 60
SCORED = ("simulated-segments", "simulated-features")


def wandering(run_in_steps: float = 0.0, unpaid: float = -np.inf, episodes: int = EPISODES) -> Replay:
    """A replay of two runs that wander through a room, in which one coordinate is paid.

    By `run_in_steps` per episode the pay grows, as if a policy improved; below `unpaid` the reward is exactly 0.
    """
    replay = Replay(2, episodes * HORIZON, HORIZON, SIZE, 4, 1, 1, torch.device("cpu"))
    walk, empty = np.random.default_rng(0), np.zeros((2, 1), np.float32)
    for episode in range(episodes):
        at = walk.normal(size=(2, SIZE))
        replay.begin_episode(torch.tensor(at), empty, empty)
        for _ in range(HORIZON):
            at = at + 0.3 * walk.normal(size=(2, SIZE)) - 0.05 * at
            reward = np.where(at[:, 0] > unpaid, np.exp(at[:, 0] + run_in_steps * episode), 0.0)
            replay.add(torch.zeros(2, 4), torch.tensor(reward), torch.zeros(2), torch.tensor(at), empty)
    return replay


def simulated(model: str, replay: Replay, seed: int = 0, run: int = 0) -> SimulatedModel:
    changes = {"vlm.model": model, "adapter.enabled": False}
    config = run_config("button-press-v3", "prefvlm", seed, "laptop", changes)
    assert config.vlm.simulated_accuracy is not None
    return SIMULATED[config.vlm.simulated_kind](config, replay.of_run(run), config.vlm.simulated_accuracy)


def pairs(replay: Replay, count: int = 4_000, seed: int = 1) -> np.ndarray:
    return replay.of_run(0).draw_segments(np.random.default_rng(seed), count, LENGTH, 100)


def wrong(model: SimulatedModel, replay: Replay, starts: np.ndarray) -> np.ndarray:
    """Whether each pair is misjudged; nan where its segments tie."""
    truth = replay.of_run(0).true_labels(starts, LENGTH)
    said = model.returns(starts)
    return np.where(truth == 0.5, np.nan, (said[:, 1] > said[:, 0]) != truth)


def test_every_kind_that_a_config_can_name_is_there() -> None:
    assert tuple(SIMULATED) == SIMULATED_VLMS


@pytest.mark.parametrize("kind", SIMULATED_VLMS)
@pytest.mark.parametrize("accuracy", [0.3, 0.7, 0.9])
def test_every_kind_is_right_as_often_as_it_should_be_throughout_a_run(kind: str, accuracy: float) -> None:
    for replay in (wandering(), wandering(run_in_steps=0.1), wandering(unpaid=0.5)):
        model = simulated(f"{kind}:{accuracy:g}", replay)
        for episodes in (10, 25, EPISODES):
            replay.size = episodes * HORIZON
            assert np.nanmean(wrong(model, replay, pairs(replay))) == pytest.approx(1 - accuracy, abs=0.025)


@pytest.mark.parametrize("kind", SIMULATED_VLMS)
def test_an_accuracy_of_one_is_exact(kind: str) -> None:
    replay = wandering(unpaid=0.5)
    starts = pairs(replay)
    errors = wrong(simulated(f"{kind}:1", replay), replay, starts)
    assert np.nansum(errors) == 0 < np.isnan(errors).sum()


@pytest.mark.parametrize("kind", SIMULATED_VLMS)
def test_an_answer_depends_on_the_pair_and_the_seed_alone(kind: str) -> None:
    replay = wandering()
    starts = pairs(replay, 500)
    model = simulated(f"{kind}:0.7", replay)
    returns = model.returns(starts)
    shuffled = np.random.default_rng(0).permutation(len(starts))
    assert (model.returns(starts[shuffled]) == returns[shuffled]).all()
    assert (np.concatenate([model.returns(pair) for pair in np.split(starts[:20], 20)]) == returns[:20]).all()
    assert (simulated(f"{kind}:0.7", replay).returns(starts) == returns).all()
    other = wrong(simulated(f"{kind}:0.7", replay, seed=1), replay, starts)
    mine = wrong(model, replay, starts)
    assert abs(np.corrcoef(mine, other)[0, 1]) < 0.5 and (mine != other).mean() > 0.15


@pytest.mark.parametrize("kind", SIMULATED_VLMS)
def test_an_answer_survives_a_kill_and_does_not_depend_on_what_was_asked_before(kind: str) -> None:
    replay, grown = wandering(), Replay(2, EPISODES * HORIZON, HORIZON, SIZE, 4, 1, 1, torch.device("cpu"))
    grown.append_piece(replay.piece(0, 20 * HORIZON))
    undisturbed = simulated(f"{kind}:0.7", grown)
    undisturbed.returns(pairs(grown))
    grown.append_piece(replay.piece(20 * HORIZON, EPISODES * HORIZON))
    starts = pairs(replay, 300)
    assert (undisturbed.returns(starts) == simulated(f"{kind}:0.7", replay).returns(starts)).all()


@pytest.mark.parametrize("kind", SCORED)
def test_a_scored_segment_is_worth_the_same_in_every_pair(kind: str) -> None:
    replay = wandering()
    model, segments = simulated(f"{kind}:0.7", replay), pairs(replay, 12).ravel()
    starts = np.array(list(itertools.permutations(segments, 2)))
    returns = model.returns(starts)
    by_segment = pd.DataFrame({"segment": starts.ravel(), "worth": returns.ravel()}).groupby("segment")["worth"]
    assert (by_segment.nunique() == 1).all() and by_segment.first().nunique() == len(set(segments))


def cycles(kind: str) -> int:
    """In how many of 2,000 triples a beats b, b beats c, and c beats a, or the other way round."""
    replay = wandering()
    model, triples = simulated(f"{kind}:0.7", replay), np.column_stack((pairs(replay, 2_000), pairs(replay, 2_000, 2)))
    said = [np.diff(model.returns(triples[:, [a, b]]))[:, 0] > 0 for a, b in ((0, 1), (1, 2), (2, 0))]
    return int(((said[0] == said[1]) & (said[1] == said[2])).sum())


def test_scored_segments_make_no_cycles_and_independent_errors_do() -> None:
    assert [cycles(kind) for kind in SCORED] == [0, 0]
    # Of an order of three, 0.7 right each: wrong in the outer pair alone, or right in that one alone.
    expected = 2_000 * (0.7**2 * 0.3 + 0.3**2 * 0.7)
    assert binomtest(cycles("simulated"), 2_000, expected / 2_000).pvalue > 0.001


def error_correlation(kind: str, moved: int, both: bool = False) -> float:
    """Correlation of the errors about pairs and about those that begin `moved` steps later, in one segment or both."""
    replay = wandering()
    model, starts = simulated(f"{kind}:0.7", replay), pairs(replay)
    starts = starts[(starts % HORIZON + moved <= HORIZON - LENGTH).all(1)]
    later = starts + np.array([moved, moved * both])
    return float(pd.Series(wrong(model, replay, starts)).corr(pd.Series(wrong(model, replay, later))))


def test_errors_are_alike_where_they_should_be() -> None:
    assert abs(error_correlation("simulated", 2)) < 0.08  # each pair has its own
    assert abs(error_correlation("simulated-segments", 2, both=True)) < 0.15  # each segment; near pairs stay hard
    assert 0.2 < error_correlation("simulated-segments", 2) < 0.5  # one of the two is the same
    assert error_correlation("simulated-features", 2, both=True) > 0.6  # what is seen is nearly the same
    assert abs(error_correlation("simulated-features", 20, both=True)) < 0.15  # and here it is not


def test_runs_of_a_fleet_err_by_what_they_see_themselves() -> None:
    replay = wandering()
    alone = Replay(1, EPISODES * HORIZON, HORIZON, SIZE, 4, 1, 1, torch.device("cpu"))
    alone.append_piece({name: tensor[1:] for name, tensor in replay.piece(0, replay.size).items()})
    starts = pairs(replay, 200)
    for kind in SIMULATED_VLMS:
        second = simulated(f"{kind}:0.7", replay, run=1).returns(starts)
        assert (second == simulated(f"{kind}:0.7", alone).returns(starts)).all()
        assert (second != simulated(f"{kind}:0.7", replay).returns(starts)).any()


def test_the_angle_of_errors_is_where_the_wanted_fraction_turns() -> None:
    truth = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    errors = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 3.0], [0.0, 9.0]])
    # A pair turns where cos(a) gap + sin(a) shift = 0: never before pi / 2, at pi / 4, and at atan(1 / 3).
    assert error_angle(truth, errors, 1.0) == 0
    assert error_angle(truth, errors, 2 / 3) == pytest.approx(np.arctan(1 / 3))
    assert error_angle(truth, errors, 1 / 3) == pytest.approx(np.pi / 4)
    assert error_angle(truth, errors, 0.0) == pytest.approx(3 * np.pi / 4)


def test_accuracies_hold_in_a_real_training(tmp_path: Path) -> None:
    models = [f"{kind}:{accuracy}" for kind in SCORED for accuracy in (0.7, 0.9)]
    changes = {"adapter.enabled": False, "vlm.queries": 400}
    configs = [small("prefvlm", {"vlm.model": model, **changes}, seed) for model in models for seed in range(3)]
    runs = train(configs, quiet(tmp_path))  # three of each: those that err by segments see few segments in one
    for model in models:
        directories = [directory for directory in runs if directory.config.vlm.model == model]
        labels = load_labels(directories).query("teacher == 'vlm' and truth != 0.5")
        assert len(labels) > 3_000 and labels["session"].nunique() >= 3
        right = labels["label"] == labels["truth"]
        assert right.mean() == pytest.approx(directories[0].config.vlm.simulated_accuracy, abs=0.03)
        assert right.groupby(labels["session"]).mean().to_numpy() == pytest.approx(right.mean(), abs=0.07)
