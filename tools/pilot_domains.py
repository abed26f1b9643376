"""The pilot of profile laptop's mazes and walker: how many labels to give.

    python tools/pilot_domains.py RESULTS [LABELS ...]

Trains what is missing of PEBBLE with some numbers of labels (0: SAC on the true reward) in the folder RESULTS, on pilot
seeds only, and writes every run that is finished there to results/laptop/pilot_domains.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from prefvlm_core.analysis.paired import run_scores
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.experiments.other_domains import BUDGETS, labeled, true_reward
from prefvlm_core.experiments.plan import train_missing
from prefvlm_core.methods import run_config
from prefvlm_core.runs.files import write_atomically
from prefvlm_core.runs.stored import find_runs, load_metrics

TABLE = Path("results/laptop/pilot_domains.csv")
SEEDS = range(200, 204)


def main(results: str, numbers: Sequence[int]) -> None:
    """Train what is missing with these numbers of labels, and write the table of all that is finished."""
    train_missing(pilot_runs(numbers), Execution(results))
    write_table(results)


def pilot_runs(numbers: Sequence[int]) -> list[RunConfig]:
    """Every task with these numbers of labels on every pilot seed."""
    return [pilot_run(task, labels, seed) for seed in SEEDS for task in BUDGETS for labels in numbers]


def pilot_run(task: str, labels: int, seed: int) -> RunConfig:
    """PEBBLE with `labels`, or with none SAC on the true reward."""
    method, changes = ("pebble", labeled(task, labels)) if labels else ("sac", true_reward(task))
    return run_config(task, method, seed, "laptop", changes)


def write_table(results: str) -> None:
    """Write a row per finished run: its scores, and its return and the reward ensemble's accuracy at the end."""
    runs = [run for run in find_runs(results, "laptop") if run.manifest["status"] == "finished"]
    data = load_metrics(runs)
    data = data.assign(arm=data["run_id"])  # every run stands for itself
    steps = {run.run_id: run.config.total_steps for run in runs}
    last = data.sort_values("step").groupby("run_id").tail(3).groupby("run_id")
    table = (
        run_scores(data)
        .set_index("arm")
        .assign(
            steps=pd.Series(steps),
            last_return=last["episode_return"].mean(),
            reward_accuracy=last["reward_accuracy"].last(),
        )
    )
    table = table.sort_values(["task", "steps", "budget", "seed"])
    write_atomically(TABLE, table.to_csv(index=False, float_format="%.3f", lineterminator="\n").encode())
    means = table.groupby(["task", "steps", "budget"])[["last_three", "success_area", "last_return"]].mean()
    print(means.round(2).to_string(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [int(labels) for labels in sys.argv[2:]])
