"""Statistics against hand-worked values, scipy, and exact properties of the bootstrap."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from prefvlm_core.analysis.stats import (
    area_under_curve,
    check_evaluations,
    interquartile_mean,
    last_tenth,
    stratified_bootstrap_interval,
    summary_table,
)
from prefvlm_core.common.errors import PrefVLMError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def evaluations(
    task: str, arm: str, seed: int, success: list[float], human: list[int], method: str = "pebble"
) -> pd.DataFrame:
    steps = [1000 * (index + 1) for index in range(len(success))]
    return pd.DataFrame(
        {
            "profile": "quick",
            "task": task,
            "method": method,
            "arm": arm,
            "seed": seed,
            "run_id": f"{task}/{arm}/{seed}",
            "step": steps,
            "success": success,
            "episode_return": 1.0,
            "human_labels": human,
            "vlm_labels": [3 * labels for labels in human],
            "reward_accuracy": 0.5,
            "seconds": 1.0,
        }
    )


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([7.0, 0.0, 100.0, 2.0, 3.0]) == 4.0  # 2, 3, 7 remain
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0  # too few to drop any
    assert interquartile_mean([1.0, 2.0, 4.0, 90.0]) == 3.0
    assert interquartile_mean(np.arange(8.0) ** 2) == (4 + 9 + 16 + 25) / 4
    np.testing.assert_array_equal(interquartile_mean([[1.0, 2.0], [3.0, 8.0]], axis=0), [2.0, 5.0])
    with pytest.raises(PrefVLMError, match="0 scores"):
        interquartile_mean([])


@pytest.mark.parametrize("count", range(1, 21))
def test_interquartile_mean_is_scipy_trim_mean(count: int) -> None:
    scores = rng(count).normal(size=(3, count))
    np.testing.assert_allclose(interquartile_mean(scores), scipy.stats.trim_mean(scores, 0.25, axis=-1), rtol=1e-12)


def test_bootstrap_of_one_task_is_scipy_bootstrap() -> None:
    scores = rng(1).normal(size=12)
    low, high = stratified_bootstrap_interval(scores, interquartile_mean, rng(2), resamples=40_000)
    truth = scipy.stats.bootstrap(
        (scores,), interquartile_mean, method="percentile", n_resamples=40_000, rng=rng(3)
    ).confidence_interval
    assert (low, high) == pytest.approx((truth.low, truth.high), abs=0.02)


def test_bootstrap_matches_all_equally_likely_resamples() -> None:
    scores = [np.array([0.0, 1.0, 5.0]), np.array([2.0, 7.0])]
    exact = [
        np.mean([*first, *second])
        for first in itertools.product(scores[0], repeat=3)
        for second in itertools.product(scores[1], repeat=2)
    ]
    low, high = stratified_bootstrap_interval(scores, np.mean, rng(), resamples=50_000, confidence=0.8)
    assert (low, high) == pytest.approx(np.quantile(exact, [0.1, 0.9]), abs=1e-9)


def test_bootstrap_resamples_seeds_within_tasks_only() -> None:
    scores = np.array([[0.0, 1.0, 9.0]] * 4)  # (seeds, tasks): seeds agree, tasks do not
    assert stratified_bootstrap_interval(scores, np.mean, rng()) == pytest.approx((10 / 3, 10 / 3))
    assert stratified_bootstrap_interval(scores.T, np.mean, rng())[1] > 5


def test_bootstrap_is_reproducible_and_takes_arrays_or_lists() -> None:
    scores = rng(5).normal(size=(5, 3))
    as_array = stratified_bootstrap_interval(scores, interquartile_mean, rng(1))
    assert as_array == stratified_bootstrap_interval(list(scores.T), interquartile_mean, rng(1))
    assert as_array != stratified_bootstrap_interval(scores, interquartile_mean, rng(2))
    assert as_array[0] < interquartile_mean(scores.ravel()) < as_array[1]


def test_few_seeds_have_the_documented_intervals() -> None:
    assert np.isnan(stratified_bootstrap_interval(np.array([0.3]), np.mean, rng())).all()
    assert np.isnan(stratified_bootstrap_interval([[0.3], [0.1, 0.2]], np.mean, rng())).all()
    assert stratified_bootstrap_interval(np.array([0.3, 0.8]), interquartile_mean, rng()) == (0.3, 0.8)
    for seeds, documented in ((2, 0.49), (3, 0.73), (5, 0.89), (10, 0.94)):
        intervals = [
            stratified_bootstrap_interval(scores, interquartile_mean, rng(9), resamples=300)
            for scores in rng(seeds).normal(size=(1500, seeds))
        ]
        held = np.mean([low <= 0 <= high for low, high in intervals])
        assert held == pytest.approx(documented, abs=0.04)  # 3 standard errors of 1500 repeats


@pytest.mark.parametrize(
    "scores", [[], [[0.1, 0.2], []], np.array([0.1, np.nan]), [[0.1, np.inf]], np.zeros((2, 2, 2))]
)
def test_bootstrap_refuses_malformed_scores(scores: object) -> None:
    with pytest.raises(PrefVLMError, match="task"):
        stratified_bootstrap_interval(scores, np.mean, rng())  # type: ignore[arg-type]


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_bootstrap_refuses_confidence_outside_0_1(confidence: float) -> None:
    with pytest.raises(PrefVLMError, match="confidence"):
        stratified_bootstrap_interval(np.arange(3.0), np.mean, rng(), confidence=confidence)


def test_area_under_curve_by_hand() -> None:
    assert area_under_curve([0, 10, 30], [0.0, 1.0, 0.5]) == pytest.approx((5 + 15) / 30)
    assert area_under_curve([20, 30], [0.25, 0.75]) == 0.5
    assert area_under_curve([500], [0.25]) == 0.25


def test_last_tenth_excludes_its_lower_end() -> None:
    assert last_tenth(np.arange(1, 101), np.arange(1, 101)) == np.arange(91, 101).mean()
    assert last_tenth(range(10, 101, 10), np.arange(10.0)) == 9.0
    assert last_tenth([63, 70], [0.0, 1.0]) == 1.0  # 63 is exactly 0.9 * 70
    assert last_tenth([64, 70], [0.0, 1.0]) == 0.5


@pytest.mark.parametrize("measure", [area_under_curve, last_tenth])
@pytest.mark.parametrize(
    ("steps", "values"), [([], []), ([1, 1], [0, 0]), ([2, 1], [0, 0]), ([1, 2], [0]), ([1], [np.nan]), (1, 1)]
)
def test_curve_measures_refuse_malformed_curves(measure: object, steps: list[int], values: list[float]) -> None:
    with pytest.raises(PrefVLMError, match="strictly increasing"):
        measure(steps, values)  # type: ignore[operator]


def test_summary_table_by_hand() -> None:
    ten = [0.0] * 9  # with one more evaluation, the last 10 % are that one
    data = pd.concat(
        [
            *(evaluations("b", "few", seed, [*ten, last], [4] * 10) for seed, last in enumerate([0.5, 1.0])),
            *(
                evaluations("a", "few", seed, [*ten, last], [5] * 9 + [5 + seed])
                for seed, last in enumerate([0.2, 0.4])
            ),
            *(evaluations("a", "many", seed, [*ten, 0.7], [90] * 10) for seed in range(1)),
        ]
    )
    table = summary_table(data)
    assert list(table.columns) == [
        *("task", "method", "arm", "human_labels", "vlm_labels", "seeds"),
        *("success", "success_low", "success_high"),
        *("area_under_curve", "area_under_curve_low", "area_under_curve_high"),
    ]
    assert list(zip(table["task"], table["arm"], table["seeds"], strict=True)) == [
        ("a", "few", 2),
        ("a", "many", 1),
        ("b", "few", 2),
        ("all tasks", "few", 2),  # "many" did not run on every task
    ]
    np.testing.assert_allclose(table["human_labels"], [5.5, 90, 4, 4.75])
    np.testing.assert_allclose(table["vlm_labels"], 3 * table["human_labels"])
    np.testing.assert_allclose(table["success"], [0.3, 0.7, 0.75, 0.45])  # pooled: 0.2, 0.4, 0.5, 1 without both ends
    np.testing.assert_allclose(table["success_low"][:3], [0.2, np.nan, 0.5])
    np.testing.assert_allclose(table["success_high"][:3], [0.4, np.nan, 1.0])
    np.testing.assert_allclose(table["area_under_curve"], table["success"] / 2 / 9)  # a triangle over 1 of 9 intervals
    for bound in ("low", "high"):
        np.testing.assert_allclose(table[f"area_under_curve_{bound}"], table[f"success_{bound}"] / 2 / 9)
    low, high = table.loc[3, ["success_low", "success_high"]]
    assert 0.2 <= low < 0.45 < high <= 1.0
    pd.testing.assert_frame_equal(table, summary_table(data.sample(frac=1, random_state=1)))
    assert list(summary_table(data[data["task"] == "a"])["task"]) == ["a", "a"]  # one task is not pooled with itself


def test_summary_table_refuses_unfinished_runs() -> None:
    data = pd.concat(
        [evaluations("a", "few", 0, [0.0, 0.1], [1, 1]), evaluations("a", "few", 1, [0.0, 0.1, 0.2], [1, 1, 1])]
    )
    with pytest.raises(PrefVLMError, match=r"end at different steps, \[2000, 3000\]"):
        summary_table(data)


def test_check_evaluations_names_what_is_wrong() -> None:
    data = evaluations("a", "few", 0, [0.0, 0.1], [1, 1])
    check_evaluations(data)
    with pytest.raises(PrefVLMError, match="lack the columns"):
        check_evaluations(data.drop(columns="step"))
    with pytest.raises(PrefVLMError, match="no evaluations"):
        check_evaluations(data[:0])
    with pytest.raises(PrefVLMError, match="mixes 2 runs"):
        check_evaluations(data.assign(run_id=["one", "other"]))
    with pytest.raises(PrefVLMError, match="several evaluations at step 1000"):
        check_evaluations(data.assign(step=1000))
