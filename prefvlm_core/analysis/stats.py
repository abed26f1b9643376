"""Statistics over few seeds: interquartile mean, stratified bootstrap, summary table.

The estimators are those of Agarwal et al. (2021, arXiv 2108.13264) and of rliable, driven by an explicit generator.
Scores are `(seeds, tasks)` arrays, 1-D arrays of one task's seeds, or lists of one array per task.

A percentile interval from very few seeds is too narrow: simulated for the interquartile mean of normal scores, the
nominal 95 % interval held the truth in 49 % of cases with 2 seeds (it is then the range of the two), 73 % with 3,
89 % with 5 and 94 % with 10. One seed has no interval.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid

from prefvlm_core.common.errors import PrefVLMError

ALL_TASKS = "all tasks"
EVALUATION_COLUMNS = (
    *("profile", "task", "method", "arm", "seed", "run_id", "step", "success", "episode_return"),
    *("human_labels", "vlm_labels", "reward_accuracy", "seconds"),
)
ARM_COLUMNS = (
    *("family", "group", "against", "budget", "human", "vlm", "simulated_accuracy", "alpha", "beta", "upper"),
)
"""What an arm is, in the evaluations that `experiments.plan.evaluations` returns; a summary keeps those that are there.

`family`: what arms that differ in one number have in common; `group`: which of a notebook's figures show the arm;
`against`: the arm that it is compared with, "" for none; `budget`: of human labels; `human`: who stands for the human
(`feedback.teacher`); `vlm`: the model, "" for none; `simulated_accuracy`: how often a simulated VLM is right (0..1, nan
for a real one); `alpha`, `beta` and `upper`: RIME's thresholds (nan where the filter sets others or none).
"""
Scores = np.ndarray | Sequence[ArrayLike]
Statistic = Callable[..., np.ndarray]  # statistic(scores, axis=-1), like np.mean


def interquartile_mean(scores: ArrayLike, axis: int = -1) -> np.ndarray:
    """Mean of the middle half along `axis`, as a float64 array without that axis (0-d for 1-D scores).

    Of n sorted scores, floor(n / 4) are dropped at each end and the rest weigh the same: no score counts in part. This
    is `scipy.stats.trim_mean(scores, 0.25)`, which rliable uses. Up to 3 scores it is the plain mean, of 5 the mean of
    the middle 3.
    Raises PrefVLMError when there are no scores.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=axis)
    count = ordered.shape[axis]
    if count == 0:
        raise PrefVLMError("The interquartile mean was asked of 0 scores; it needs at least 1.")
    dropped = count // 4
    return np.take(ordered, range(dropped, count - dropped), axis=axis).mean(axis=axis)


def stratified_bootstrap_interval(
    scores: Scores,
    statistic: Statistic,
    generator: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of `statistic` over the scores of all tasks together.

    Seeds are drawn with replacement within each task, never across tasks; the resampled scores of all tasks are pooled
    into an array `(resamples, scores)` and given to `statistic(pooled, axis=-1)`. A task with more seeds weighs more.
    Returns (nan, nan) when some task has one seed only, since nothing is then known of its spread.
    Raises PrefVLMError for tasks without scores, scores that are not finite, or a confidence outside (0, 1).
    """
    tasks = _per_task(scores)
    if min(map(len, tasks)) < 2:
        return np.nan, np.nan
    pooled = np.concatenate([task[_resample(task, resamples, generator)] for task in tasks], axis=-1)
    return _percentile_interval(statistic(pooled, axis=-1), confidence)


def student_interval(groups: Sequence[ArrayLike]) -> tuple[float, float, float]:
    """(mean, low, high): the mean of the means of independent groups of draws, with its 95 % Student t interval.

    It is exact for normal values even with few draws, for which a bootstrap interval is too narrow. The degrees of
    freedom are those of all groups together; low and high are nan where a group has a single draw.
    """
    draws = [np.asarray(group, dtype=np.float64) for group in groups]
    mean = float(np.mean([group.mean() for group in draws]))
    if min(map(len, draws)) < 2:
        return mean, np.nan, np.nan
    error = np.sqrt(sum(group.var(ddof=1) / len(group) for group in draws)) / len(draws)
    margin = scipy.stats.t.ppf(0.975, sum(len(group) - 1 for group in draws)) * error
    return mean, float(mean - margin), float(mean + margin)


def area_under_curve(steps: ArrayLike, values: ArrayLike) -> float:
    """Mean height of the curve between its first and its last step, by the trapezoid rule, in the units of `values`.

    `steps` and `values` are `(evaluations,)`; a single evaluation gives its own value.
    Raises PrefVLMError unless steps increase strictly and values are finite.
    """
    step, value = _curve(steps, values)
    return float(trapezoid(value, step) / (step[-1] - step[0])) if len(step) > 1 else float(value[0])


def last_tenth(steps: ArrayLike, values: ArrayLike) -> float:
    """Mean of the values, `(evaluations,)`, whose step lies in the last 10 % of the horizon: steps in (0.9 last, last].

    Raises PrefVLMError unless steps increase strictly and values are finite.
    """
    step, value = _curve(steps, values)
    return float(value[10 * step > 9 * step[-1]].mean())  # whole numbers: 0.9 * step would be rounded


def check_evaluations(data: pd.DataFrame) -> None:
    """Raise PrefVLMError unless `data` has one row per evaluation, one run per task, arm and seed, and one method per
    arm."""
    missing = [column for column in EVALUATION_COLUMNS if column not in data]
    if missing:
        raise PrefVLMError(f"The evaluations lack the columns {missing}; they need {list(EVALUATION_COLUMNS)}.")
    if data.empty:
        raise PrefVLMError("There are no evaluations; at least one row is needed.")
    runs = data.groupby(["task", "arm", "seed"])["run_id"].nunique()
    if (runs > 1).any():
        raise PrefVLMError(f"{runs.idxmax()} (task, arm, seed) mixes {runs.max()} runs; allowed is one.")
    methods = data.groupby("arm")["method"].nunique()
    if (methods > 1).any():
        raise PrefVLMError(f"The arm '{methods.idxmax()}' mixes {methods.max()} methods; allowed is one.")
    repeated = data.duplicated(["run_id", "step"])
    if repeated.any():
        row = data[repeated].iloc[0]
        raise PrefVLMError(f"Run '{row['run_id']}' has several evaluations at step {row['step']}; allowed is one.")


def run_table(data: pd.DataFrame) -> pd.DataFrame:
    """One row per run, from one row per evaluation.

    Columns: task, method, arm, those of `ARM_COLUMNS` that `data` has, seed, step, human_labels, vlm_labels (used by
    the end), success (0..1, mean in the last 10 % of its steps) and area_under_curve (0..1). Raises PrefVLMError for
    malformed `data`.
    """
    check_evaluations(data)
    return pd.DataFrame([_run_summary(rows) for _, rows in data.sort_values("step").groupby("run_id")])


def summary_table(data: pd.DataFrame) -> pd.DataFrame:
    """One row per task and arm, and one per arm with task "all tasks", from one row per evaluation.

    Columns: task, method, arm, those of `ARM_COLUMNS` that `data` has (of "all tasks": the budget is the mean over
    tasks), human_labels, vlm_labels (used by the end, mean over runs), seeds (of "all tasks": of the task with
    fewest), success (0..1, interquartile mean over runs of each run's mean in the last 10 % of its steps), success_low,
    success_high (95 % stratified bootstrap interval, nan with one seed), and area_under_curve, area_under_curve_low,
    area_under_curve_high (0..1, the same of each run's area). "all tasks" pools the runs of several tasks and exists
    only for arms that ran on every task in `data`, since others are not comparable. Equal data give equal tables.
    Raises PrefVLMError for malformed `data`, when the seeds of an arm end at different steps (one is unfinished), or
    when they differ in one of `ARM_COLUMNS`.
    """
    runs = run_table(data)
    for name, group in runs.groupby(["task", "arm"]):
        if group["step"].nunique() > 1:
            ends = sorted(set(group["step"]))
            raise PrefVLMError(f"The runs of {name} end at different steps, {ends}; finish all of them first.")
        for column in _arm_columns(runs):
            if group[column].nunique(dropna=False) > 1:
                raise PrefVLMError(f"The runs of {name} differ in '{column}'; an arm has one value of it in a task.")
    tasks = data["task"].nunique()
    rows = [_summary_row(task, group) for (task, _), group in runs.groupby(["task", "arm"])]
    rows.sort(key=lambda row: (row["task"], row["method"], row["human_labels"], row["arm"]))
    pooled = [
        _summary_row(ALL_TASKS, group) for _, group in runs.groupby("arm") if 1 < group["task"].nunique() == tasks
    ]
    pooled.sort(key=lambda row: (row["method"], row["human_labels"], row["arm"]))
    return pd.DataFrame(rows + pooled)


def _arm_columns(table: pd.DataFrame) -> list[str]:
    return [column for column in ARM_COLUMNS if column in table]


def _run_summary(rows: pd.DataFrame) -> dict[str, object]:
    kept = ["task", "method", "arm", *_arm_columns(rows), "seed", "step", "human_labels", "vlm_labels"]
    return {
        **rows.iloc[-1][kept],
        "success": last_tenth(rows["step"], rows["success"]),
        "area_under_curve": area_under_curve(rows["step"], rows["success"]),
    }


def _summary_row(task: str, runs: pd.DataFrame) -> dict[str, Any]:
    row = {"task": task, **runs.iloc[0][["method", "arm", *_arm_columns(runs)]]}
    if "budget" in runs:
        row["budget"] = runs.groupby("task")["budget"].first().mean().round()
    row["human_labels"], row["vlm_labels"] = runs["human_labels"].mean(), runs["vlm_labels"].mean()
    row["seeds"] = runs.groupby("task").size().min()
    for measure in ("success", "area_under_curve"):
        scores = [group.to_numpy(np.float64) for _, group in runs.sort_values("seed").groupby("task")[measure]]
        # A fresh generator per row: a row does not depend on which others are in the table.
        low, high = stratified_bootstrap_interval(scores, interquartile_mean, np.random.default_rng(0))
        row[measure] = float(interquartile_mean(runs[measure]))
        row |= {f"{measure}_low": low, f"{measure}_high": high}
    return row


def _per_task(scores: Scores) -> list[np.ndarray]:
    """One 1-D float64 array of seeds per task."""
    split = np.atleast_2d(scores.T) if isinstance(scores, np.ndarray) else scores
    tasks = [np.asarray(task, dtype=np.float64) for task in split]
    for index, task in enumerate(tasks):
        if task.ndim != 1 or task.size == 0 or not np.isfinite(task).all():
            raise PrefVLMError(
                f"Task {index} has scores {task}; each task needs a 1-D array of at least one finite score."
            )
    if not tasks:
        raise PrefVLMError("There are scores of 0 tasks; at least one task is needed.")
    return tasks


def _resample(task: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    return generator.integers(len(task), size=(resamples, len(task)))


def _percentile_interval(statistics: np.ndarray, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise PrefVLMError(f"confidence is {confidence}; allowed are numbers between 0 and 1, both excluded.")
    low, high = np.quantile(statistics, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _curve(steps: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    step, value = np.asarray(steps), np.asarray(values, dtype=np.float64)
    same_length = step.ndim == 1 and step.shape == value.shape and len(step) > 0
    if not same_length or (np.diff(step) <= 0).any() or not np.isfinite(value).all():
        raise PrefVLMError(
            f"A curve has steps {step} and values {value}; it needs as many finite values as strictly increasing steps."
        )
    return step, value
