"""What was wrong with the first comparison of profile laptop, in numbers: prints docs/first_comparison.md.

    python tools/first_comparison.py

Fills the page's template with tables. Reads the stored runs of notebook 02 as they were then (seeds 0 to 4), and
trains nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import StrictUndefined, Template

from prefvlm_core.analysis.stats import interquartile_mean
from prefvlm_core.config.run import Execution
from prefvlm_core.experiments.plan import evaluations, label_log

EXPERIMENT, PROFILE = "02_learning_curves", "laptop"
ACTION_REPEAT = 5
HUMAN_ARMS = ["pebble (1×B)", "pebble (2×B)", "prefvlm (1×B)", "prefvlm-adaptive (1×B)", "prefvlm-plus (1×B)"]
LATER_SESSIONS = 12
"""Sessions after the first one over which a budget was to be spent."""


def main() -> None:
    runs = evaluations(EXPERIMENT, PROFILE, Execution("results"), train=False)
    runs = runs[runs["group"] == ""].assign(action=lambda rows: rows["step"].astype(int) // ACTION_REPEAT)
    labels = label_log(EXPERIMENT, PROFILE, Execution("results"))
    window = runs[runs["task"] == "window-close-v3"]
    tables = {
        "labels_when_due": labels_when_due(runs, labels),
        "first_pairs": same_first_pairs(labels),
        "passes": by_action(runs, "reward_epochs", [1_000, 3_000, 6_000]),
        "accuracy": by_action(window, "reward_accuracy", [4_000, 6_000, 8_000]),
        "lower_threshold": by_action(runs, "tau_lower", [1_000, 3_000, 6_000]),
        "temperature": by_action(runs, "temperature", [1_000, 6_000]),
        "restlessness": restlessness(runs),
        "means": means(runs),
        "judge_and_witness": judge_and_witness(labels),
    }
    template = Template(Path("docs/first_comparison.md.j2").read_text(encoding="utf-8"), undefined=StrictUndefined)
    print(template.render({name: table.to_markdown() for name, table in tables.items()}))


def labels_when_due(runs: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Per arm: the share of its budget spent at some actions, and how many of its sessions fell short."""
    spent = runs.assign(share=runs["human_labels"] / runs["budget"])
    table = by_action(spent, "share", [2_000, 3_000, 4_000, 5_000])
    asked = labels[labels["teacher"] == "human"].groupby(["arm", "run_id", "session", "budget"]).size().rename("asked")
    later = asked.reset_index().query("session > 1")
    planned = -(-(later["budget"] - later["budget"] // 5) // LATER_SESSIONS)
    before = later.groupby("run_id")["asked"].cumsum() - later["asked"] + later["budget"] // 5
    short = later["asked"] < np.minimum(planned, later["budget"] - before)
    return table.assign(**{"sessions short": (100 * short.groupby(later["arm"]).mean()).map("{:.0f} %".format)})


def same_first_pairs(labels: pd.DataFrame) -> pd.DataFrame:
    """Per arm: the share of its first session's pairs that are among those of PEBBLE with one budget."""
    first = labels[(labels["teacher"] == "human") & (labels["session"] == 1)]
    pairs = {
        (arm, task, seed): set(zip(rows["first"], rows["second"], strict=True))
        for (arm, task, seed), rows in first.groupby(["arm", "task", "seed"])
    }
    shares = [
        {"arm": arm, "share": len(own & pairs["pebble (1×B)", task, seed]) / len(own)}
        for (arm, task, seed), own in pairs.items()
        if arm in HUMAN_ARMS and ("pebble (1×B)", task, seed) in pairs
    ]
    return (100 * pd.DataFrame(shares).groupby("arm").mean()).round().astype(int).astype(str) + " %"


def by_action(runs: pd.DataFrame, column: str, actions: list[int]) -> pd.DataFrame:
    """Per arm: the mean of a column over its runs at some actions."""
    rows = runs[runs["arm"].isin(HUMAN_ARMS) & runs["action"].isin(actions)].dropna(subset=column)
    return rows.pivot_table(index="arm", columns="action", values=column).round(2)


def judge_and_witness(labels: pd.DataFrame) -> pd.DataFrame:
    """Per arm and partition: how often the VLM and the ensemble are right, and how often they agree."""
    rows = labels[labels["arm"].isin(HUMAN_ARMS) & (labels["teacher"] == "vlm") & (labels["truth"] != 0.5)]
    agrees = rows["divergence"] < np.log(2)
    right = rows["label"] == rows["truth"]
    table = rows.assign(agrees=agrees, vlm=right, ensemble=right == agrees, count=1)
    found = table.groupby(["arm", "partition"], observed=True).agg(
        {"count": "sum", "vlm": "mean", "ensemble": "mean", "agrees": "mean", "divergence": "median"}
    )
    found["share"] = found["count"] / found.groupby("arm")["count"].transform("sum")
    found.index = [f"{arm}: {partition}" for arm, partition in found.index]
    shown = found[["share", "vlm", "ensemble", "agrees"]].mul(100).round().astype(int).astype(str) + " %"
    shown["median divergence"] = found["divergence"].round(3)
    return shown.rename(columns={"vlm": "VLM right", "ensemble": "ensemble right", "agrees": "ensemble agrees"})


def restlessness(runs: pd.DataFrame) -> pd.DataFrame:
    """Per arm: the standard deviation between evaluations that follow each other, and the share of jumps by half."""
    rows = []
    for arm, of_arm in runs.groupby("arm"):
        jumps = of_arm.sort_values("step").groupby("run_id")["success"].diff().dropna()
        deviation = np.sqrt(np.mean(np.square(jumps)) / 2)
        rows.append(
            {"arm": arm, "deviation": round(float(deviation), 2), "jumps": f"{100 * (jumps.abs() >= 0.5).mean():.0f} %"}
        )
    return pd.DataFrame(rows).set_index("arm")


def means(runs: pd.DataFrame) -> pd.DataFrame:
    """Per arm: success in the last evaluation, by the interquartile and the plain mean over all runs."""
    last = runs.sort_values("step").groupby(["arm", "run_id"])["success"].last().groupby("arm")
    table = pd.DataFrame({"interquartile mean": last.apply(interquartile_mean), "mean": last.mean()})
    return (100 * table.astype(float)).round().astype(int).astype(str) + " %"


if __name__ == "__main__":
    main()
