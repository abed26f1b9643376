"""The fields of a config: what each means, what is allowed, and its value in each profile."""

import dataclasses
import inspect
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from generate.texts import markdown
from prefvlm_core.config.fields import LARGEST_SEED, MOST, per_run_fields, types_of
from prefvlm_core.config.options import field_docstrings
from prefvlm_core.config.profiles import PROFILES, SUMMARIES
from prefvlm_core.config.run import IDENTITY, RunConfig, default_fields


def text() -> str:
    """The Markdown of every field, group by group."""
    ungrouped = [field for field in dataclasses.fields(RunConfig) if not _group(field)]
    groups = [f"[`{field.name}`](#{field.name})" for field in dataclasses.fields(RunConfig) if _group(field)]
    parts = [
        f"Groups: {' · '.join(groups)}.",
        "## The run",
        "What is in no group.",
        *(_directive(field, "") for field in ungrouped),
    ]
    for field in dataclasses.fields(RunConfig):
        if group := _group(field):
            parts += [f"## `{field.name}`", markdown(inspect.cleandoc(group.__doc__ or ""))]
            parts += [_directive(member, f"{field.name}.") for member in dataclasses.fields(group)]
    return "\n\n".join(parts) + "\n"


def _group(field: dataclasses.Field[Any]) -> Any:
    kind = types_of(RunConfig)[field.name]
    return kind if dataclasses.is_dataclass(kind) else None


def _directive(field: dataclasses.Field[Any], prefix: str) -> str:
    owner = types_of(RunConfig)[prefix.rstrip(".")] if prefix else RunConfig
    name, kind = f"{prefix}{field.name}", types_of(owner)[field.name]
    said = markdown(field_docstrings(owner)[field.name])
    if name in IDENTITY:
        return f"```{{confval}} {name}\n:type: {_allowed(kind, field.metadata)}\n\n{said}\n```"
    shared = "" if name in per_run_fields(RunConfig) else " All runs of a fleet share it."
    default = " · ".join(_values(name))
    return f"```{{confval}} {name}\n:type: {_allowed(kind, field.metadata)}\n:default: {default}\n\n{said}{shared}\n```"


def _values(name: str) -> Iterator[str]:
    """The value in each profile, or only one where all are alike."""
    values = {profile: (PROFILES[profile] | {}).get(name, default_fields()[name]) for profile in SUMMARIES}
    if len(set(map(repr, values.values()))) == 1:
        yield f"`{_typed(next(iter(values.values())))}`"
    else:
        yield from (f"{profile} `{_typed(value)}`" for profile, value in values.items())


def _typed(value: Any) -> str:
    """A value as one would type it."""
    return '""' if value == "" else f"{value:.6g}" if isinstance(value, float) else str(value)


def _allowed(kind: Any, bounds: Mapping[str, Any]) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(kind))
    if kind in (bool, str):
        return {bool: "`True` or `False`", str: "text"}[kind]
    least, most = bounds.get("least", 0), bounds.get("most", math.inf)
    low = f"above {least}" if bounds.get("exclusive") else f"at least {least}"
    high = "" if most in (MOST, LARGEST_SEED, math.inf) else f", at most {most:g}"
    return f"{'whole number' if kind is int else 'number'}, {low}{high}"
