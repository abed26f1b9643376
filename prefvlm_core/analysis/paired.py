"""Arms compared run by run: runs of one task and seed begin alike, so what differs between them is the method.

Scores are those of `run_scores`. Everything is a mean over the pairs of (task, seed) that all arms of a comparison
have, of several tasks the mean of their means, so that a task with more seeds weighs no more, with a 95 % percentile
bootstrap interval that draws seeds within each task, the same ones for every arm. Where a task has fewer than
`means.FEWEST_SEEDS` pairs, there is no interval (nan): it would be much too narrow.
"""

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.means import FEWEST_SEEDS, interval_of_means
from prefvlm_core.analysis.stats import (
    ALL_TASKS,
    ARM_COLUMNS,
    area_under_curve,
    check_evaluations,
    interquartile_mean,
)
from prefvlm_core.common.arrays import DoubleArray
from prefvlm_core.common.errors import PrefVLMError, unknown_name

MEASURES = {
    "last_three": "success, mean of the last three evaluations",
    "log_return_area": "area of log return",
    "success_area": "area of success",
}
"""Columns of `run_scores` that are compared."""
DECIDING = "last_three"
"""The measure that decides."""
CLAIM = ("sac", "pebble", "prefvlm", "prefvlm-plus")
"""Families of arms that the claim about PrefVLM's labels is about: what figures of it show."""
RESAMPLES = 4_000
MARGIN = 0.1
"""Of success, by which an arm may be worse and still count as not inferior."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and the number of pairs (task, seed) behind it."""

    mean: float
    low: float
    high: float
    pairs: int


def verdict(gap: Mapping[str, Any]) -> str:
    """What a row of `difference_table` says of success: "not inferior" (by `MARGIN`), "worse" or "undecided"."""
    return "not inferior" if gap["low"] > -MARGIN else "worse" if gap["high"] < 0 else "undecided"


def direction(gap: Mapping[str, Any]) -> str:
    """What the interval of a difference says of success: "above" or "below" where it excludes 0, "level" where it lies
    within `MARGIN` to both sides, else (also where there is no interval) "undecided"."""
    if gap["low"] > 0:
        return "above"
    if gap["high"] < 0:
        return "below"
    return "level" if -MARGIN <= gap["low"] and gap["high"] <= MARGIN else "undecided"


def run_scores(data: pd.DataFrame) -> pd.DataFrame:
    """One row per run, from one row per evaluation: task, arm, method, seed, those of `stats.ARM_COLUMNS` that `data`
    has, and the `MEASURES`: last_three (0..1), log_return_area (area under the curve of ln(1 + return), for returns of
    at least 0) and success_area (0..1).

    Raises PrefVLMError for malformed `data`.
    """
    check_evaluations(data)
    kept = ["task", "arm", "method", "seed", *(column for column in ARM_COLUMNS if column in data)]
    rows = []
    for _, run in data.sort_values("step").groupby("run_id"):
        log_return = np.log1p(run["episode_return"].clip(lower=0))
        rows.append(
            {
                **run.iloc[-1][kept],
                "last_three": float(run["success"].iloc[-3:].mean()),
                "log_return_area": area_under_curve(run["step"], log_return),
                "success_area": area_under_curve(run["step"], run["success"]),
            }
        )
    return pd.DataFrame(rows)


def difference(scores: pd.DataFrame, arm: str, against: str, measure: str, generator: np.random.Generator) -> Estimate:
    """How much more `arm` scores than `against`, paired by task and seed.

    `arm` is not inferior by a margin if `low` is above minus that margin. Raises PrefVLMError for an arm that is not
    there, and for arms that share no task and seed.
    """
    table = _shared(scores, [arm, against], measure)
    mine, theirs = _draws(table, generator)
    return _estimate(mine - theirs, table)


def label_equivalent(
    scores: pd.DataFrame, arm: str, ladder: Mapping[float, str], measure: str, generator: np.random.Generator
) -> Estimate:
    """How many labels the arm's score is worth, in the unit of `ladder`, by which PEBBLE's scores rise with its labels.

    `ladder` maps numbers of labels (in label budgets B, say) to the arms that have them. Their means are made to rise
    (isotonic regression) and joined by straight lines over the logarithm of the labels. What lies beyond the ladder's
    ends counts as its end: an estimate or a bound that equals the largest or the smallest number means "at least" or
    "at most". Raises the errors of `difference`.
    """
    labels = np.array(sorted(ladder))
    table = _shared(scores, [arm, *(ladder[number] for number in labels)], measure)
    worth = np.array([_labels_worth(draw[0], draw[1:], labels) for draw in _draws(table, generator).T])
    return _estimate(worth, table)


def score_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of the `MEASURES`, one row per arm, task and measure. "all tasks" is the mean of the means of the tasks,
    and exists only for arms that ran on every task.

    Columns: task, arm, measure, mean, low, high (nan with one seed), iqm (interquartile mean over all runs), seeds (of
    the task with fewest).
    """
    rows, tasks = [], sorted(scores["task"].unique())
    for arm, of_arm in scores.groupby("arm"):
        ran = sorted(of_arm["task"].unique())
        groups = {task: [task] for task in ran} | ({ALL_TASKS: tasks} if ran == tasks != tasks[:1] else {})
        for (task, together), measure in itertools.product(groups.items(), MEASURES):
            values = [of_arm.loc[of_arm["task"] == each, measure].to_numpy(np.float64) for each in together]
            seeds = min(map(len, values))
            bounds = interval_of_means(values, np.random.default_rng(0), RESAMPLES) if seeds > 1 else (np.nan, np.nan)
            rows.append(
                {"task": task, "arm": arm, "measure": measure, "mean": np.mean([np.mean(value) for value in values])}
                | dict(zip(("low", "high"), map(float, bounds), strict=True))
                | {"iqm": float(interquartile_mean(np.concatenate(values))), "seeds": seeds}
            )
    return pd.DataFrame(rows)


def difference_table(scores: pd.DataFrame, against: str) -> pd.DataFrame:
    """`difference` of every other arm from `against` in each of the `MEASURES`.

    Columns: arm, against, measure, mean, low, high, pairs. Arms that share no task and seed with it are left out.
    """
    rows = []
    for measure in MEASURES:
        for arm in _others(scores, [against], measure):
            found = difference(scores, arm, against, measure, np.random.default_rng(0))
            rows.append({"arm": arm, "against": against, "measure": measure} | asdict(found))
    return pd.DataFrame(rows)


def planned_differences(data: pd.DataFrame) -> pd.DataFrame:
    """How much more each arm scores than the one that it is compared with (column `against` of the evaluations), in the
    measure that decides: one row per arm and task, and one of "all tasks", from one row per evaluation. "All tasks" are
    those on which the arm is compared with the other one.

    Columns: task, arm, method, those of `stats.ARM_COLUMNS` that `data` has (of "all tasks": the budget is the mean
    over tasks), score and score_against (0..1, means over the pairs of a task, then over tasks), mean, low, high,
    pairs, and seeds (of the task with fewest pairs). With fewer than `means.FEWEST_SEEDS` there is no interval (nan).
    Arms that share no task and seed with the other one are left out. Raises PrefVLMError for malformed `data`.
    """
    check_columns(data, {"against", "budget"}, "evaluations", "experiments.plan.evaluations")
    scores, rows = run_scores(data), []
    kept = ["method", *(column for column in ARM_COLUMNS if column in data)]
    together = pd.concat([scores.assign(group_of=scores["task"]), scores.assign(group_of=ALL_TASKS)])
    for task, of_task in together.groupby("group_of"):
        for (arm, against), of_arm in of_task.groupby(["arm", "against"], sort=False):
            about = {**of_arm.iloc[0][kept], "budget": of_arm.groupby("task")["budget"].first().mean()}
            compared = of_task[of_task["task"].isin(of_arm["task"])]
            if against in _others(compared, [arm], DECIDING):
                rows.append({"task": task, "arm": arm} | about | _planned(compared, arm, against))
    numbers = ["score", "score_against", *(field.name for field in fields(Estimate)), "seeds"]
    return pd.DataFrame(rows, columns=["task", "arm", *kept, *numbers])


def _planned(scores: pd.DataFrame, arm: str, against: str) -> dict[str, float]:
    """The numbers of a row of `planned_differences`."""
    shared = _shared(scores, [arm, against], DECIDING)
    seeds = _fewest_seeds(shared)
    found = difference(scores, arm, against, DECIDING, np.random.default_rng(0))
    means = _mean_over_tasks(shared)
    return {"score": means[arm], "score_against": means[against]} | asdict(found) | {"seeds": seeds}


def worth_table(scores: pd.DataFrame, family: str = "pebble") -> pd.DataFrame:
    """`label_equivalent` of every arm with human labels outside the ladder of `family`, and that ladder's own scores.

    Columns: arm, measure, labels (how many times the ladder's smallest budget the arm has), score (its mean), mean,
    low, high, pairs (of the label equivalent; nan for arms of the ladder). Arms that share no task and seed with the
    whole ladder are left out.
    """
    ladder, shares, rows = ladder_of(scores, family), _shares(scores, family), []
    rungs = list(ladder.values())
    for measure in MEASURES:
        for arm in [*rungs, *(arm for arm in _others(scores, rungs, measure) if shares[arm] > 0)]:
            row = {"arm": arm, "measure": measure, "labels": shares[arm]}
            shared = _shared(scores, [arm, *(rung for rung in rungs if rung != arm)], measure)
            row["score"] = _mean_over_tasks(shared)[arm]
            if arm not in rungs:
                row |= asdict(label_equivalent(scores, arm, ladder, measure, np.random.default_rng(0)))
            rows.append(row)
    return pd.DataFrame(rows)


def ladder_of(scores: pd.DataFrame, family: str = "pebble") -> dict[float, str]:
    """PEBBLE's ladder: how many times its smallest budget each arm of the family has, and the arm.

    Tasks differ in B, their smallest budget, and agree in its multiples. Only with two budgets or more can anything be
    read off it.
    """
    shares, arms = _shares(scores, family), set(scores.loc[scores["family"] == family, "arm"])
    return {float(share): str(arm) for arm, share in shares.sort_values().items() if arm in arms}


def main_arms(data: pd.DataFrame) -> list[str]:
    """The arms of `CLAIM` whose curves tell its story: of PEBBLE those with the two smallest budgets (the mean over
    tasks), of every other family the one with the largest. `data` has one row per evaluation."""
    budgets = data[data["family"].isin(CLAIM)].groupby(["family", "arm"])["budget"].mean().sort_values(kind="stable")
    arms = []
    for family, of_family in budgets.groupby(level="family"):
        arms += list((of_family[:2] if family == "pebble" else of_family[-1:]).index.get_level_values("arm"))
    return arms


def _shares(scores: pd.DataFrame, family: str) -> pd.Series:
    """How many times a task's smallest budget of `family` each arm has, mean over its runs."""
    smallest = scores[scores["family"] == family].groupby("task")["budget"].min()
    return (scores["budget"] / scores["task"].map(smallest)).groupby(scores["arm"]).mean()


def _others(scores: pd.DataFrame, arms: list[str], measure: str) -> list[str]:
    """The arms that share a task and seed with all of `arms`, without these."""
    table = scores.pivot(index=["task", "seed"], columns="arm", values=measure).dropna(subset=arms)
    return [str(arm) for arm in table.dropna(axis="columns", how="all").columns if arm not in arms]


def _labels_worth(score: float, rungs: DoubleArray, labels: DoubleArray) -> float:
    rising = isotonic_regression(rungs).x + 1e-12 * np.arange(len(rungs))  # interpolation needs rising numbers
    return float(np.exp(np.interp(score, rising, np.log(labels))))


def _shared(scores: pd.DataFrame, arms: list[str], measure: str) -> pd.DataFrame:
    """Scores by (task, seed), one column per arm, of the pairs that all arms have."""
    if measure not in MEASURES:
        raise unknown_name("measure", measure, MEASURES)
    for arm in arms:
        if arm not in set(scores["arm"]):
            raise unknown_name("arm", arm, sorted(set(scores["arm"])))
    table = scores.pivot(index=["task", "seed"], columns="arm", values=measure)[arms].dropna()
    if table.empty:
        raise PrefVLMError(f"The arms {', '.join(arms)} share no task and seed; train them with the same seeds.")
    return table


def _draws(table: pd.DataFrame, generator: np.random.Generator) -> DoubleArray:
    """Means over tasks of the means over seeds (arms, 1 + RESAMPLES): of the `_shared` scores themselves, and of the
    bootstrap's."""
    means = []
    for _, of_task in table.groupby("task"):
        values = of_task.to_numpy().T
        drawn = generator.integers(values.shape[1], size=(RESAMPLES, values.shape[1]))
        means.append(np.column_stack((values.mean(-1), values[:, drawn].mean(-1))))
    return np.mean(means, axis=0)


def _mean_over_tasks(table: pd.DataFrame) -> pd.Series:
    """The mean over tasks of the means over seeds of each arm's `_shared` scores."""
    return table.groupby("task").mean().mean()


def _estimate(draws: DoubleArray, table: pd.DataFrame) -> Estimate:
    low = high = np.nan
    if _fewest_seeds(table) >= FEWEST_SEEDS:
        low, high = np.quantile(draws[1:], (0.025, 0.975))
    return Estimate(float(draws[0]), float(low), float(high), len(table))


def _fewest_seeds(table: pd.DataFrame) -> int:
    """Pairs of the task with fewest, in a table of `_shared` scores."""
    return int(table.groupby("task").size().min())
