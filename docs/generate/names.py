"""The names that options take: what `prefvlm list` prints, and what each method changes."""

import contextlib
import io
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from prefvlm_core.cli.reference import Kind, List
from prefvlm_core.methods import METHODS


def text() -> str:
    """The Markdown of every kind of names."""
    return "\n\n".join(part for kind in typing.get_args(Kind) for part in _kind(kind)) + "\n"


def _kind(kind: Kind) -> Iterator[str]:
    yield f"## {kind.capitalize() if kind != 'vlms' else 'VLMs'}"
    yield f"As `prefvlm list {kind}` prints them:"
    rows = [line.split("  ", 1) for line in _listed(kind).splitlines()]
    if kind == "methods":
        yield "\n".join(["| name | what it is | fields that it changes |", "|---|---|---|", *map(_method, METHODS)])
    else:
        yield "\n".join(
            ["| name | what it is |", "|---|---|", *(f"| `{name}` | {said.strip()} |" for name, said in rows)]
        )


def _listed(kind: Kind) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        List(kind).run()
    return printed.getvalue()


def _method(name: str) -> str:
    method = METHODS[name]
    changes = _fields(method.changes)
    if method.small:
        changes = f"{changes}; in quick and laptop {_fields(method.small)}" if changes else _fields(method.small)
    return f"| `{name}` | {method.summary} | {changes} |"


def _fields(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"`{field}` {value}" for field, value in changes.items())
