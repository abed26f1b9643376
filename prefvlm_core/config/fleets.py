"""The check that runs can train together in one fleet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.fields import per_run_fields
from prefvlm_core.config.run import RunConfig, flatten
from prefvlm_core.domains.registry import domain_of

FLEET_SIZE = 16
"""Runs trained together: past this, batched arithmetic gains little and a lost machine loses more."""
PER_RUN = per_run_fields(RunConfig)
"""The dotted fields in which the runs of a fleet may differ."""


def shared_values(config: RunConfig) -> tuple[tuple[str, Any], ...]:
    """In what runs must agree to share a fleet: the kind of their task, and dotted fields with their values."""
    values = flatten(dataclasses.asdict(config))
    return ("task", _kind(config.task)), *((name, value) for name, value in values.items() if name not in PER_RUN)


def check_compatible(configs: Sequence[RunConfig]) -> None:
    """Raise `PrefVLMError` if there is no run, if one occurs twice, if two differ in a field outside `PER_RUN`, or if
    their tasks are of two domains or sizes."""
    if not configs:
        raise PrefVLMError("A fleet needs at least one run.")
    first, *others = [flatten(dataclasses.asdict(config)) for config in configs]
    kinds = [_kind(config.task) for config in configs]
    for config, other, kind in zip(configs[1:], others, kinds[1:], strict=True):
        if kind != kinds[0]:
            raise PrefVLMError(f"{configs[0].run_id} and {config.run_id} cannot share a fleet: {kinds[0]}, but {kind}.")
        for name, value in first.items():
            if other[name] != value and name not in PER_RUN:
                raise PrefVLMError(
                    f"{configs[0].run_id} and {config.run_id} cannot share a fleet: {name} is {value} in one and "
                    f"{other[name]} in the other."
                )
    if len({config.run_id for config in configs}) < len(configs):
        raise PrefVLMError("The same run is asked for twice in one fleet.")


def _kind(task: str) -> str:
    """What the tasks of a fleet have in common."""
    domain = domain_of(task)
    sizes = domain.sizes(task)
    return f"a task of {domain.title} with {sizes.observation} observations and {sizes.action} actions"
