"""What `backbone_results` stores, for people: means with intervals, compact tables, and the answer in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prefvlm_core.analysis.beds import REPLAY
from prefvlm_core.analysis.label_quality import check_columns, decided_vlm_labels
from prefvlm_core.analysis.paired import direction
from prefvlm_core.analysis.stats import ALL_TASKS, student_interval
from prefvlm_core.analysis.vlm_quality import ALL, KINDS, LABELS, NEAR_GOAL, STATE
from prefvlm_core.analysis.wording import interval, points
from prefvlm_core.vlm import VLMS

UNTRAINED = "random"
TAUGHT = LABELS[1]
"""The number of labels after which models are compared: about what a laptop run gives its VLM."""
_CORRELATIONS = ("error_correlation", "episode_order", "value_order")


def label_table(labels: pd.DataFrame, bed: str = REPLAY) -> pd.DataFrame:
    """How good labels are on one kind of bed: one row per model, reader, number of labels and task, and "all tasks".

    Columns: model, reader, labels, task, draws (beds of the task, of "all tasks": in all), and of each number in the
    stored rows the mean, `_low` and `_high`: the 95 % Student t interval over the beds of these tasks, clipped to the
    possible range; nan for one task with less than 3 beds, and where a task has one bed that can be judged. "all tasks"
    is the mean of the tasks' means.
    """
    rows, measures = [], [*KINDS, "error_correlation", "episode_order", "calibration_error", "scaled_calibration_error"]
    of_bed = labels[labels["kind"] == bed]
    check_columns(of_bed, {"model", "reader", "labels", "task", *measures}, "table of labels", "backbone_results")
    for (model, reader, count), of_reader in of_bed.groupby(["model", "reader", "labels"], sort=False):
        tasks = list(of_reader["task"].unique())
        for task, included in [*((task, [task]) for task in tasks), (ALL_TASKS, tasks)]:
            beds = of_reader[of_reader["task"].isin(included)]
            row = {"model": model, "reader": reader, "labels": count, "task": task, "draws": len(beds)}
            rows.append(row | {name: value for measure in measures for name, value in _interval(beds, measure).items()})
    return pd.DataFrame(rows)


def film_table(films: pd.DataFrame) -> pd.DataFrame:
    """One row per model: films, value_order (mean over tasks of the means over films), `_low` and `_high` (95 % Student
    t interval over the films of these tasks)."""
    rows = [
        {"model": model, "films": len(of_model)} | _interval(of_model, "value_order")
        for model, of_model in films.groupby("model", sort=False)
    ]
    return pd.DataFrame(rows)


def _interval(rows: pd.DataFrame, measure: str) -> dict[str, float]:
    groups = [values for _, values in rows.dropna(subset=measure).groupby("task")[measure]]
    mean, low, high = student_interval(groups) if groups else (np.nan, np.nan, np.nan)
    if len(groups) == 1 and len(groups[0]) < 3:
        low = high = np.nan
    least = -1.0 if measure in _CORRELATIONS else 0.0
    return {measure: mean, f"{measure}_low": np.maximum(low, least), f"{measure}_high": np.minimum(high, 1.0)}


def backbone_overview(
    models: pd.DataFrame, replays: pd.DataFrame, films: pd.DataFrame, mixed: pd.DataFrame
) -> pd.DataFrame:
    """What a reader compares models by, one row per model that was judged and one for the state probe.

    `replays` and `mixed` are each a `label_table`, `films` is a `film_table`.
    """
    by_reader = ["model", "reader", "labels"]
    taught, ranked = (table[table["task"] == ALL_TASKS].set_index(by_reader) for table in (replays, mixed))
    orders = films.set_index("model")["value_order"]
    rows = {}
    for model in models[models["missing"].isna()].to_dict("records"):
        name, frozen = model["model"], taught.loc[(model["model"], "zero-shot", 0)]
        rows[name] = {
            "zero-shot (%)": interval(frozen, ALL),
            "near the goal (%)": interval(frozen, NEAR_GOAL),
            f"{TAUGHT} labels (%)": interval(taught.loc[(name, "adapters", TAUGHT)], ALL),
            f"probe, {TAUGHT} labels (%)": interval(taught.loc[(name, "ridge", TAUGHT)], ALL),
            "errors shared with the state": f"{frozen['error_correlation']:z.2f}",
            "VOC": f"{orders[name]:z.2f}",
            "Kendall's τ": f"{ranked.loc[(name, 'zero-shot', 0), 'episode_order']:z.2f}",
            "calibration error": f"{frozen['calibration_error']:.2f}",
            "the same, rescaled": f"{frozen['scaled_calibration_error']:.2f}",
            "ms per frame": f"{model['milliseconds']:.2g}",
            "parameters": f"{model['parameters'] / 1e6:.1f} M",
        }
    rows[STATE] = {f"probe, {TAUGHT} labels (%)": interval(taught.loc[(STATE, "ridge", TAUGHT)], ALL)}
    return pd.DataFrame(rows).T.fillna("")


def missing_in_words(models: pd.DataFrame) -> str:
    """Which models were judged, which were not yet, and which could not be loaded and why, as Markdown."""
    there = models[models["missing"].isna()]["model"]
    absent = models.dropna(subset="missing")
    lines = [f"- Judged: {', '.join(f'`{name}`' for name in there)}."]
    unjudged = [name for name in VLMS if not name.endswith(":") and name not in set(models["model"])]
    lines += [f"- Not judged yet: {', '.join(f'`{name}`' for name in unjudged)}."] if unjudged else []
    lines += [f"- Missing: `{row.model}`. {row.missing}" for row in absent.itertuples()]
    return "\n".join(lines)


def gaps_by_accuracy(gaps: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The rows of all tasks of a `paired.planned_differences` with `accuracy`: how often the labels of its VLM are
    right (0..1).

    `labels` is the label log of the same runs. A simulated VLM has the accuracy that it was given, another the mean
    over tasks of what its labels in these runs had. A VLM that gave no label is left out.
    """
    by_task = 1 - decided_vlm_labels(labels).groupby(["task", "arm"])["error"].mean()
    pooled = gaps[gaps["task"] == ALL_TASKS]
    measured = pooled["arm"].map(by_task.groupby("arm").mean())
    return pooled.assign(accuracy=pooled["simulated_accuracy"].fillna(measured)).dropna(subset="accuracy")


def gain_at(gaps: pd.DataFrame, accuracy: float) -> dict[str, float]:
    """What PrefVLM gains with a simulated VLM at an accuracy within those that were tried, by straight lines between
    them, at the nearest of them outside: mean, low and high. `gaps` is a `gaps_by_accuracy`."""
    curve = gaps[gaps["simulated_accuracy"].notna() & (gaps["method"] == "prefvlm")].sort_values("accuracy")
    return {name: float(np.interp(accuracy, curve["accuracy"], curve[name])) for name in ("mean", "low", "high")}


def answer_in_words(table: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """How good the models at hand are as labelers of real training, and what that is worth, in three sentences.

    `table` is a `label_table` of replays, `gaps` a `gaps_by_accuracy` whose arms are compared with one without a VLM.
    """
    rows = table[table["task"] == ALL_TASKS]
    frozen = _best(rows[(rows["reader"] == "zero-shot") & (rows["model"] != UNTRAINED)])
    adapted = rows[(rows["reader"] == "adapters") & (rows["labels"] == TAUGHT)]
    (untrained,) = adapted[adapted["model"] == UNTRAINED].to_dict("records")
    taught = _best(adapted[adapted["model"] != UNTRAINED])
    (state,) = rows[(rows["model"] == STATE) & (rows["labels"] == TAUGHT)].to_dict("records")
    low, high = frozen[f"{NEAR_GOAL}_low"], frozen[f"{NEAR_GOAL}_high"]
    chance = "where chance is 50 %" if low > 0.5 or high < 0.5 else "which is not told from chance"
    return (
        f"On replays of real training the best model at hand, `{frozen['model']}`, labels {interval(frozen, ALL)} % of "
        f"the pairs right zero-shot and {interval(frozen, NEAR_GOAL)} % of those near the goal, {chance}. After "
        f"{TAUGHT} labels the best, `{taught['model']}`, is right in {interval(taught, ALL)} %, an untrained network "
        f"in {interval(untrained, ALL)} %, a linear probe of the state in {interval(state, ALL)} %."
        f"{_worth_in_words(gaps, taught[ALL])}"
    )


def _worth_in_words(gaps: pd.DataFrame, accuracy: float) -> str:
    """What a simulated VLM that is right so often gains, where runs of some are there."""
    if gaps["simulated_accuracy"].isna().all():
        return ""
    gain = gain_at(gaps, accuracy)
    return (
        " A simulated VLM that is right as often as the best, but errs on its own, ends "
        f"{points(gain)} points from no VLM: {direction(gain)}."
    )


def _best(rows: pd.DataFrame) -> dict[str, float]:
    return dict(rows.loc[rows[ALL].idxmax()])
