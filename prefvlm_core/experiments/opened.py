"""An experiment as its notebook sees it: what is stored of it, what is missing, and where its figures go."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pandas
from matplotlib.figure import Figure

from prefvlm_core.common.errors import PrefVLMError, check_path, shown
from prefvlm_core.config.run import Execution
from prefvlm_core.experiments.fleets import configs_of
from prefvlm_core.experiments.plan import evaluations, finished_runs, label_log, missing_runs
from prefvlm_core.experiments.project import project_folder
from prefvlm_core.labelling.address import FROM_ENVIRONMENT, read_address, secrets_of
from prefvlm_core.plots.show import show

SECONDS_PER_ACTION = {"quick": 0.0073, "laptop": 0.0073}
"""Profile -> seconds that one core needs for an action of one run in a full fleet: the mean over the stored runs of
profile laptop, whose networks are also those of quick. None has been measured for profile paper."""


@dataclass(frozen=True)
class OpenExperiment:
    """An experiment in one profile, with its results and figures; made by `open_experiment`."""

    name: str
    profile: str
    trains: bool
    """Whether missing runs are trained when evaluations or labels are first asked for."""
    execution: Execution
    figures: Path
    """Folder of the profile's figures."""

    @functools.cached_property
    def evaluations(self) -> pandas.DataFrame:
        """One row per evaluation of the experiment's finished runs (`plan.evaluations`)."""
        return evaluations(self.name, self.profile, self.execution, self.trains)

    @functools.cached_property
    def labels(self) -> pandas.DataFrame:
        """One row per label of the same runs (`plan.label_log`)."""
        _ = self.evaluations  # trains what is missing
        return label_log(self.name, self.profile, self.execution)

    @property
    def has_runs(self) -> bool:
        """Whether there is something to draw: a finished run, or one that will be trained."""
        return self.trains or bool(finished_runs(self.name, self.profile, self.execution.results))

    @property
    def compares_success(self) -> bool:
        """Whether several seeds are planned. One shows the mechanism, but its success is no evidence for anything."""
        return len({config.seed for config in configs_of(self.name, self.profile)}) > 1

    @property
    def status(self) -> str:
        """A sentence that says what is stored, what is missing, and how long it takes to train that."""
        missing = missing_runs(self.name, self.profile, self.execution.results)
        count, runs = len(configs_of(self.name, self.profile)), f"runs of {self.name} in profile {self.profile}"
        if not missing:
            return f"All {count} {runs} are stored."
        duration = self._duration(sum(config.total_steps for config in missing))
        if self.trains:
            return f"{len(missing)} of {count} {runs} are missing and will be trained, which takes {duration}."
        return (
            f"{len(missing)} of {count} {runs} are missing and left out. Training them takes {duration}: set "
            f"train = True, or run `prefvlm experiment {self.name} --profile {self.profile}`."
        )

    def _duration(self, actions: int) -> str:
        if self.profile not in SECONDS_PER_ACTION:
            return f"{actions / 1e6:,.0f} million actions, whose time has not been measured in this profile"
        minutes = max(1, round(SECONDS_PER_ACTION[self.profile] * actions / 60))
        return f"about {minutes} min of one core" if minutes < 90 else f"about {minutes / 60:.0f} hours of one core"

    def show(self, figure: Figure, suffix: str) -> None:
        """Display a figure and write it as `<name>_<suffix>.png` and `.pdf` among the profile's figures."""
        show(figure, f"{self.name}_{suffix}", self.figures)


def open_experiment(
    name: str, profile: str, train: bool | None = None, results: str = "", figures: str = "", labels: str = ""
) -> OpenExperiment:
    """An experiment's runs in a profile.

    `train`: whether what is missing is to be trained; None means only in profile quick, where that takes minutes.
    `results` and `figures` are folders, "" those of the project; `labels` is `Execution.labels`. Raises `PrefVLMError`
    for unknown names, for a `train` that is neither a bool nor None, and for a password in `labels`.
    """
    if not isinstance(train, bool | None):
        raise PrefVLMError(f"train is {shown(train)}; allowed are True, False and None (train in profile quick only).")
    kinds = {"results": (results, str | Path), "figures": (figures, str | Path), "labels": (labels, str)}
    for parameter, (value, kind) in kinds.items():
        if not isinstance(value, kind):
            raise PrefVLMError(f"{parameter} must be a text, empty for the project's own, got {shown(value)}.")
    configs_of(name, profile)  # refuses unknown names before anything is looked for
    if figures:
        check_path("figures", figures)
    if labels and not labels.startswith(FROM_ENVIRONMENT) and secrets_of(read_address(labels)):
        raise PrefVLMError(
            "labels holds a password, and a notebook keeps its parameters; put the URL into an environment variable "
            "and name that one, for example env:PREFVLM_LABELS."
        )
    return OpenExperiment(
        name,
        profile,
        profile == "quick" if train is None else train,
        Execution(results=results or str(project_folder() / "results"), labels=labels),
        Path(figures or project_folder() / "figures") / profile,
    )
