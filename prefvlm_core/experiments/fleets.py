"""The grids behind the notebooks: which runs answer which question, in which profile, and how they are put into fleets.

The batch, the command line and the notebooks all ask here, so they always mean the same runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from prefvlm_core.common.errors import unknown_name
from prefvlm_core.common.registry import cached_by_name
from prefvlm_core.config.fleets import FLEET_SIZE, shared_values
from prefvlm_core.config.run import RunConfig, check_profile
from prefvlm_core.experiments.arms import Arm
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.methods import run_config


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment, and the arm it belongs to."""

    config: RunConfig
    arm: Arm
    source: RunConfig | None = None
    """The run whose adapters this one starts from."""


@cached_by_name  # asked again for every step of the batch, and a large grid takes seconds
def plan(experiment: str, profile: str) -> list[PlannedRun]:
    """Every run of an experiment. Raises `PrefVLMError` for unknown names, also that of an arm that another is compared
    with, and for a profile without a grid."""
    grids = EXPERIMENTS[experiment]
    if check_profile(profile) not in grids:
        raise unknown_name(f"profile of {experiment}", profile, grids)
    grid = grids[profile]
    planned = []
    for task, arms in grid.arms.items():
        for arm in arms:
            for seed in grid.seeds[: arm.seeds]:
                changes, source = dict(arm.changes), None
                if arm.source is not None:
                    source = run_config(arm.source.task, arm.source.method, seed, profile, arm.source.changes)
                    changes["adapter.source"] = source.run_id
                config = run_config(task, arm.method, seed, profile, changes)
                planned.append(PlannedRun(config, arm, source))
    names = {run.arm.display_name(run.config) for run in planned}
    for run in planned:
        if run.arm.against and run.arm.against not in names:
            raise unknown_name("arm", run.arm.against, names)
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
    fleet_of = _fleet_of(profile, size)
    asked = {fleet_of[run_id] for run_id in run_ids if run_id in fleet_of}
    return [name for name in profile_fleets(profile, size) if name in asked]


@cached_by_name
def _fleet_of(profile: str, size: int) -> dict[str, str]:
    """The name of the fleet of each run, by run_id."""
    return {config.run_id: name for name, fleet in profile_fleets(profile, size).items() for config in fleet}


def fleets(configs: Sequence[RunConfig], size: int = FLEET_SIZE) -> dict[str, list[RunConfig]]:
    """Runs grouped into fleets of at most `size` compatible ones, by name. Depends on `configs` alone, not on what is
    finished.

    Runs of one seed stay together, so that whole seeds are done first; runs that start from another's adapters come
    after those that do not; a run named twice is trained once.
    """
    groups: list[list[RunConfig]] = []
    latest: dict[Hashable, list[RunConfig]] = {}  # of the compatible ones
    for config in sorted(dict.fromkeys(configs), key=lambda config: (bool(config.adapter.source), config.seed)):
        shared = (bool(config.adapter.source), shared_values(config))
        if len(latest.get(shared, ())) in (0, size):
            latest[shared] = []
            groups.append(latest[shared])
        latest[shared].append(config)
    return {_fleet_name(group): group for group in groups}


def _fleet_name(configs: Sequence[RunConfig]) -> str:
    return "fleet-" + hashlib.sha256(" ".join(config.run_id for config in configs).encode()).hexdigest()[:8]
