"""The grids behind the notebooks: which runs answer which question, in which profile, and how they are put into fleets.

The batch, the command line and the notebooks all ask here, so they always mean the same runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas

from prefvlm_core.checks.names import check_names
from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.common.registry import cached_by_name
from prefvlm_core.config.fleets import FLEET_SIZE, check_compatible
from prefvlm_core.config.run import Execution, RunConfig, check_profile
from prefvlm_core.experiments.arms import Arm
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.stored import load_labels, load_metrics
from prefvlm_core.train import train


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment, and the arm it belongs to."""

    config: RunConfig
    arm: Arm
    source: RunConfig | None = None
    """The run whose adapters this one starts from."""


@cached_by_name  # asked again for every step of the batch, and a large grid takes seconds
def plan(experiment: str, profile: str) -> list[PlannedRun]:
    """Every run of an experiment. Raises `PrefVLMError` for unknown names and a profile without a grid."""
    grids = EXPERIMENTS[experiment]
    if check_profile(profile) not in grids:
        raise unknown_name(f"profile of {experiment}", profile, grids)
    grid = grids[profile]
    planned = []
    for task, arms in grid.arms.items():
        for arm in arms:
            for seed in grid.seeds:
                changes, source = dict(arm.changes), None
                if arm.source is not None:
                    source = run_config(
                        arm.source.task, arm.source.method, seed, profile, arm.source.changes, grid.profile_changes
                    )
                    changes["adapter.source"] = source.run_id
                config = run_config(task, arm.method, seed, profile, changes, grid.profile_changes)
                planned.append(PlannedRun(config, arm, source))
    return planned


def configs_of(experiment: str, profile: str) -> list[RunConfig]:
    """Every run that an experiment needs: those it shows, and those whose adapters they start from."""
    planned = plan(experiment, profile)
    sources = [run.source for run in planned if run.source is not None]
    return list(dict.fromkeys([*sources, *(run.config for run in planned)]))


def experiments_of(profile: str) -> list[str]:
    """The experiments that have a grid for a profile; a user's own may lack some."""
    return [experiment for experiment, grids in EXPERIMENTS.items() if profile in grids]


@cached_by_name
def profile_fleets(profile: str, size: int = FLEET_SIZE) -> dict[str, list[RunConfig]]:
    """Every run of every experiment of a profile, in fleets of at most `size` by name; a run that several experiments
    show is there once."""
    configs = [config for experiment in experiments_of(profile) for config in configs_of(experiment, profile)]
    return fleets(configs, size)


def fleets_of(experiment: str, profile: str, size: int = FLEET_SIZE) -> list[str]:
    """Names of the profile's fleets that train a run of the experiment."""
    return _fleets_that_train({config.run_id for config in configs_of(experiment, profile)}, profile, size)


def fleets_before(fleet: str, profile: str, size: int = FLEET_SIZE) -> list[str]:
    """Names of the profile's fleets whose adapters the runs of a fleet start from."""
    sources = {config.adapter.source for config in profile_fleets(profile, size)[fleet]}
    return _fleets_that_train(sources, profile, size)


def _fleets_that_train(run_ids: set[str], profile: str, size: int) -> list[str]:
    planned = profile_fleets(profile, size)
    return [name for name, fleet in planned.items() if run_ids & {config.run_id for config in fleet}]


def fleets(configs: Sequence[RunConfig], size: int = FLEET_SIZE) -> dict[str, list[RunConfig]]:
    """Runs grouped into fleets of at most `size` compatible ones, by name. Depends on `configs` alone, not on what is
    finished.

    Runs of one seed stay together, so that whole seeds are done first; runs that start from another's adapters come
    after those that do not; a run named twice is trained once.
    """
    groups: list[list[RunConfig]] = []
    for config in sorted(dict.fromkeys(configs), key=lambda config: (bool(config.adapter.source), config.seed)):
        for group in groups:
            if len(group) < size and _compatible(group[0], config):
                group.append(config)
                break
        else:
            groups.append([config])
    return {_fleet_name(group): group for group in groups}


def _compatible(first: RunConfig, second: RunConfig) -> bool:
    if bool(first.adapter.source) != bool(second.adapter.source):
        return False
    try:
        check_compatible([first, second])
    except PrefVLMError:
        return False
    return True


def _fleet_name(configs: Sequence[RunConfig]) -> str:
    return "fleet-" + hashlib.sha256(" ".join(config.run_id for config in configs).encode()).hexdigest()[:8]


def arm_names(experiment: str, profile: str | None = None) -> dict[str, str]:
    """The name of the arm of each run of an experiment, by run_id, in one profile or in all; "" for runs that only give
    their adapters to others."""
    names: dict[str, str] = {}
    for each in [profile] if profile else EXPERIMENTS[experiment]:
        names |= {config.run_id: "" for config in configs_of(experiment, each)}
        names |= {run.config.run_id: run.arm.display_name(run.config) for run in plan(experiment, each)}
    return names


def planned_lines(
    profile: str, results: str | Path, wanted: Callable[[RunConfig], bool] = lambda config: True
) -> Iterator[str]:
    """Every fleet of a profile with the number of its finished runs, and the names of those that it lacks; runs that
    are not `wanted` are left out."""
    for name, fleet in profile_fleets(profile).items():
        if not (configs := list(filter(wanted, fleet))):
            continue
        missing = [config.run_id for config in configs if not RunDirectory(results, config).finished]
        yield f"{name}  {len(configs) - len(missing)} of {len(configs)} runs finished"
        yield from (f"    missing  {run_id}" for run_id in missing)


def train_missing(configs: Sequence[RunConfig], execution: Execution) -> None:
    """Train, fleet by fleet, the runs that are not finished. Raises `PrefVLMError` for a name that no registry knows,
    before anything is trained."""
    for config in configs:
        check_names(config)
    for fleet in fleets(configs).values():
        train(fleet, execution)


def evaluations(
    experiment: str, profile: str, execution: Execution | None = None, train: bool = True
) -> pandas.DataFrame:
    """Tidy evaluations of an experiment's finished runs, one row each, with what their arms are (`Arm.columns`).

    With `train`, what is missing is trained first; without, what exists is returned. Raises `PrefVLMError` where
    nothing exists.
    """
    execution = execution or Execution()
    if train:
        train_missing(configs_of(experiment, profile), execution)
    return _with_arms(load_metrics(_stored(experiment, profile, execution)), experiment, profile)


def label_log(experiment: str, profile: str, execution: Execution | None = None) -> pandas.DataFrame:
    """Every label of an experiment's finished runs, one row each (columns of `preferences.log`), with what their arms
    are; empty if none used labels. Raises `PrefVLMError` where no run is finished."""
    labels = load_labels(_stored(experiment, profile, execution or Execution()))
    return labels if labels.empty else _with_arms(labels, experiment, profile)


def finished_runs(experiment: str, profile: str, results: str | Path) -> list[RunDirectory]:
    """The finished ones of the runs that an experiment shows."""
    directories = {run.config.run_id: RunDirectory(results, run.config) for run in plan(experiment, profile)}
    return [directory for directory in directories.values() if directory.finished]


def missing_runs(experiment: str, profile: str, results: str | Path) -> list[RunConfig]:
    """The runs that an experiment needs and that are not finished."""
    return [config for config in configs_of(experiment, profile) if not RunDirectory(results, config).finished]


def _stored(experiment: str, profile: str, execution: Execution) -> list[RunDirectory]:
    finished = finished_runs(experiment, profile, execution.results)
    if not finished:
        raise PrefVLMError(
            f"No run of {experiment} in profile {profile} is stored below {Path(execution.results).resolve()}; "
            f"train them with: prefvlm experiment {experiment} --profile {profile}"
        )
    return finished


def _with_arms(table: pandas.DataFrame, experiment: str, profile: str) -> pandas.DataFrame:
    arms = {run.config.run_id: run.arm.columns(run.config) for run in plan(experiment, profile)}
    columns = pandas.DataFrame([arms[run_id] for run_id in table["run_id"]], index=table.index)
    return pandas.concat([columns, table], axis=1)
