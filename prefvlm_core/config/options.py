"""The fields of a config as options of the command line; all are optional, and their docstrings are the help texts."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from typing import Annotated, Any

import tyro


def changes_type(config: type[Any]) -> Any:
    """The type of a dictionary with those fields of a config dataclass that the user changes.

    Groups of fields are nested dictionaries. The fields that identify a run (task, method, seed, profile) are left out.
    """
    fields: dict[str, Any] = {}
    texts = field_docstrings(config)
    for name, kind in typing.get_type_hints(config).items():
        if dataclasses.is_dataclass(kind):
            fields[name] = changes_type(typing.cast(type, kind))
        elif name not in ("task", "method", "seed", "profile"):
            hint = "(default: see prefvlm show)"
            fields[name] = Annotated[kind, tyro.conf.arg(help=texts[name], help_behavior_hint=hint)]
    changes = typing.TypedDict(f"{config.__name__}Changes", fields, total=False)  # type: ignore[misc]
    changes.__doc__ = config.__doc__
    return changes


def field_docstrings(config: type[Any]) -> dict[str, str]:
    """The docstring below each field of a dataclass, by field, inherited ones too; Python itself does not keep them."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__[:-1]):
        found |= _own_field_docstrings(kind)
    return found


def _own_field_docstrings(config: type[Any]) -> dict[str, str]:
    body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]).body
    return {
        first.target.id: " ".join(second.value.value.split())
        for first, second in itertools.pairwise(body)
        if isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name)
        if isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
        and isinstance(second.value.value, str)
    }
