"""Tests of paired comparisons against numbers made by hand."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from builders.evaluations import steady
from builders.scores import comparison, scores_of

from prefvlm_core.analysis.answers import worth_in_words
from prefvlm_core.analysis.paired import (
    difference,
    difference_table,
    direction,
    label_equivalent,
    ladder_of,
    planned_differences,
    run_scores,
    score_table,
    worth_table,
)
from prefvlm_core.common.errors import PrefVLMError

LADDER = {1: "pebble B", 2: "pebble 2B", 4: "pebble 4B"}


def evaluations() -> pd.DataFrame:
    success, returns = [0.0, 0.5, 1.0, 0.6], [-3.0, np.e - 1, np.e**3 - 1, np.e**3 - 1]
    columns = {"profile": "quick", "task": "a", "method": "pebble", "arm": "x", "seed": 0, "run_id": "r"}
    columns |= {"human_labels": 8, "vlm_labels": 0, "reward_accuracy": 0.7, "seconds": 1.0, "budget": 8}
    rows = zip((100, 200, 300, 400), success, returns, strict=True)
    return pd.DataFrame([columns | {"step": s, "success": y, "episode_return": r} for s, y, r in rows])


def test_scores_of_a_run_by_hand() -> None:
    (row,) = run_scores(evaluations()).to_dict("records")
    assert (row["task"], row["arm"], row["seed"], row["budget"]) == ("a", "x", 0, 8)
    assert row["last_three"] == pytest.approx(0.7)
    assert row["success_area"] == pytest.approx((0.25 + 0.75 + 0.8) / 3)
    assert row["log_return_area"] == pytest.approx((0.5 + 2 + 3) / 3)  # a return below 0 counts as 0


def test_what_two_arms_share_leaves_their_difference() -> None:
    """Differences of equal pairs have no spread, however much seeds differ."""
    found = difference(scores_of({"a": 0.6, "b": 0.5}, spread=0.3), "a", "b", "last_three", np.random.default_rng(0))
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.pairs == 60


def test_the_interval_is_that_of_a_paired_t_test_for_many_normal_scores() -> None:
    generator = np.random.default_rng(1)
    scores = scores_of({"a": 0.0, "b": 0.0}, seeds=400, tasks=1)
    scores["last_three"] += generator.standard_normal(len(scores))
    found = difference(scores, "a", "b", "last_three", np.random.default_rng(0))
    pairs = scores.pivot(index="seed", columns="arm", values="last_three")
    truth = scipy.stats.ttest_rel(pairs["a"], pairs["b"]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high), abs=0.01)


def test_labels_are_read_off_the_ladder() -> None:
    means = {"pebble B": 0.2, "pebble 2B": 0.6, "pebble 4B": 0.8}
    for score, worth in ((0.6, 2.0), (0.4, 2**0.5), (0.7, 2 * 2**0.5), (0.1, 1.0), (0.9, 4.0)):
        scores = scores_of(means | {"ours": score}, spread=0.2)
        found = label_equivalent(scores, "ours", LADDER, "last_three", np.random.default_rng(0))
        assert found.mean == pytest.approx(worth)


def test_a_ladder_that_falls_is_made_level() -> None:
    """2B and 4B are the same 0.6 together; what reaches it is worth at least 4B."""
    scores = scores_of({"pebble B": 0.2, "pebble 2B": 0.7, "pebble 4B": 0.5, "ours": 0.61})
    found = label_equivalent(scores, "ours", LADDER, "last_three", np.random.default_rng(0))
    assert (found.mean, found.low, found.high) == pytest.approx((4, 4, 4))


def test_only_shared_seeds_count_and_unknown_arms_are_refused() -> None:
    scores = scores_of({"a": 0.6, "b": 0.5}, seeds=4, tasks=1)
    scores = scores[~((scores["arm"] == "b") & (scores["seed"] == 3))]
    assert difference(scores, "a", "b", "last_three", np.random.default_rng(0)).pairs == 3
    with pytest.raises(PrefVLMError, match="arm"):
        difference(scores, "a", "c", "last_three", np.random.default_rng(0))
    apart = scores.assign(seed=scores["seed"] + 10 * (scores["arm"] == "b"))
    with pytest.raises(PrefVLMError, match="share no task and seed"):
        difference(apart, "a", "b", "last_three", np.random.default_rng(0))


def test_a_task_with_more_seeds_weighs_no_more() -> None:
    scores = scores_of({"a": 0.6, "b": 0.5}, seeds=10, tasks=2)
    scores.loc[(scores["task"] == "task 1") & (scores["arm"] == "a"), "last_three"] = 0.9
    few = scores[(scores["task"] == "task 0") | (scores["seed"] < 5)]
    found = difference(few, "a", "b", "last_three", np.random.default_rng(0))
    assert found.pairs == 15
    assert (found.mean, found.low, found.high) == pytest.approx(((0.1 + 0.4) / 2,) * 3)


def test_tables_of_worth_and_of_differences() -> None:
    scores = comparison()
    assert ladder_of(scores) == {1.0: "pebble B", 2.0: "pebble 2B"}
    worth = worth_table(scores).query("measure == 'last_three'").set_index("arm")
    assert list(worth.index) == ["pebble B", "pebble 2B", "ours"]  # an arm without labels has nothing to be worth
    assert worth["labels"].to_dict() == {"pebble B": 1, "pebble 2B": 2, "ours": 1}
    assert worth["score"].diff()["pebble 2B"] == pytest.approx(0.4)
    assert worth.loc["ours", "mean"] == pytest.approx(2) and worth["mean"].isna().sum() == 2
    gaps = difference_table(scores, "pebble 2B").query("measure == 'last_three'").set_index("arm")["mean"]
    assert gaps.to_dict() == pytest.approx({"pebble B": -0.4, "ours": 0.0, "no human": -0.5})


def test_scores_of_arms_by_hand() -> None:
    """All tasks are the mean of the tasks' means, whose interval is that of Student for many normal scores."""
    generator = np.random.default_rng(2)
    first, second = generator.normal(0.3, 0.1, 400), generator.normal(0.8, 0.2, 200)
    rows = [
        {"task": task, "arm": arm, "seed": seed, "last_three": value, "log_return_area": 2.0, "success_area": 0.5}
        for task, arm, values in (("a", "x", first), ("b", "x", second), ("a", "y", [0.25]))
        for seed, value in enumerate(values)
    ]
    table = score_table(pd.DataFrame(rows)).set_index(["arm", "task", "measure"])
    together = table.loc[("x", "all tasks", "last_three")]
    mean = (first.mean() + second.mean()) / 2
    margin = 1.96 * np.sqrt(first.var() / 400 + second.var() / 200) / 2
    assert together["mean"] == pytest.approx(mean) and together["seeds"] == 200
    assert (together["low"], together["high"]) == pytest.approx((mean - margin, mean + margin), abs=0.001)
    assert together["iqm"] == pytest.approx(scipy.stats.trim_mean(np.concatenate([first, second]), 0.25))
    assert table.loc[("y", "a", "last_three"), "mean"] == 0.25
    assert np.isnan(table.loc[("y", "a", "last_three"), "low"]), "one seed has no interval"
    assert ("y", "all tasks", "last_three") not in table.index, "y did not run on task b"
    assert (table.xs("success_area", level="measure").loc["x", "mean"] == 0.5).all() and len(table) == 4 * 3


def test_worth_in_words() -> None:
    scores = comparison()
    said = worth_in_words(worth_table(scores), difference_table(scores, "pebble 2B"))
    assert said == (
        "- *ours* does what PEBBLE does with at least 2 B (at least 2 to at least 2). From *pebble 2B* it is +0 (+0 to "
        "+0) points away: not inferior."
    )


def test_fewer_than_five_seeds_have_no_interval() -> None:
    scores = comparison()
    few, enough = (scores[scores["seed"] < seeds] for seeds in (4, 5))
    gaps, worth = difference_table(few, "pebble 2B"), worth_table(few)
    assert gaps["mean"].notna().all() and gaps[["low", "high"]].isna().all(axis=None)
    assert worth[["low", "high"]].isna().all(axis=None)
    assert worth_in_words(worth, gaps) == (
        "- *ours* does what PEBBLE does with at least 2 B. From *pebble 2B* it is +0 points away: undecided."
    )
    assert difference_table(enough, "pebble 2B")[["low", "high"]].notna().all(axis=None)


def normal(generator: np.random.Generator, mean: float, seeds: int) -> list[float]:
    return generator.normal(mean, 0.1, seeds).tolist()


def test_planned_differences_are_paired_t_tests_for_many_normal_runs() -> None:
    """What tasks and seeds add to both arms leaves their difference."""
    generator = np.random.default_rng(3)
    shared = {task: generator.normal(0.5, 0.3, 200) for task in ("a", "b")}
    ours = {task: shared[task] + normal(generator, gain, 200) for task, gain in (("a", 0.1), ("b", -0.04))}
    data = steady({"whole": shared, "part": ours}, {"part": "whole"})
    gaps = planned_differences(data).set_index("task")
    assert set(gaps["arm"]) == {"part"} and set(gaps["against"]) == {"whole"}
    assert gaps["pairs"].to_dict() == {"all tasks": 400, "a": 200, "b": 200} and set(gaps["seeds"]) == {200}
    for task, differences in {name: ours[name] - shared[name] for name in shared}.items():
        truth = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        row = gaps.loc[task]
        assert row["mean"] == pytest.approx(differences.mean())
        assert (row["low"], row["high"]) == pytest.approx((truth.low, truth.high), abs=0.002)
        assert (row["score"], row["score_against"]) == pytest.approx((ours[task].mean(), shared[task].mean()))
    together = gaps.loc["all tasks"]
    each = [ours[task] - shared[task] for task in shared]
    margin = 1.96 * np.sqrt(sum(differences.var() / 200 for differences in each)) / 2
    mean = np.concatenate(each).mean()
    assert together["mean"] == pytest.approx(mean)
    assert (together["low"], together["high"]) == pytest.approx((mean - margin, mean + margin), abs=0.002)


def test_planned_differences_of_few_seeds_have_no_interval_and_need_shared_runs() -> None:
    successes = {
        "whole": {"a": [0.2] * 6},
        "part": {"a": [0.5] * 4},
        "alone": {"b": [0.1] * 6},
        "other": {"a": [0.1] * 5},
    }
    against = {"part": "whole", "alone": "whole", "other": "whole", "missing": "whole", "whole": "never trained"}
    gaps = planned_differences(steady(successes, against)).query("task == 'all tasks'").set_index("arm")
    assert set(gaps.index) == {"part", "other"}
    assert gaps.loc["part", ["mean", "pairs", "seeds"]].tolist() == pytest.approx([0.3, 4, 4])
    assert np.isnan(gaps.loc["part", "low"]) and np.isnan(gaps.loc["part", "high"])
    assert gaps.loc["other", ["mean", "low", "high"]].tolist() == pytest.approx([-0.1] * 3)
    nothing = planned_differences(steady({"whole": {"a": [0.2] * 6}}, {}))
    assert nothing.empty and {"task", "arm", "against", "mean", "low", "high", "pairs"} <= set(nothing)
    with pytest.raises(PrefVLMError, match=r"The evaluations lacks the columns \['against'\]"):
        planned_differences(evaluations())


def test_an_arm_is_compared_on_the_tasks_where_the_plan_says_so() -> None:
    data = steady(
        {"whole": {"a": [0.2] * 5, "b": [0.4] * 5}, "part": {"a": [0.5] * 5, "b": [0.9] * 5}}, {"part": "whole"}
    )
    data["budget"] = data["budget"].where(data["task"] == "a", 300)
    data.loc[data["task"] == "b", "against"] = ""
    gaps = planned_differences(data).set_index("task")
    assert set(gaps.index) == {"a", "all tasks"}
    assert gaps.loc["all tasks", ["mean", "pairs", "budget"]].tolist() == pytest.approx([0.3, 5, 100])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        *(
            (0.01, 0.5, "above"),
            (-0.3, -0.01, "below"),
            (0.02, 0.08, "above"),
            (-0.1, 0.1, "level"),
            (0.0, 0.1, "level"),
        ),
        *((0.0, 0.2, "undecided"), (-0.11, 0.1, "undecided"), (-0.4, 0.3, "undecided"), (np.nan, np.nan, "undecided")),
    ],
)
def test_a_direction_needs_an_interval_that_excludes_zero(low: float, high: float, said: str) -> None:
    assert direction({"low": low, "high": high}) == said
