"""The pilot of profile laptop's second comparison: how many labels to give, and which parts prefvlm-plus should have.

    python tools/pilot.py RESULTS [ARM ...]

Trains what is missing of some arms (of none by default) in the folder RESULTS, on pilot seeds only, and writes every
run that is finished there to results/laptop/pilot_second.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prefvlm_core.analysis.paired import MEASURES, run_scores
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.experiments.plan import train_missing
from prefvlm_core.methods import run_config
from prefvlm_core.runs.files import write_atomically
from prefvlm_core.runs.stored import find_runs, load_metrics

TABLE = Path("results/laptop/pilot_second.csv")
SEEDS = range(200, 204)
BUDGETS = {"button-press-v3": 32, "door-close-v3": 32, "window-close-v3": 64, "window-open-v3": 64}
"""Task -> labels of the arms that have no number of their own."""
HARD_TASKS = ("door-open-v3", "drawer-open-v3", "sweep-into-v3")
DOUBTED = {"filter.mode": "audited", "filter.human_selection": "random"}
DISPUTED = {"filter.human_order": "disagreement"}
SIMULATED = {"vlm.model": "simulated:0.8", "adapter.enabled": False}
"""Arms besides `pebble:<labels>`, PEBBLE with the same number of labels on every task."""
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform": ("pebble", {"feedback.sampling": "uniform"}),
    "near-policy": ("pebble", {"feedback.recent_episodes": 10}),
    "simulated": ("prefvlm", SIMULATED),
    "simulated, doubted": ("prefvlm", SIMULATED | DOUBTED),
    "simulated, doubted, disputed": ("prefvlm", SIMULATED | DOUBTED | DISPUTED),
    "prefvlm": ("prefvlm", {}),
    "prefvlm-plus": ("prefvlm-plus", {}),
}


def main(results: str, arms: Sequence[str]) -> None:
    """Train the runs of `arms` that are missing, and write the table of all that are finished."""
    for arm in arms:
        train_missing(runs_of(arm), Execution(results))
    runs = {run.run_id: run.config for run in find_runs(results, "laptop") if run.manifest["status"] == "finished"}
    data = load_metrics([run for run in find_runs(results, "laptop") if run.run_id in runs])
    scores = run_scores(data.assign(arm=data["run_id"]))  # every run stands for itself
    accuracy = data.sort_values("step").groupby("run_id")["reward_accuracy"].last()
    settings = pd.DataFrame({run_id: shown(config) for run_id, config in runs.items()}).T
    table = scores.join(settings, on="arm").join(accuracy, on="arm").drop(columns="arm")
    table = table.sort_values([*settings.columns, "task", "seed"])
    write_atomically(TABLE, table.to_csv(index=False, float_format="%.3f", lineterminator="\n").encode())
    print(table.groupby(list(settings.columns))[[*MEASURES, "reward_accuracy"]].mean().round(2).to_string())


def shown(config: RunConfig) -> dict[str, Any]:
    """The fields in which runs of the pilot differ."""
    asks = config.reward.source == "learned"
    return {
        "recipe": config.method,
        "steps": config.total_steps,
        "batch": config.sac.batch_size,
        "evaluated_every": config.evaluation.every,
        "schedule": config.feedback.schedule if asks else "",
        "labels": config.feedback.budget,
        "order": config.filter.human_order if config.vlm.labels else "",
        "near_policy": config.feedback.recent_episodes,
        "sampling": config.feedback.sampling if asks else "",
        "vlm": config.vlm.model if config.vlm.labels else "",
        "adapters": config.adapter.kind if config.adapter.enabled else "",
        "filter": config.filter.mode if config.vlm.labels else "",
    }


def runs_of(arm: str) -> list[RunConfig]:
    """The runs of an arm on the four tasks, or of SAC on those that it might not learn (`sac`)."""
    if arm == "sac":
        longer = {"total_steps": 10_000, "sac.temperature_learning_rate": 1e-3}
        return [run_config(task, "sac", seed, "laptop", longer) for seed in SEEDS for task in HARD_TASKS]
    budget = arm.removeprefix("pebble:")
    method, changes = ARMS[arm] if budget == arm else ("pebble", {})
    labels = {task: given if budget == arm else int(budget) for task, given in BUDGETS.items()}
    return [
        run_config(task, method, seed, "laptop", share_of(labels[task]) | changes) for seed in SEEDS for task in BUDGETS
    ]


def share_of(labels: int) -> dict[str, int]:
    """A quarter of the labels in the first session."""
    return {"feedback.budget": labels, "feedback.first_session_queries": labels // 4}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
