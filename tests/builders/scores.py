"""Builders of the scores of runs, as `paired.run_scores` makes them."""

import numpy as np
import pandas as pd


def scores_of(means: dict[str, float], seeds: int = 20, tasks: int = 3, spread: float = 0.0) -> pd.DataFrame:
    """Scores of arms with given means; what a task and seed add is the same for all arms."""
    generator = np.random.default_rng(0)
    rows = [
        {"task": f"task {task}", "arm": arm, "seed": seed, "last_three": mean + shared}
        for task in range(tasks)
        for seed in range(seeds)
        for shared in [spread * generator.standard_normal()]
        for arm, mean in means.items()
    ]
    return pd.DataFrame(rows)


def comparison() -> pd.DataFrame:
    """Two tasks with budgets of 10 and 20 labels, on which `ours` does with one budget what PEBBLE does with two."""
    means = {"pebble B": (0.2, 1), "pebble 2B": (0.6, 2), "ours": (0.6, 1), "no human": (0.1, 0)}
    scores = scores_of({arm: mean for arm, (mean, _) in means.items()}, tasks=2, spread=0.1)
    budget = scores["task"].map({"task 0": 10, "task 1": 20}) * scores["arm"].map({a: n for a, (_, n) in means.items()})
    family = scores["arm"].str.split().str[0]
    other = {measure: scores["last_three"] for measure in ("log_return_area", "success_area")}
    return scores.assign(budget=budget, family=family, method=family, **other)
