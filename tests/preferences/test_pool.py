"""The metrics of a session's pairs."""

import math

import numpy as np

from prefvlm_core.config.groups import FilterConfig
from prefvlm_core.preferences.filters import KeepAll
from prefvlm_core.preferences.pool import LabelledPool


def pool_of(labels: list[float], truth: list[float]) -> LabelledPool:
    count, divergences = len(labels), np.linspace(0, 1, len(labels))
    said = np.array(labels, np.float32)
    return LabelledPool(
        starts=np.arange(2 * count).reshape(count, 2),
        new=np.ones(count, bool),
        labels=said,
        zero_shot=np.stack((np.zeros(count), said - 0.5), axis=1).astype(np.float32),
        divergences=divergences,
        partition=KeepAll(FilterConfig()).split(divergences),
        truth=np.array(truth, np.float64),
    )


def test_fractions_and_accuracies_by_hand() -> None:
    metrics = pool_of([1, 1, 0, 0.5], [1, 0, 0.5, 1]).metrics(KeepAll(FilterConfig()))
    assert metrics["adapted_vlm_accuracy"] == metrics["clean_accuracy"] == 1 / 2  # without the ties of either
    assert metrics["vlm_accuracy"] == 1 / 3  # the VLM's tie counts for the first segment
    assert metrics["vlm_equal_fraction"] == 1 / 4
    assert (metrics["clean_fraction"], metrics["flipped_fraction"], metrics["uncertain_fraction"]) == (1, 0, 0)


def test_a_session_without_an_answer_has_no_fractions() -> None:
    metrics = pool_of([], []).metrics(KeepAll(FilterConfig()))
    thresholds = {"tau_lower", "tau_upper"}
    assert all(math.isnan(value) for name, value in metrics.items() if name not in thresholds)
