"""The grids behind the notebooks: which runs answer which question, in which profile, and how they are put into fleets.

The batch, the command line and the notebooks all ask here, so they always mean the same runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from prefvlm_core.config import Execution, RunConfig, check_profile
from prefvlm_core.errors import PrefVLMError, unknown_name
from prefvlm_core.methods import run_config
from prefvlm_core.store import RunDirectory, load_metrics
from prefvlm_core.train import check_compatible, train

FLEET_SIZE = 16
"""Runs trained together: past this, batched arithmetic gains little and a lost machine loses more."""


@dataclass(frozen=True)
class Arm:
    """One curve of a figure: a method, and the fields in which this curve differs from the method's recipe."""

    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    """Name in figures; by default the method and its label budget."""

    def curve(self, config: RunConfig) -> str:
        """The name a reader sees."""
        if self.name:
            return self.name
        if config.reward.source == "true":
            return f"{self.method} (true reward)"
        if not config.feedback.budget:
            return f"{self.method} (no human)"
        return f"{self.method} ({config.feedback.budget} labels)"


@dataclass(frozen=True)
class Grid:
    """Tasks x arms x seeds. Arms may differ by task, since label budgets do."""

    arms: Mapping[str, Sequence[Arm]]
    """Task -> the arms run on it."""
    seeds: Sequence[int]


def _budgets(method: str, *budgets: int) -> list[Arm]:
    return [Arm(method, {"feedback.budget": budget}) for budget in budgets]


_PAPER_BUDGETS = {  # PEBBLE(y) and PEBBLE(z) of ROVED's learning curves, and their horizons
    "window-open-v3": (500_000, (1_000, 2_000)),
    "window-close-v3": (500_000, (1_000, 2_000)),
    "door-open-v3": (1_000_000, (1_000, 2_000)),
    "door-close-v3": (500_000, (1_000, 2_000)),
    "drawer-open-v3": (1_000_000, (15_000, 25_000)),
    "drawer-close-v3": (1_000_000, (1_000, 2_000)),
    "button-press-v3": (1_000_000, (2_000, 4_000)),
    "sweep-into-v3": (1_000_000, (15_000, 30_000)),
}


def _paper_arms(steps: int, budgets: tuple[int, ...]) -> list[Arm]:
    """ROVED's horizon and label budgets; a session asks as much as spends the budget over the first half of the run."""
    arms = [Arm("sac", {"total_steps": steps})]
    sessions = steps // 2 // 3_000
    for budget in budgets:
        queries = max(32, -(-(budget - 250) // sessions))
        arms.append(
            Arm("pebble", {"total_steps": steps, "feedback.budget": budget, "feedback.session_queries": queries})
        )
    return arms


EXPERIMENTS: dict[str, dict[str, Grid]] = {
    "02_learning_curves": {
        "quick": Grid({"drawer-close-v3": [Arm("sac"), Arm("pebble")]}, range(4)),
        "laptop": Grid(
            {
                task: [Arm("sac"), *_budgets("pebble", 100, 200, 400)]
                for task in ("door-close-v3", "button-press-v3", "window-close-v3", "sweep-into-v3")
            },
            range(5),
        ),
        "paper": Grid({task: _paper_arms(*plan) for task, plan in _PAPER_BUDGETS.items()}, range(5)),
    },
}
"""Notebook name -> profile -> grid."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment, and the curve it belongs to."""

    config: RunConfig
    curve: str


def plan(experiment: str, profile: str) -> list[PlannedRun]:
    """Every run of an experiment. Raises `PrefVLMError` for unknown names."""
    if experiment not in EXPERIMENTS:
        raise unknown_name("experiment", experiment, EXPERIMENTS)
    check_profile(profile)
    grid = EXPERIMENTS[experiment][profile]
    planned = []
    for task, arms in grid.arms.items():
        for arm in arms:
            for seed in grid.seeds:
                config = run_config(task, arm.method, seed, profile, arm.changes)
                planned.append(PlannedRun(config, arm.curve(config)))
    return planned


def profile_fleets(profile: str) -> dict[str, list[RunConfig]]:
    """Every run of every experiment of a profile, in fleets by name; a run that several experiments show is there
    once."""
    return fleets([run.config for experiment in EXPERIMENTS for run in plan(experiment, profile)])


def fleets_of(experiment: str, profile: str) -> list[str]:
    """Names of the profile's fleets that train a run of the experiment."""
    wanted = {run.config.run_id for run in plan(experiment, profile)}
    return [name for name, fleet in profile_fleets(profile).items() if wanted & {config.run_id for config in fleet}]


def fleets(configs: Sequence[RunConfig]) -> dict[str, list[RunConfig]]:
    """Runs grouped into fleets of compatible ones, by name. Depends on `configs` alone, not on what is finished.

    Runs of one seed stay together, so that whole seeds are done first; a run named twice is trained once.
    """
    groups: list[list[RunConfig]] = []
    for config in sorted(dict.fromkeys(configs), key=lambda config: config.seed):
        for group in groups:
            if len(group) < FLEET_SIZE and _compatible(group[0], config):
                group.append(config)
                break
        else:
            groups.append([config])
    return {_fleet_name(group): group for group in groups}


def _compatible(first: RunConfig, second: RunConfig) -> bool:
    try:
        check_compatible([first, second])
    except PrefVLMError:
        return False
    return True


def _fleet_name(configs: Sequence[RunConfig]) -> str:
    return "fleet-" + hashlib.sha256(" ".join(config.run_id for config in configs).encode()).hexdigest()[:8]


def train_missing(configs: Sequence[RunConfig], execution: Execution) -> None:
    """Train, fleet by fleet, the runs that are not finished."""
    for fleet in fleets(configs).values():
        train(fleet, execution)


def evaluations(
    experiment: str, profile: str, execution: Execution | None = None, train: bool = True
) -> pandas.DataFrame:
    """Tidy evaluations of an experiment's finished runs, one row each, with the name of the `curve`.

    With `train`, what is missing is trained first; without, what exists is returned. Raises `PrefVLMError` where
    nothing exists.
    """
    execution = execution or Execution()
    planned = plan(experiment, profile)
    if train:
        train_missing([run.config for run in planned], execution)
    directories = {run.config.run_id: RunDirectory(execution.results, run.config) for run in planned}
    finished = [directory for directory in directories.values() if directory.finished]
    if not finished:
        raise PrefVLMError(
            f"No run of {experiment} in profile {profile} is stored below {Path(execution.results).resolve()}; "
            f"train them with: prefvlm experiment {experiment} --profile {profile}"
        )
    metrics = load_metrics(finished)
    metrics.insert(4, "curve", metrics["run_id"].map({run.config.run_id: run.curve for run in planned}))
    return metrics
