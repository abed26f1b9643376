"""Tables and sentences for people: what they say equals numbers worked out by hand."""

import math
from collections.abc import Sequence

import pandas as pd

from prefvlm_core.analysis import answers
from prefvlm_core.analysis.stats import ALL_TASKS


def summary(rows: Sequence[tuple[str, str, str, float, float]]) -> pd.DataFrame:
    """`summary_table` rows of (task, arm, family, budget, success), with intervals of 0.1 to both sides."""
    table = pd.DataFrame(rows, columns=["task", "arm", "family", "budget", "success"])
    return table.assign(success_low=table["success"] - 0.1, success_high=table["success"] + 0.1)


def transfer(task: str, without: dict[int, float], with_it: dict[int, float]) -> pd.DataFrame:
    families = {"without transfer": without, "with transfer": with_it}
    return summary(
        [
            (task, f"{family} ({budget})", family, budget, success)
            for family, points in families.items()
            for budget, success in points.items()
        ]
    )


def test_success_by_task_has_a_row_per_arm_and_a_column_per_task() -> None:
    table = summary([("b", "x", "x", 1, 0.5), ("a", "x", "x", 1, 0.25), ("a", "y", "y", 1, 0.8)])
    table.loc[1, ["success_low", "success_high"]] = math.nan
    shown = answers.success_by_task(table)
    assert list(shown.columns) == ["b", "a"] and list(shown.index) == ["x", "y"]
    assert shown.to_numpy().tolist() == [["50 (40–60)", "25"], ["", "80 (70–90)"]]
    pooled = pd.concat([table, summary([(ALL_TASKS, "x", "x", 1, 0.3)])])
    assert answers.success_by_task(pooled).equals(shown)  # the mean over tasks is the figure's


def test_errors_by_arm_name_counts_and_leave_empty_partitions_empty() -> None:
    counts = {"labels": [1600], "clean_labels": [800], "flipped_labels": [0], "uncertain_labels": [800]}
    errors = {"error": [0.25], "clean_error": [0.1], "flipped_error": [math.nan], "uncertain_error": [0.4]}
    (row,) = answers.errors_by_arm(pd.DataFrame({"arm": ["prefvlm"], **counts, **errors})).to_dict("records")
    assert list(row.values()) == ["25 % of 1,600", "10 % of 800", "", "40 % of 800"]


def gaps() -> pd.DataFrame:
    """A `planned_differences` of four arms, two tasks and two arms that they are compared with."""
    rows = [
        ("x", "all", 0.2, 0.6, -0.4, -0.52, -0.001, 10),
        ("x", "a", 0.1, 0.6, -0.5, -0.6, -0.1, 5),
        ("x", "b", 0.3, 0.6, -0.3, -0.5, 0.1, 5),
        ("y", "all", 0.7, 0.6, 0.1, -0.06, 0.234, 10),
        ("z", "all", 0.604, 0.6, 0.004, -0.05, 0.08, 20),
        ("w", "all", 0.9, 0.5, 0.4, math.nan, math.nan, 8),
    ]
    numbers = ["score", "score_against", "mean", "low", "high", "pairs"]
    table = pd.DataFrame(rows, columns=["arm", "task", *numbers])
    table["task"] = table["task"].replace("all", ALL_TASKS)
    return table.assign(against=table["arm"].map({"w": "human only"}).fillna("whole"), seeds=5)


def test_differences_by_arm_have_the_best_first_and_a_column_per_task() -> None:
    table = answers.differences_by_arm(gaps())
    assert list(table.index) == ["w", "y", "z", "x"]
    assert list(table) == ["success", "compared with", "difference (points)", "a", "b", "pairs"]
    assert table.loc["x"].tolist() == ["20 %", "whole: 60 %", "−40 (−52 to −0)", "−50", "−30", 10]
    assert table.loc["w"].tolist() == ["90 %", "human only: 50 %", "+40", "", "", 8]
    one = gaps().query("task != 'b'")
    assert "a" not in answers.differences_by_arm(one), "one task is all tasks"


def test_differences_are_said_to_be_one_only_where_the_interval_excludes_zero() -> None:
    assert answers.differences_in_words(gaps()).splitlines() == [
        "- **w** against *human only*: +40 points, undecided with 5 seeds.",
        "- **y** against *whole*: +10 (−6 to +23) points, undecided with 5 seeds.",
        "- **z** is level with *whole*, within ±10 points: +0 (−5 to +8).",
        "- **x** ends below *whole*: −40 (−52 to −0) points.",
    ]
    better = gaps().query("arm == 'y'").assign(low=0.01)
    assert answers.differences_in_words(better) == "- **y** ends above *whole*: +10 (+1 to +23) points."
    assert answers.differences_in_words(gaps().assign(seeds=1)).startswith("One seed shows the mechanism only")
    assert answers.differences_in_words(gaps().iloc[:0]) == ""


def test_directions_are_counted_by_the_arm_that_others_are_compared_with() -> None:
    assert answers.differences_counted(gaps()).splitlines() == [
        "- Of 1 compared with *human only*: 0 above, 0 below, 0 level, 1 undecided.",
        "- Of 3 compared with *whole*: 0 above, 1 below, 1 level, 1 undecided.",
    ]


def test_labels_needed_by_hand() -> None:
    both = pd.concat(
        [
            transfer("door-close-v3", {100: 0.8, 50: 0.6}, {100: 0.9, 50: 0.8, 25: 0.4}),
            transfer("window-open-v3", {100: 0.5, 50: 0.7}, {100: 0.4}),
            transfer("drawer-open-v3", {}, {100: 0.4}),
            transfer("door-open-v3", {0: 0.9}, {0: 0.4}),  # asks no human
        ]
    )
    needed = answers.labels_needed(both, "without transfer")
    assert needed["task"].tolist() == ["door-close-v3"] * 2 + ["window-open-v3"] * 2
    assert needed["family"].tolist() == ["with transfer", "without transfer"] * 2
    assert needed["budget"].fillna(-1).tolist() == [50, 100, -1, 50]
    assert needed["target"].tolist() == [0.8, 0.8, 0.5, 0.5]
    assert answers.labels_needed_in_words(needed, "without transfer") == (
        "- To reach what *without transfer* reaches with its largest budget, *with transfer* needs fewer labels on 1, "
        "as many on 0, more on 1 of 2 tasks.\n"
        "- **door-close-v3**: 80 % success takes *with transfer* 50 labels, *without transfer* 100 labels.\n"
        "- **window-open-v3**: 50 % success takes *without transfer* 50 labels; not reached with the budgets tried: "
        "*with transfer*."
    )
    nothing = answers.labels_needed(both[both["task"] == "drawer-open-v3"], "without transfer")
    assert nothing.empty and answers.labels_needed_in_words(nothing, "without transfer") == ""
