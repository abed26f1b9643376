"""What the tables say, for people: compact tables, and the sentences with which notebooks answer their question."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from prefvlm_core.analysis.label_quality import PARTITIONS
from prefvlm_core.analysis.paired import DECIDING, MARGIN, direction, verdict
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.analysis.wording import interval, points, said_equivalent, signed_points


def success_by_task(table: pd.DataFrame) -> pd.DataFrame:
    """A `stats.summary_table` as people read it: one row per arm, in percent with 95 % intervals, one column per task.

    An arm that did not run on a task has an empty cell there, one with a single seed has no interval.
    """
    table = table[table["task"] != ALL_TASKS]
    cells = table.assign(cell=[interval(row, "success") for row in table.to_dict("records")])
    tasks, arms = list(table["task"].unique()), list(table["arm"].unique())
    return cells.pivot(index="arm", columns="task", values="cell").reindex(arms)[tasks].fillna("")


def errors_by_arm(rates: pd.DataFrame) -> pd.DataFrame:
    """`label_quality.error_rates` as people read them: one row per arm, how many of the VLM's labels are wrong, in all
    and in each partition, flipped ones after the flip. A partition without labels has an empty cell."""
    columns = {"arm": list(rates["arm"])}
    for title, labels, error in (
        ("VLM wrong", "labels", "error"),
        *((f"{name} wrong", f"{name}_labels", f"{name}_error") for name in PARTITIONS),
    ):
        pairs = zip(rates[labels], rates[error], strict=True)
        columns[title] = [f"{100 * wrong:.0f} % of {count:,}" if count else "" for count, wrong in pairs]
    return pd.DataFrame(columns).set_index("arm")


def differences_by_arm(gaps: pd.DataFrame) -> pd.DataFrame:
    """A `paired.planned_differences` as people read it: one row per arm, with its success and that of the arm that it
    is compared with, the difference in points with its 95 % interval, and that of each task where there are several."""
    pooled = _of_all_tasks(gaps)
    table = pooled.assign(
        success=[f"{100 * score:.0f} %" for score in pooled["score"]],
        against=[f"{row.against}: {100 * row.score_against:.0f} %" for row in pooled.itertuples()],
        difference=[points(row) for row in pooled.to_dict("records")],
    )
    columns = {"success": "success", "against": "compared with", "difference": "difference (points)"}
    table = table.set_index("arm")[list(columns)].rename(columns=columns)
    by_task = gaps[gaps["task"] != ALL_TASKS].pivot(index="arm", columns="task", values="mean").reindex(table.index)
    if by_task.shape[1] > 1:
        table = table.join(by_task.map(lambda mean: "" if math.isnan(mean) else signed_points(mean)))
    return table.assign(pairs=pooled["pairs"].tolist())


def differences_in_words(gaps: pd.DataFrame) -> str:
    """What a `paired.planned_differences` says of each arm, all tasks together, as Markdown, one line per arm.

    "above" and "below" are said only where the interval excludes 0. Without an interval nothing is decided, and of one
    seed nothing is said.
    """
    rows = _of_all_tasks(gaps)
    if rows["seeds"].max() == 1:
        return "One seed shows the mechanism only; success is compared in profile laptop."
    return "\n".join(_difference_in_words(row) for row in rows.to_dict("records"))


def _difference_in_words(gap: Mapping[str, Any]) -> str:
    arm, against, said = f"- **{gap['arm']}**", f"*{gap['against']}*", points(gap)
    found = direction(gap)
    if found in ("above", "below"):
        return f"{arm} ends {found} {against}: {said} points."
    if found == "level":
        return f"{arm} is level with {against}, within ±{100 * MARGIN:.0f} points: {said}."
    seeds = f"{gap['seeds']:.0f} {'seed' if gap['seeds'] == 1 else 'seeds'}"
    return f"{arm} against {against}: {said} points, undecided with {seeds}."


def differences_counted(gaps: pd.DataFrame) -> str:
    """How many arms of a `paired.planned_differences` end above the one that they are compared with, below it, level
    with it or undecided, as a Markdown line per arm that others are compared with."""
    lines = []
    for against, rows in _of_all_tasks(gaps).groupby("against", sort=False):
        found = Counter(map(direction, rows.to_dict("records")))
        counts = ", ".join(f"{found[name]} {name}" for name in ("above", "below", "level", "undecided"))
        lines.append(f"- Of {len(rows)} compared with *{against}*: {counts}.")
    return "\n".join(lines)


def _of_all_tasks(gaps: pd.DataFrame) -> pd.DataFrame:
    """The rows of all tasks together (those of a single task where there are no others), by the arm that they are
    compared with, the best first."""
    pooled = gaps if gaps["task"].nunique() == 1 else gaps[gaps["task"] == ALL_TASKS]
    pooled = pooled.sort_values("mean", ascending=False, kind="stable")
    return pooled.sort_values("against", kind="stable")


def labels_needed(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Labels with which each family of arms reaches what the family `baseline` reaches with its largest budget.

    `table` is a `stats.summary_table`. One row per task and family that asks a human, columns task, family, target
    (0..1, that success), budget (the smallest of the budgets tried whose success, the interquartile mean, is at least
    the target; nan where none is). Tasks on which `baseline` did not run are left out.
    """
    needed = []
    for task, rows in table[table["budget"] > 0].groupby("task", sort=False):
        baselines = rows[rows["family"] == baseline].sort_values("budget")
        if baselines.empty:
            continue
        target = baselines["success"].iloc[-1]
        for family, of_family in rows.groupby("family"):
            budget = of_family.loc[of_family["success"] >= target, "budget"].min()
            needed.append({"task": task, "family": family, "target": target, "budget": budget})
    return pd.DataFrame(needed, columns=["task", "family", "target", "budget"])


def labels_needed_in_words(needed: pd.DataFrame, baseline: str) -> str:
    """What `labels_needed` says, as Markdown: on how many tasks each family needs fewer or more labels, then each task.

    "More" counts tasks on which no budget tried was enough.
    """
    lines = []
    budgets = needed[needed["task"] != ALL_TASKS].set_index(["family", "task"])["budget"]
    for family in sorted(set(needed["family"]) - {baseline}):
        own = budgets[family].fillna(math.inf)
        theirs = budgets[baseline].reindex(own.index)
        counts = f"fewer labels on {(own < theirs).sum()}, as many on {(own == theirs).sum()}, more on "
        counts += f"{(own > theirs).sum()} of {len(own)} tasks"
        lines.append(f"- To reach what *{baseline}* reaches with its largest budget, *{family}* needs {counts}.")
    for task, rows in needed.groupby("task", sort=False):
        enough = rows.dropna(subset="budget").sort_values("budget")
        said = ", ".join(f"*{row.family}* {row.budget:,.0f} labels" for row in enough.itertuples())
        failed = ", ".join(f"*{family}*" for family in rows.loc[rows["budget"].isna(), "family"])
        missed = f"; not reached with the budgets tried: {failed}" if failed else ""
        lines.append(f"- **{task}**: {100 * rows['target'].iloc[0]:.0f} % success takes {said}{missed}.")
    return "\n".join(lines)


def worth_in_words(worth: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """What a `worth_table` and a `difference_table` say of PrefVLM's success, as Markdown, one line per arm."""
    rows = worth[(worth["measure"] == DECIDING) & worth["mean"].notna()].sort_values("mean", ascending=False)
    ends = worth.loc[worth["mean"].isna(), "labels"]
    gap_of = gaps[gaps["measure"] == DECIDING].set_index("arm")
    lines = []
    for row in rows.itertuples():
        gap, (mean, low, high) = gap_of.loc[row.arm], (_at_ends(each, ends) for each in (row.mean, row.low, row.high))
        between = "" if math.isnan(row.low) else f" ({low} to {high})"
        lines.append(
            f"- *{row.arm}* does what PEBBLE does with {mean} B{between}. From *{gap['against']}* it is {points(gap)} "
            f"points away: {verdict(gap)}."
        )
    return "\n".join(lines)


def _at_ends(number: float, ends: pd.Series) -> str:
    """A label equivalent in words, which the ends of the ladder only bound."""
    return said_equivalent(number, ends.min(), ends.max(), "at most", "at least")
