"""Choosing one stored run: its task, method, setting and seed, each list offering what those before it leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import pandas

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.profiles import check_profile
from prefvlm_core.experiments.fleets import experiments_of, plan
from prefvlm_core.experiments.project import project_folder
from prefvlm_core.explore.picture import drop_down, row
from prefvlm_core.runs.directory import FINISHED
from prefvlm_core.runs.stored import StoredRun, find_runs

CHOICES = ("task", "method", "setting", "seed")


def results_folder(results: str | Path) -> Path:
    """The folder of results that a notebook names; the project's where that is empty."""
    return Path(results or project_folder() / "results")


def stored_runs(profile: str, results: str | Path) -> list[StoredRun]:
    """The finished runs of a profile whose fields all still exist. Raises `PrefVLMError` where there is none, and for
    an unknown profile."""
    found = find_runs(results, check_profile(profile))
    runs = [run for run in found if not run.retired and run.manifest.get("status") == FINISHED]
    if not runs:
        raise PrefVLMError(
            f"No run of profile {profile} is stored below {Path(results).resolve()}; train them with: prefvlm "
            f"reproduce --profile {profile}, or explore profile laptop, whose results come with the project."
        )
    return runs


def run_table(runs: Sequence[StoredRun], profile: str) -> pandas.DataFrame:
    """One row per run, columns `CHOICES` and run, in the order of the experiments.

    A setting is the run's arm in the first experiment that shows it, behind the number of the experiment; runs of no
    experiment have the hash of their name. Settings of a method differ in some field of the config.
    """
    arms: dict[str, str] = {}
    for experiment in experiments_of(profile):
        for planned in plan(experiment, profile):
            name = f"{experiment.partition('_')[0]} · {planned.arm.display_name(planned.config)}"
            arms.setdefault(planned.config.run_id, name)
    order = list(arms)
    rows = []
    for run in sorted(runs, key=lambda run: order.index(run.run_id) if run.run_id in arms else len(order)):
        setting = arms.get(run.run_id) or f"hash {run.run_id.rpartition('-')[2]}"
        rows.append((run.config.task, run.config.method, setting, run.config.seed, run))
    return pandas.DataFrame(rows, columns=[*CHOICES, "run"])


class RunChooser:
    """Drop-down lists, `view`, for one row of a `run_table`; `changed` is called when another run is chosen."""

    def __init__(self, table: pandas.DataFrame, changed: Callable[[], None], start: dict[str, Any]) -> None:
        self._table, self._changed = table, changed
        self._lists = {name: drop_down(name, [], "400px" if name == "setting" else "240px") for name in CHOICES}
        self.view: ipywidgets.Box = row(*self._lists.values())
        self._filling = False
        self._offer(0, start)
        for place, widget in enumerate(self._lists.values(), start=1):
            widget.observe(lambda _change, place=place: self._choose(place), "value")

    @property
    def run(self) -> StoredRun:
        """The run that is chosen."""
        return self._left(len(CHOICES))["run"].iloc[0]

    def _left(self, place: int) -> pandas.DataFrame:
        """The rows that the first `place` lists leave."""
        rows = self._table
        for name in CHOICES[:place]:
            rows = rows[rows[name] == self._lists[name].value]
        return rows

    def _offer(self, place: int, wanted: dict[str, Any]) -> None:
        """Fill the lists from number `place` on; what was chosen in them, or is `wanted`, stays where it is left."""
        self._filling = True
        for at in range(place, len(CHOICES)):
            name, widget = CHOICES[at], self._lists[CHOICES[at]]
            options = list(self._left(at)[name].unique())
            options = sorted(options) if name in ("task", "seed") else options
            chosen = wanted.get(name, widget.value)
            widget.options = options
            widget.value = chosen if chosen in options else options[0]
        self._filling = False

    def _choose(self, place: int) -> None:
        if not self._filling:
            self._offer(place, {})
            self._changed()
