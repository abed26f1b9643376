"""Results by the number of stages of a task, and by the length of the segments that are compared."""

from collections.abc import Iterable

import pandas as pd

from prefvlm_core.analysis.label_quality import PARTITIONS, check_columns, decided_vlm_labels
from prefvlm_core.analysis.paired import DECIDING, run_scores
from prefvlm_core.analysis.wording import points
from prefvlm_core.domains.maze_goals import GOALS

LABEL_MEASURES = ("right", *PARTITIONS, "clean_right")
"""Columns of `label_shares`, each a fraction."""


def with_stages(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose task is one of a series that differ in their number of stages alone, with the column `stages`."""
    return table.assign(stages=table["task"].map(GOALS)).dropna(subset="stages").astype({"stages": int})


def label_shares(labels: pd.DataFrame) -> pd.DataFrame:
    """One row per run whose VLM labels, from a label log: its task, arm, method, seed and segment_length, and the
    `LABEL_MEASURES` of the VLM's labels (0..1).

    right: how many are right; clean, flipped, uncertain: how many are in this partition of the filter; clean_right: how
    many of the clean ones are right (nan without any). Raises PrefVLMError as `decided_vlm_labels` does.
    """
    check_columns(labels, {"segment_length"}, "label log", "experiments.plan.label_log")
    rows = decided_vlm_labels(labels)
    shares = {name: (rows["partition"] == name).astype(float) for name in PARTITIONS}
    right = 1 - rows["error"]
    rows = rows.assign(right=right, clean_right=right.where(rows["partition"] == "clean"), **shares)
    runs = rows.groupby("run_id")
    return runs[["task", "arm", "method", "seed", "segment_length"]].first().join(runs[list(LABEL_MEASURES)].mean())


def by_segment_length(data: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Success and label accuracy of the runs of arms that exist with segments of several lengths, from evaluations and
    the label log of the same runs.

    One row per run and measure: task, seed, method, segment_length, measure ("success" or "labels right") and value
    (0..1). An arm of the group "segments" and the arm that it is compared with differ in their segments alone. Without
    such arms there are no rows.
    """
    check_columns(data, {"segment_length", "against"}, "evaluations", "experiments.plan.evaluations")
    special = data[data["group"] == "segments"]
    compared = data[data["arm"].isin({*special["arm"], *special["against"]}) & data["task"].isin(set(special["task"]))]
    columns = ["task", "seed", "method", "segment_length", "measure", "value"]
    if compared.empty:
        return pd.DataFrame(columns=columns)
    lengths = compared.groupby("arm")["segment_length"].first()
    scores = run_scores(compared).rename(columns={DECIDING: "value"})
    scores = scores.assign(segment_length=scores["arm"].map(lengths), measure="success")
    of_labels = labels[labels["run_id"].isin(set(compared["run_id"]))]
    rates = label_shares(of_labels).rename(columns={"right": "value"}).assign(measure="labels right")
    return pd.concat([scores[columns], rates[columns]], ignore_index=True)


def differences_by_stages_in_words(gaps: pd.DataFrame) -> str:
    """What rows of `paired.planned_differences` with the column `stages` say, as Markdown, one line per arm."""
    lines = []
    for (arm, against), rows in gaps.sort_values("stages").groupby(["arm", "against"], sort=False):
        said = ", ".join(points(row) for row in rows.to_dict("records"))
        lines.append(f"- **{arm}** against *{against}*: {said} points with {_listed(rows['stages'])} stages.")
    return "\n".join(lines)


def labels_by_stages_in_words(shares: pd.DataFrame) -> str:
    """What rows of `label_shares` with the column `stages` say of one arm's labels, as a line of Markdown."""
    means = 100 * shares.groupby("stages")[list(LABEL_MEASURES)].mean()
    right, kept, clean = (_listed(means[name].round().astype("Int64")) for name in ("right", "clean", "clean_right"))
    return (
        f"- **the VLM's labels**: with {_listed(means.index)} stages, {right} % are right; the filter keeps {kept} %, "
        f"of which {clean} % are right."
    )


def _listed(numbers: Iterable[object]) -> str:
    """Several numbers as text: `1, 2 and 3`."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
