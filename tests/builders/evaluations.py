"""Made-up evaluations of runs, as `experiments.plan.evaluations` returns them."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

TASKS = ("door-close-v3", "button-press-v3")
FOUR_TASKS = (*TASKS, "window-open-v3", "window-close-v3")
CURVES = (("sac", "sac", 0), ("pebble", "pebble (400 labels)", 400), ("pebble", "pebble (1200 labels)", 1200))
FILTERS = (
    ("prefvlm", "prefvlm", 100),
    ("prefvlm-adaptive", "adaptive thresholds", 100),
    ("prefvlm-no-filter", "no filter", 100),
)


def evaluated(
    tasks: Sequence[str] = TASKS,
    arms: Sequence[tuple[str, str, int]] = CURVES,
    seeds: int = 3,
    profile: str = "quick",
    evaluations: int = 6,
) -> pd.DataFrame:
    """Arms of (method, arm, budget) with random success. Labels rise to the budget in the first half of the
    evaluations; the VLM labels from the second one on, and of "no filter" nothing is sorted."""
    generator, parts = np.random.default_rng(0), []
    for task, (method, arm, budget), seed in itertools.product(tasks, arms, range(seeds)):
        index = np.arange(1, evaluations + 1)
        human = np.minimum(budget, budget * index * 2 // evaluations)
        columns: Mapping[str, object] = {
            **{
                "profile": profile,
                "task": task,
                "method": method,
                "arm": arm,
                "family": method,
                "group": "",
                "against": "",
            },
            **{"seed": seed, "budget": budget, "run_id": f"{task}/{arm}/{seed}", "step": 10_000 * index},
            "success": generator.integers(0, 17, evaluations) / 16,
            "episode_return": 100.0,
            "human_labels": human,
            "vlm_labels": 40 * index,
            "reward_accuracy": np.nan if method == "sac" else 0.75,
            "seconds": 1.0,
            **_labels(seed, np.where(index > min(1, evaluations - 1), 1.0, np.nan), kept_all=arm == "no filter"),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _labels(seed: int, sessions: np.ndarray, *, kept_all: bool) -> dict[str, object]:
    """What the VLM's labels are like, in sessions that are not nan."""
    return {
        "vlm_accuracy": 0.6 * sessions,
        "adapted_vlm_accuracy": (0.6 + 0.05 * seed) * sessions,
        "clean_accuracy": (0.6 + 0.1 * min(seed, 2) ** 2) * sessions,
        "flipped_accuracy": np.nan if kept_all or seed else 0.4 * sessions,
        "uncertain_accuracy": np.nan if kept_all else 0.5 * sessions,
        "clean_fraction": (1.0 if kept_all else 0.5 + 0.1 * min(seed, 2)) * sessions,
        "flipped_fraction": (0.0 if kept_all else 0.1) * sessions,
        "uncertain_fraction": (0.0 if kept_all else 0.4 - 0.1 * min(seed, 2)) * sessions,
        "tau_lower": (math.inf if kept_all else 0.5) * sessions,
        "tau_upper": math.inf if kept_all else 3.0 + np.arange(1, len(sessions) + 1),
    }


def thresholds(seeds: int = 2, tasks: Sequence[str] = TASKS[:1]) -> pd.DataFrame:
    """Evaluations of settings of the filter's thresholds: alpha x beta x upper, and adaptive ones."""
    settings = list(itertools.product((0.25, 0.5), (0.0, 1.0, 3.0), (2.0, 6.9)))
    arms = [("prefvlm", f"{alpha} {beta} {upper}", 100) for alpha, beta, upper in settings]
    data = evaluated(tasks, [*arms, ("prefvlm-adaptive", "adaptive", 100)], seeds)
    numbers = data["arm"].where(data["arm"] != "adaptive", "nan nan nan").str.split(expand=True).astype(float)
    against = np.where(data["arm"] == "adaptive", "", "adaptive")
    return data.assign(alpha=numbers[0], beta=numbers[1], upper=numbers[2], against=against)


def steady(successes: Mapping[str, Mapping[str, Sequence[float]]], against: Mapping[str, str]) -> pd.DataFrame:
    """Evaluations of runs whose success never changes: arm -> task -> success of seeds 0, 1, …

    `against`: arm -> the one that it is compared with.
    """
    parts = []
    for arm, of_arm in successes.items():
        for task, values in of_arm.items():
            data = evaluated([task], [(arm, arm, 100)], len(values))
            parts.append(data.assign(success=data["seed"].map(dict(enumerate(values)))))
    data = pd.concat(parts, ignore_index=True)
    return data.assign(against=[against.get(arm, "") for arm in data["arm"]])


def label_log(
    rows: Sequence[tuple[object, ...]], method: str = "prefvlm", arm: str = "prefvlm", task: str = "door-close-v3"
) -> pd.DataFrame:
    """Rows of (run, label, truth, divergence, partition); partition "" is the human's."""
    table = pd.DataFrame(rows, columns=["run_id", "label", "truth", "divergence", "partition"])
    table["teacher"] = np.where(table["partition"] == "", "human", "vlm")
    return table.assign(profile="quick", task=task, method=method, arm=arm, seed=table["run_id"])
