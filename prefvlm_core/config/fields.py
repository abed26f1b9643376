"""Declarations of config fields, which state the allowed values beside each default, and the checks of these bounds.

Each function that declares a field takes `per_run`: whether the runs of one fleet may differ in the field.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from prefvlm_core.common.errors import PrefVLMError, shown, unknown_name

Value = TypeVar("Value")

PER_RUN = {"per_run": True}
"""Metadata of a field that has no default and in which the runs of a fleet may differ."""


MOST = 10**9
"""Largest value of an integer field that states no bound of its own: more can only be a typing error."""
LARGEST_SEED = 2**63 - 1
"""Tables store seeds in 64 bits."""


def count(default: int, least: int = 1, most: int = MOST, per_run: bool = False) -> int:
    """Declare an integer field from `least` to `most`."""
    return _declared(default, per_run, least=least, most=most)


def quantity(default: float, zero: bool = False, per_run: bool = False, most: float = math.inf) -> float:
    """Declare a field for finite numbers above 0, or of at least 0 if `zero` is allowed, up to `most`."""
    return _declared(default, per_run, least=0, exclusive=not zero, most=most)


def fraction(default: float, zero: bool = False, per_run: bool = False) -> float:
    """Declare a field for numbers up to 1 that are above 0, or at least 0 if `zero` is allowed."""
    return _declared(default, per_run, least=0, exclusive=not zero, most=1)


def setting(default: Value, per_run: bool = False) -> Value:
    """Declare a field for a name, a text or a switch."""
    return _declared(default, per_run)


def group(kind: type[Value], per_run: bool = False) -> Value:
    """Declare a group of fields; with `per_run`, the runs of a fleet may differ in any of them."""
    return dataclasses.field(default_factory=kind, metadata={"per_run": per_run})


def _declared(default: Any, per_run: bool, **bounds: Any) -> Any:
    return dataclasses.field(default=default, metadata={"per_run": per_run} | bounds)


def check_types(values: Any, prefix: str = "") -> None:
    """Raise `PrefVLMError` for the first field of a config dataclass or its groups that is not of its declared type.

    `prefix` precedes the names of the fields in the message.
    """
    kind: Any = type(values)
    for name, expected in types_of(kind).items():
        value = getattr(values, name)
        if dataclasses.is_dataclass(value):
            check_types(value, f"{prefix}{name}.")
        elif typing.get_origin(expected) is Literal:
            if not isinstance(value, str) or value not in typing.get_args(expected):
                raise unknown_name(f"{prefix}{name}", value, typing.get_args(expected))
        elif not isinstance(value, expected) or isinstance(value, bool) != (expected is bool):
            raise PrefVLMError(f"{prefix}{name} must be of type {expected.__name__}, got {shown(value)}.")


def check_bounds(values: Any) -> None:
    """Raise `PrefVLMError` for the first number in a config dataclass or its groups that is out of bounds."""
    for name, bounds, value in _numbers(values, ""):
        check_number(name, value, **{bound: limit for bound, limit in bounds.items() if bound != "per_run"})


def check_number(name: str, value: float, least: float = 0, most: float = math.inf, exclusive: bool = False) -> None:
    """Raise `PrefVLMError` unless `value` is finite and from `least` (above it if `exclusive`) to `most`."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PrefVLMError(f"{name} must be finite, got {value}.")
    if exclusive and value <= least:
        raise PrefVLMError(f"{name} must be above {least}, got {shown(value)}.")
    if value < least:
        raise PrefVLMError(f"{name} must be at least {least}, got {shown(value)}.")
    if value > most:
        raise PrefVLMError(f"{name} must be at most {most}, got {shown(value)}.")


def _numbers(values: Any, prefix: str) -> Iterator[tuple[str, typing.Mapping[str, Any], float]]:
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{field.name}", field.metadata, value


def per_run_fields(config: Any, prefix: str = "", whole: bool = False) -> frozenset[str]:
    """The dotted names of the fields in which the runs of a fleet may differ; with `whole`, all of this dataclass."""
    names: set[str] = set()
    types = types_of(config)
    for field in dataclasses.fields(config):
        per_run, name = whole or field.metadata.get("per_run", False), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(types[field.name]):
            names |= per_run_fields(types[field.name], f"{name}.", per_run)
        elif per_run:
            names.add(name)
    return frozenset(names)


@functools.cache  # resolving the annotations of all groups takes milliseconds, and thousands of stored runs are read
def types_of(config: Any) -> dict[str, Any]:
    """The declared type of every field of a config dataclass."""
    return typing.get_type_hints(config)
