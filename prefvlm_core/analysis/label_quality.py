"""How good labels are: error rates of the VLM and of the filter's partitions, in tables and in words.

Label rows are tidy, one per label, with the columns `LABEL_COLUMNS`: `label` is P(second segment preferred), 0, 1/2 or
1, as the teacher gave it before any flip, `truth` the same by the true reward, and `divergence` is in nats. Pairs whose
truth is 1/2 (a tie) have no correct label and are left out.
"""

import math

import numpy as np
import pandas as pd

from prefvlm_core.analysis import stats
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.preferences.filters import Partition

PARTITIONS = Partition._fields
LABEL_COLUMNS = (
    *("profile", "task", "method", "arm", "seed", "run_id"),
    *("teacher", "label", "truth", "divergence", "partition"),
)
WORTHWHILE_RATIO = 0.5
"""The filter earns its place when the labels it keeps are wrong at most this many times as often as all of them."""
ENOUGH_LABELS = 20
"""Flipped labels of an arm on a task, over all its runs, from which on their accuracy is shown."""


def check_columns(table: pd.DataFrame, columns: set[str], name: str, source: str) -> None:
    """Raise PrefVLMError, naming the table and where it comes from, unless it has `columns` and at least one row."""
    if missing := columns - set(table):
        raise PrefVLMError(f"The {name} lacks the columns {sorted(missing)}; use what {source} returns.")
    if table.empty:
        raise PrefVLMError(f"The {name} has no row; {source} has nothing to show for these runs.")


def decided_vlm_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """The VLM's labels of pairs that the true reward can tell apart, with three more columns.

    `error` is |label - truth|: 0 right, 1 wrong, 1/2 a tie; `used` is the label that reward learning sees, the opposite
    one where the filter flips; `used_error` is its error. Raises PrefVLMError for missing columns, or when the VLM
    gave no such label.
    """
    check_columns(labels, set(LABEL_COLUMNS), "label log", "experiments.plan.label_log")
    rows = labels[(labels["teacher"] == "vlm") & (labels["truth"] != 0.5)]
    check_columns(rows, set(), "VLM's label log", "experiments.plan.label_log")
    used = rows["label"].where(rows["partition"] != "flipped", 1 - rows["label"])
    truth = rows["truth"]
    return rows.assign(error=(rows["label"] - truth).abs(), used=used, used_error=(used - truth).abs())


def error_rates(labels: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: how often the VLM is wrong, and how often in each partition of the KL filter.

    Columns: method, arm, labels (of the VLM, truth 1/2 left out), error (0..1, fraction of them wrong); for clean,
    flipped and uncertain `<partition>_labels` and `<partition>_error` (flipped: after the flip; nan where there is no
    label); clean_ratio = clean_error / error (nan where either is undefined), clean_ratio_low and clean_ratio_high (its
    95 % bootstrap interval over runs, stratified by task; nan when a task has one run only).
    Labels of all runs and tasks of an arm count alike. Raises PrefVLMError as `decided_vlm_labels` does.
    """
    rows = decided_vlm_labels(labels)
    table = []
    for (method, arm), of_arm in rows.groupby(["method", "arm"]):
        row = {"method": method, "arm": arm, "labels": len(of_arm), "error": of_arm["error"].mean()}
        for partition in PARTITIONS:
            errors = of_arm.loc[of_arm["partition"] == partition, "used_error"]
            row |= {f"{partition}_labels": len(errors), f"{partition}_error": errors.mean()}
        low, high = _ratio_interval(of_arm)
        ratio = row["clean_error"] / row["error"] if row["error"] else math.nan
        table.append(row | {"clean_ratio": ratio, "clean_ratio_low": low, "clean_ratio_high": high})
    return pd.DataFrame(table)


def _ratio_interval(rows: pd.DataFrame) -> tuple[float, float]:
    clean = rows["partition"] == "clean"
    counts = rows.assign(clean=clean, clean_wrong=rows["error"].where(clean, 0.0), all=1)
    runs = counts.groupby(["task", "run_id"])[["clean_wrong", "clean", "error", "all"]].sum().astype(np.float64)
    sums = runs.to_numpy()

    def ratio(chosen: np.ndarray, axis: int) -> np.ndarray:
        clean_wrong, clean, wrong, everything = np.moveaxis(sums[chosen.astype(np.int64)].sum(axis=axis - 1), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample without clean labels has no ratio
            return (clean_wrong / clean) / (wrong / everything)

    tasks = runs.index.get_level_values("task")
    indices = [np.flatnonzero(tasks == task) for task in tasks.unique()]
    return stats.stratified_bootstrap_interval(indices, ratio, np.random.default_rng(0))


def accuracies_at_end(data: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """How often labels are right at the end of each run: columns task, method, arm, profile, seed, mark, value (0..1).

    `mark` is one of `columns`, which hold the accuracies of all labels so far or of a partition's. Those of flipped
    labels are left out where an arm has fewer than `ENOUGH_LABELS` of them on a task: of the labels that a run used,
    the evaluations hold the number (vlm_labels, clean and flipped) and the shares. Raises PrefVLMError for malformed
    evaluations.
    """
    stats.check_evaluations(data)
    run = ["task", "method", "arm", "profile", "seed"]
    columns = [column for column in columns if column in data]
    values = data.sort_values("step").dropna(subset=columns, how="all") if columns else data.iloc[:0]
    last = values.groupby("run_id").tail(1)
    tidy = last.melt(run, columns, "mark", "value").dropna(subset="value")
    if "flipped_accuracy" not in columns:
        return tidy
    used = last["flipped_fraction"] / (last["clean_fraction"] + last["flipped_fraction"])
    flipped = (last["vlm_labels"] * used).groupby([last["task"], last["arm"]]).sum()
    few = flipped.index[flipped.round() < ENOUGH_LABELS]
    rare = (tidy["mark"] == "flipped_accuracy") & pd.MultiIndex.from_frame(tidy[["task", "arm"]]).isin(few)
    return tidy[~rare]


def error_correlations(labels: pd.DataFrame) -> pd.Series:
    """Arm -> correlation of the VLM's errors and the reward ensemble's about the same pairs, over all its runs.

    The ensemble errs where it gives the truth less than 1/2, before it learns from the pair. Where the correlation is
    0 the two are independent witnesses; at 1 the filter can find no error. It is nan where either never errs or always
    does. Pairs that the VLM labels 1/2 are left out. Raises PrefVLMError as `decided_vlm_labels` does.
    """
    errors = _errors_of_both(labels).groupby("arm")[["error", "of_ensemble"]]
    with np.errstate(invalid="ignore"):  # before version 3, pandas warns where one never errs
        return errors.apply(lambda arm: arm["error"].corr(arm["of_ensemble"])).rename("correlation")


def judges(labels: pd.DataFrame) -> pd.DataFrame:
    """Who is right about the pairs that the VLM labels: one row per task (and "all tasks"), arm and partition (and
    "all").

    Columns: task, arm, partition, labels (how many), share (0..1, of the arm's), vlm and ensemble (0..1, how often each
    is right, the ensemble before it learns from the pair), agree (0..1, how often both say the same). Pairs that the
    VLM labels 1/2 are left out. Raises PrefVLMError as `decided_vlm_labels` does.
    """
    rows = _errors_of_both(labels)
    twice = pd.concat([rows, rows.assign(task=stats.ALL_TASKS)])
    four_times = pd.concat([twice, twice.assign(partition="all")])
    seen = four_times.assign(
        vlm=1 - four_times["error"],
        ensemble=1 - four_times["of_ensemble"],
        agree=four_times["error"] == four_times["of_ensemble"],
    )
    groups = seen.groupby(["task", "arm", "partition"], observed=True)
    table = groups[["vlm", "ensemble", "agree"]].mean()
    table.insert(0, "labels", groups.size())
    table.insert(1, "share", table["labels"] / table["labels"].xs("all", level="partition"))
    return table.reset_index()


def _errors_of_both(labels: pd.DataFrame) -> pd.DataFrame:
    """The VLM's labels but for ties, with `error` and `of_ensemble`: whether the VLM and the ensemble err (0 or 1)."""
    rows = decided_vlm_labels(labels)
    rows = rows[rows["error"] != 0.5]
    disagrees = rows["divergence"] > math.log(2)
    return rows.assign(of_ensemble=(rows["error"] - disagrees).abs())


def error_rates_in_words(rates: pd.DataFrame) -> str:
    """What `error_rates` says, as Markdown, with a verdict on each arm's filter."""
    lines = []
    for row in rates.to_dict("records"):
        said = [f"the VLM is wrong in {100 * row['error']:.0f} % of {_labels(row['labels'])}"]
        for partition in PARTITIONS:
            count, after = row[f"{partition}_labels"], " after the flip" if partition == "flipped" else ""
            rate = f"{100 * row[f'{partition}_error']:.0f} % of {_labels(count)}{after}" if count else "no label"
            said.append(f"{partition}: {rate}")
        lines.append(f"- **{row['arm']}**: {'; '.join(said)}. {_verdict(row)}")
    return "\n".join(lines)


def _verdict(row: dict[str, float]) -> str:
    if row["clean_labels"] == row["labels"]:
        return "Every label is kept: there is no filter to judge."
    if math.isnan(row["clean_ratio"]):
        return "Clean errors cannot be compared with the VLM's."
    interval = "no interval"
    if not math.isnan(row["clean_ratio_low"]):
        interval = f"{row['clean_ratio_low']:.2f} to {row['clean_ratio_high']:.2f}"
    earned = "earns" if row["clean_ratio"] <= WORTHWHILE_RATIO else "does not earn"
    return (
        f"Clean labels are wrong {row['clean_ratio']:.2f} times ({interval}) as often as all: the filter {earned} its "
        f"place (at most {WORTHWHILE_RATIO:g})."
    )


def _labels(count: float) -> str:
    return f"{count:,.0f} label{'' if count == 1 else 's'}"
