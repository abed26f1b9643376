"""Commands that tell what there is and what a run would do, without doing it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tyro

from prefvlm_core.cli.options import Combinations, Plugin
from prefvlm_core.common.registry import import_plugin
from prefvlm_core.config.run import IDENTITY, RunConfig, flatten

Kind = typing.Literal["tasks", "methods", "vlms", "teachers", "experiments", "profiles"]


@dataclass(frozen=True)
class List:
    """List the names that options take, with a line on each."""

    what: tyro.conf.Positional[Kind]
    """tasks and methods (--tasks, --methods), vlms (--vlm.model), teachers (--teacher), experiments (`prefvlm
    experiment`) or profiles (--profile)."""
    plugin: Plugin = ""

    def run(self) -> int:
        if self.plugin:
            import_plugin(self.plugin)
        summaries = _summaries(self.what)
        width = max(map(len, summaries))
        print(*(f"{name:<{width}}  {summary}".rstrip() for name, summary in summaries.items()), sep="\n")
        return 0


def _summaries(what: Kind) -> Mapping[str, str]:
    """A line on each of the names of one kind."""
    if what == "tasks":
        from prefvlm_core.domains.registry import all_tasks
        from prefvlm_core.domains.tasks import PAPER_TASKS
        from prefvlm_core.vlm.texts import task_text

        return {task: task_text(task) + "  (in the papers)" * (task in PAPER_TASKS) for task in sorted(all_tasks())}
    if what == "methods":
        from prefvlm_core.methods import METHODS

        return {name: method.summary for name, method in METHODS.items()}
    if what == "profiles":
        from prefvlm_core.config.profiles import SUMMARIES
        from prefvlm_core.methods import run_config

        named = {name: run_config("drawer-close-v3", "pebble", 0, name) for name in SUMMARIES}
        return {name: f"{SUMMARIES[name]}: {_length(config)}" for name, config in named.items()}
    if what == "vlms":
        from prefvlm_core.vlm import VLMS

        return VLMS.summaries
    if what == "teachers":
        from prefvlm_core.preferences.teachers import TEACHERS

        return TEACHERS.summaries
    from prefvlm_core.experiments.grids import EXPERIMENTS

    return EXPERIMENTS.summaries


@dataclass(frozen=True)
class Show(Combinations):
    """Show the config of the runs that `prefvlm train` would train with the same options: every field, its value, and
    whether that is the default or set by the profile, by the method or by you. Nothing is trained."""

    plugin: Plugin = ""

    def run(self) -> int:
        if self.plugin:
            import_plugin(self.plugin)
        print("\n\n".join("\n".join(_config_lines(config, self.changed())) for config in self.configs()))
        return 0


def _config_lines(config: RunConfig, changes: Mapping[str, Any]) -> Iterator[str]:
    """The run's name, and one line per field."""
    from prefvlm_core.methods import METHODS, layers

    sources = dict.fromkeys(flatten(dataclasses.asdict(config)), "default")
    for source, fields in layers(config.task, config.method, config.profile, changes).items():
        sources |= dict.fromkeys(fields, source)
    yield f"run {config.run_id}"
    yield f"    {METHODS[config.method].summary}"
    yield f"    {_length(config)}"
    yield ""
    values = {name: value for name, value in flatten(dataclasses.asdict(config)).items() if name not in IDENTITY}
    width = max(map(len, values))
    shown = {name: "''" if value == "" else str(value) for name, value in values.items()}
    value_width = max(map(len, shown.values()))
    yield f"{'field':<{width}}  {'value':<{value_width}}  from"
    yield from (f"{name:<{width}}  {value:<{value_width}}  {sources[name]}" for name, value in shown.items())


def _length(config: RunConfig) -> str:
    """How long a run is, and how much it asks a human."""
    repeat = config.action_repeat
    held = f" held for {repeat} environment steps each, {config.total_steps * repeat} in all" if repeat > 1 else ""
    actions = f"{config.total_steps} actions{held or ' of one environment step each'}"
    budget = config.feedback.budget if config.reward.source == "learned" else 0
    return f"{actions}; {budget} queries to the {config.feedback.teacher}" if budget else f"{actions}; no human"
