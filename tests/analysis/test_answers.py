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


def test_differences_are_those_of_each_task() -> None:
    rows = [
        ("a", "x", "x", 1, 0.2),
        ("a", "y", "y", 1, 0.3),
        (ALL_TASKS, "x", "x", 1, 0.5),
        (ALL_TASKS, "y", "y", 1, 0.4),
    ]
    assert answers.differences_in_words(summary(rows), "x") == (
        "- **a**: x ends at 20 (10–30) % success; y +10 points."
    )
    assert answers.differences_in_words(summary(rows[1:2]), "x") == ""


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
