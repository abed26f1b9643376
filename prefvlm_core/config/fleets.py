"""The check that runs can train together in one fleet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.fields import per_run_fields
from prefvlm_core.config.run import RunConfig, flatten

FLEET_SIZE = 16
"""Runs trained together: past this, batched arithmetic gains little and a lost machine loses more."""
PER_RUN = per_run_fields(RunConfig)
"""The dotted fields in which the runs of a fleet may differ."""


def shared_values(config: RunConfig) -> tuple[tuple[str, Any], ...]:
    """The dotted fields, and their values, in which runs must agree to share a fleet."""
    values = flatten(dataclasses.asdict(config))
    return tuple((name, value) for name, value in values.items() if name not in PER_RUN)


def check_compatible(configs: Sequence[RunConfig]) -> None:
    """Raise `PrefVLMError` if there is no run, if one occurs twice, or if two differ in a field outside `PER_RUN`."""
    if not configs:
        raise PrefVLMError("A fleet needs at least one run.")
    first, *others = [flatten(dataclasses.asdict(config)) for config in configs]
    for config, other in zip(configs[1:], others, strict=True):
        for name, value in first.items():
            if other[name] != value and name not in PER_RUN:
                raise PrefVLMError(
                    f"{configs[0].run_id} and {config.run_id} cannot share a fleet: {name} is {value} in one and "
                    f"{other[name]} in the other."
                )
    if len({config.run_id for config in configs}) < len(configs):
        raise PrefVLMError("The same run is asked for twice in one fleet.")
