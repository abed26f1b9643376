"""Options that several commands share."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.options import changes_type
from prefvlm_core.config.run import Execution, RunConfig, flatten

ProfileName = typing.Literal["quick", "laptop", "paper"]
Profile = Annotated[ProfileName, tyro.conf.arg(help="The scale: quick takes minutes, laptop hours, and paper a GPU.")]
AnyProfile = Annotated[ProfileName | None, tyro.conf.arg(metavar="{quick,laptop,paper}", help_behavior_hint="")]
Results = Annotated[str, tyro.conf.arg(help="Folder that holds every run.")]
Plugin = Annotated[
    str, tyro.conf.arg(help="Module that registers your own names, imported before any is checked (empty: none).")
]
Shared = Annotated[Execution, tyro.conf.arg(name="")]
Changes = changes_type(RunConfig)


@dataclass(frozen=True)
class Combinations:
    """Every combination of tasks, methods and seeds, in one profile and with the same changes."""

    tasks: tuple[str, ...]
    """Tasks, for example drawer-close-v3; `prefvlm list tasks` shows all."""
    methods: tuple[str, ...] = ("pebble",)
    """Methods, for example sac pebble; `prefvlm list methods` shows all."""
    seeds: tuple[int, ...] = (0,)
    """Seeds (>= 0)."""
    profile: Profile = "quick"
    teacher: str = ""
    """Who answers queries, for example human: short for --feedback.teacher (empty: as the profile and method say)."""
    changes: Annotated[Changes, tyro.conf.arg(name="")] = field(default_factory=dict)  # type: ignore[valid-type]

    def changed(self) -> Mapping[str, Any]:
        """The dotted config fields that the user gives. Raises `PrefVLMError` for two teachers."""
        changes = flatten(self.changes)
        if self.teacher and changes.setdefault("feedback.teacher", self.teacher) != self.teacher:
            raise PrefVLMError(
                f"--teacher {self.teacher} contradicts --feedback.teacher {changes['feedback.teacher']}; give only one."
            )
        return changes

    def configs(self) -> list[RunConfig]:
        """The config of each run. Raises `PrefVLMError` where there is none, and for a name or value that is not
        allowed; it answers at once, before torch or MuJoCo is imported."""
        from prefvlm_core.methods import run_config

        changes = self.changed()
        named = itertools.product(self.tasks, self.methods, self.seeds)
        configs = [run_config(task, method, seed, self.profile, changes) for task, method, seed in named]
        if not configs:
            raise PrefVLMError(f"Nothing to {type(self).__name__.lower()}: name at least one task, method and seed.")

        from prefvlm_core.checks.names import check_names  # imports numpy

        for config in configs:
            check_names(config)
        return list(dict.fromkeys(configs))
