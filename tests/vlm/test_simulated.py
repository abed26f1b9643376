"""Tests of the simulated VLM: its accuracy is the given one, and its label of a pair is always the same."""

from pathlib import Path

import numpy as np
import pytest
from builders.runs import quiet, small
from scipy.stats import binomtest

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.train import train
from prefvlm_core.vlm.simulated import simulated_returns

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
    with pytest.raises(PrefVLMError, match=r"vlm.model simulated:0.9 looks at no frames"):
        small("prefvlm", {"vlm.model": "simulated:0.9"})
