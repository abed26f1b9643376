"""What is stored of the runs of an experiment, and what is missing; training it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas

from prefvlm_core.checks.names import check_names
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.experiments.fleets import configs_of, fleets, plan, profile_fleets
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.stored import load_labels, load_metrics
from prefvlm_core.train import train


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
