"""The command line: every command with its options, from the dataclasses that define it."""

import dataclasses
import inspect
import pathlib
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import tyro

from generate.texts import first_paragraph, markdown
from prefvlm_core.cli import COMMANDS
from prefvlm_core.config.options import field_docstrings
from prefvlm_core.config.run import Execution

_WORDS = {int: "<number>", float: "<number>", str: "<text>", pathlib.Path: "<path>"}
_EXECUTION = "how-runs-are-executed"


@dataclasses.dataclass(frozen=True)
class Option:
    """What a command takes besides the fields of a config."""

    usage: str
    """As it is typed, for example `--cores <number>`."""
    text: str
    default: str
    """As it is typed; empty if there is none."""


def text() -> str:
    """The Markdown of all commands, and of the options of everything that trains."""
    rows = [f"| [`prefvlm {name}`](#prefvlm-{name}) | {first_paragraph(kind)} |" for name, kind in COMMANDS.items()]
    parts = ["\n".join(["| command | what it does |", "|---|---|", *rows])]
    parts += [part for name, kind in COMMANDS.items() for part in _command(name, kind)]
    parts += [f"({_EXECUTION})=\n## How runs are executed", first_paragraph(Execution)]
    parts += ["In Python these are the fields of `prefvlm_core.Execution`; no name of a run depends on them."]
    parts += ["```{program} prefvlm\n```", *map(_directive, options(Execution))]
    return "\n\n".join(parts) + "\n"


def options(kind: Any) -> Iterator[Option]:
    """What a command takes, except groups of options: fields of a config, and `Execution`."""
    texts = field_docstrings(kind)
    for field in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[field.name]
        plain = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(plain) or typing.is_typeddict(plain):
            continue
        extras = typing.get_args(hint)[1:] if plain is not hint else ()
        said = texts.get(field.name) or next(extra.help for extra in extras if getattr(extra, "help", None))
        flag = "" if tyro.conf.Positional in extras else f"--{field.name.replace('_', '-')}"
        yield Option(_usage(flag, plain), " ".join(said.split()), _default(field))


def _command(name: str, kind: Any) -> Iterator[str]:
    yield f"## `prefvlm {name}`"
    yield markdown(inspect.cleandoc(kind.__doc__))
    yield f"```{{program}} prefvlm {name}\n```"
    yield from map(_directive, options(kind))
    hints = typing.get_type_hints(kind)
    if "changes" in hints:
        yield "Every [field of the config](config.md) is an option too, for example `--feedback.budget 200`."
    if "execution" in hints:
        yield f"How the runs are executed is said by [options of their own](#{_EXECUTION})."


def _usage(flag: str, plain: Any) -> str:
    if plain is bool:
        return f"{flag}, --no-{flag.removeprefix('--')}"
    return f"{flag} {_words(plain)}".strip()


def _words(plain: Any) -> str:
    parts = [part for part in typing.get_args(plain) if part not in (types.NoneType, Ellipsis)]
    if typing.get_origin(plain) is Literal:
        return f"<{'|'.join(parts)}>"
    if typing.get_origin(plain) is tuple:
        return f"{_words(parts[0])} ..."
    return _words(parts[0]) if parts else _WORDS[plain]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is dataclasses.MISSING or value is None or isinstance(value, bool) else str(value)


def _directive(option: Option) -> str:
    default = f" Default: `{option.default}`." if option.default else ""
    return f"```{{option}} {option.usage}\n{markdown(option.text)}{default}\n```"
