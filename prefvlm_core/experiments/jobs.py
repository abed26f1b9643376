"""What a batch is asked to do, and so what each of its jobs runs and asks of a machine. `Snakefile` and `prefvlm
reproduce` both read it from here."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefvlm_core.common.errors import PrefVLMError, check_path, unknown_name
from prefvlm_core.config.fields import check_number
from prefvlm_core.config.fleets import FLEET_SIZE
from prefvlm_core.config.profiles import check_profile
from prefvlm_core.config.run import RunConfig
from prefvlm_core.experiments.fleets import experiments_of, fleets_before, fleets_of, profile_fleets
from prefvlm_core.experiments.resources import Resources, fleet_resources
from prefvlm_core.vlm import GOAL_PREFIX, takes_weights, uses_vlm

LONGEST_MINUTES = 24 * 60
"""No job asks for more, since few clusters give more: a fleet that needs longer is started again, and goes on."""
DRAWING = Resources(minutes=120, megabytes=8_000, cpus=1, gpus=0)
"""What a notebook, or the tables, need: the labels of some hundred runs at once."""


@dataclass(frozen=True)
class Jobs:
    """What a batch is asked to do: Snakemake's `--config`. Raises `PrefVLMError` for what is not allowed."""

    profile: str = "quick"
    results: str = "results"
    """Folder of all runs, which every job must be able to write to."""
    device: str = "cpu"
    """cpu, or cuda, for which every fleet's job asks for a GPU and fails at once where it finds none. Never auto: what
    the machine has on which a batch is started says nothing of those on which its jobs run."""
    vlm_weights: str = ""
    """See `Execution.vlm_weights`."""
    scratch: str = ""
    """See `Execution.scratch`."""
    fleet_size: int = FLEET_SIZE
    """Runs of a fleet at most, and so how many jobs there are. After a change, finished runs stay as they are, and
    unfinished ones begin again, because a checkpoint belongs to the runs that were trained together."""
    notebooks: str = ""
    """The notebooks to be drawn, with spaces between them, and with them what is trained (empty: all, and the
    tables)."""

    def __post_init__(self) -> None:
        check_profile(self.profile)
        check_path("results", self.results)
        check_number("fleet_size", self.fleet_size, least=1)
        if self.device not in ("cpu", "cuda"):
            raise PrefVLMError(
                f"device must be cpu or cuda in a batch, got '{self.device}': no machine can tell what those have on "
                "which its jobs run."
            )
        for notebook in self.notebooks.split():
            if notebook not in experiments_of(self.profile):
                raise unknown_name("notebook", notebook, experiments_of(self.profile))

    @staticmethod
    def of(config: Mapping[str, Any]) -> Jobs:
        """What Snakemake's config says. Raises `PrefVLMError` for a name that is none of the fields above."""
        defaults = {field.name: field.default for field in dataclasses.fields(Jobs)}
        for name in config:
            if name not in defaults:
                raise unknown_name("--config", name, defaults)
        # Snakemake takes a folder named 2026 for a number.
        texts = {name: str(value) for name, value in config.items() if isinstance(defaults[name], str)}
        return Jobs(**{**config, **texts})

    @property
    def config(self) -> list[str]:
        """The words after Snakemake's `--config`: the fields that differ from their defaults."""
        default, values = dataclasses.asdict(Jobs()), dataclasses.asdict(self)
        return [f"{name}={value}" for name, value in values.items() if value != default[name] or name == "profile"]

    @property
    def drawn(self) -> list[str]:
        """The notebooks that are executed."""
        return self.notebooks.split() or experiments_of(self.profile)

    @property
    def fleets(self) -> dict[str, list[RunConfig]]:
        """Every fleet of the profile, by name."""
        return profile_fleets(self.profile, self.fleet_size)

    @property
    def trained(self) -> list[str]:
        """The fleets that the notebooks need, which are all fleets where all notebooks are drawn."""
        shown = [fleet for notebook in self.drawn for fleet in self.before(notebook)]
        return list(dict.fromkeys([*(before for fleet in shown for before in self.before(fleet)), *shown]))

    def before(self, step: str) -> list[str]:
        """The fleets that must be trained before a fleet is, or before a notebook is executed."""
        before = fleets_before if step in self.fleets else fleets_of
        return before(step, self.profile, self.fleet_size)

    def resources(self, fleet: str, attempt: int = 1) -> Resources:
        """What the job of a fleet asks for at its `attempt`, counted from 1."""
        first = fleet_resources(self.fleets[fleet], self.device)
        minutes = min(first.minutes * attempt, LONGEST_MINUTES)
        return dataclasses.replace(first, minutes=minutes, megabytes=first.megabytes * attempt)

    def command(self, fleet: str, cores: int) -> str:
        """The shell's words after `prefvlm` that train a fleet on so many `cores`."""
        workers = max(1, cores - 1)
        words = ["fleet", fleet, "--profile", self.profile, "--fleet-size", str(self.fleet_size)]
        words += ["--results", self.results, "--device", self.device, "--workers", str(workers)]
        if self.vlm_weights and models_with_weights(self.fleets[fleet]):
            words += ["--vlm-weights", self.vlm_weights]
        words += ["--scratch", self.scratch] if self.scratch else []
        return shlex.join(words)

    def check_weights(self, fleets: list[str]) -> None:
        """Raise `PrefVLMError` where these fleets need a VLM whose checkpoint is not there."""
        for model in models_with_weights([config for fleet in fleets for config in self.fleets[fleet]]):
            from prefvlm_core.vlm.open_clip import checkpoint_file  # imports torch, which every job would do too

            checkpoint_file(model.removeprefix(GOAL_PREFIX), self.vlm_weights)


def models_with_weights(configs: list[RunConfig]) -> list[str]:
    """The VLMs of these runs that do not come with the package."""
    return sorted({config.vlm.model for config in configs if uses_vlm(config) and takes_weights(config.vlm.model)})


def workflow_profile(executor: str) -> Path:
    """The folder of an executor's settings. Raises `PrefVLMError` where there is none."""
    found = sorted(path.parent.name for path in Path("profiles").glob("*/config.yaml"))
    if executor not in found:
        raise unknown_name("--executor", executor, ["local", *found])
    return Path("profiles") / executor
