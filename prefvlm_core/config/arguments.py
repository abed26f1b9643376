"""The words of a command line: tyro makes a command of them, and what it cannot use is refused in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from prefvlm_core.common.errors import PrefVLMError, shown, unknown_name
from prefvlm_core.config.options import field_docstrings

_ONE = {int: "one whole number", float: "one number", str: "one text", Path: "one path", bool: "no value"}
_SEVERAL = {int: "whole numbers with spaces between them, like 0 1", str: "texts", Path: "paths"}


@dataclass(frozen=True)
class _Option:
    """What follows an option, or stands in a place that has no option."""

    kind: Any
    """bool, int, float, str, Path, or the tuple of the words that are allowed."""
    several: bool = False

    def __str__(self) -> str:
        if isinstance(self.kind, tuple):
            return f"{'some' if self.several else 'one'} of {', '.join(self.kind)}"
        return (_SEVERAL if self.several else _ONE)[self.kind]

    def take(self, words: list[str]) -> list[str]:
        """Remove from the front of `words` those that follow the option, and return them."""
        most = len(words) if self.several else int(self.kind is not bool)
        values = list(itertools.takewhile(lambda word: word != "--" and not _is_flag(word), words[:most]))
        del words[: len(values)]
        return values

    def check(self, name: str, word: str) -> None:
        """Raise `PrefVLMError` for a word that is not allowed; `name` says for what it was meant."""
        if isinstance(self.kind, tuple):
            if word not in self.kind:
                raise unknown_name(name, word, self.kind)
            return
        try:
            self.kind(word)
        except ValueError as error:
            raise PrefVLMError(f"{name} takes {self}, got {shown(word)}.") from error


def parse(commands: Mapping[str, Any], words: Sequence[str], description: str) -> Any:
    """The instance of one of `commands`, dataclasses by name, that the words of a command line describe.

    Raises `PrefVLMError` for words that describe none; it names the option, what was given, and what is allowed.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parser = tyro.extras.subcommand_cli_from_dict
            return parser(dict(commands), prog="prefvlm", description=description, args=words)
    except SystemExit as stopped:
        if not stopped.code:  # after the help
            raise
        cause = stopped.__context__
        while cause:  # a command's own checks, of which tyro shows a box
            if isinstance(cause, PrefVLMError):
                raise cause from None
            cause = cause.__context__
        if words[0] not in commands:
            raise unknown_name("command", words[0], commands) from None
        _check_words(f"prefvlm {words[0]}", commands[words[0]], list(words[1:]))
        plain = re.sub(r"[^\x20-\x7e]", " ", said.getvalue())
        raise PrefVLMError(f"The command line cannot be read: {' '.join(plain.split())}") from None


def _check_words(command: str, kind: type[Any], words: list[str]) -> None:
    """Raise `PrefVLMError` for the first word that a command, a dataclass, cannot use, or for one that it lacks."""
    options, places = dict(_options(kind)), _places(kind)
    needed = [field.name for field in dataclasses.fields(kind) if field.default is field.default_factory is MISSING]
    given, more_options, no_words = set[str](), True, "it takes options alone, which begin with --"
    limit = no_words
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if more_options and word == "--":
            more_options, limit = False, no_words
        elif more_options and _is_flag(word):
            flag = flag.replace("_", "-")
            if flag not in options:
                raise unknown_name(f"option of {command}", flag, options)
            option, limit = options[flag], f"{flag} takes {options[flag]}"
            given.add(flag.removeprefix("--").replace("-", "_"))
            values = [value] if equals else option.take(words)
            if bool(values) == (option.kind is bool) and not option.several:
                raise PrefVLMError(f"{limit}, got {shown(value) if equals else 'none'}.")
            for value in values:
                option.check(flag, value)
        elif places:
            name = next(iter(places))
            places.pop(name).check(f"{name} of {command}", word)
            given.add(name)
        else:
            raise PrefVLMError(f"{command} has no place for {shown(word)}: {limit}.")
    for name in needed:
        if name not in given:
            what = "a name" if name in places else f"--{name.replace('_', '-')}"
            if name in places and isinstance(places[name].kind, tuple):
                raise PrefVLMError(f"{command} needs {places[name]}.")
            raise PrefVLMError(f"{command} needs {what}: {field_docstrings(kind)[name]}")


def _is_flag(word: str) -> bool:
    """Whether a word begins an option, as -1 and -inf do not."""
    return bool(re.match(r"--?[A-Za-z]", word)) and word.lower() not in ("-inf", "-infinity", "-nan")


def _places(kind: type[Any]) -> dict[str, _Option]:
    """What is given by its place, without a name."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: _option(hint) for name, hint in hints.items() if _is_positional(hint)}


def _options(kind: type[Any], prefix: str = "--") -> Iterator[tuple[str, _Option]]:
    """Every option of a command or of a group of options, under each of its names."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        plain, word = _plain(hint), name.replace("_", "-")
        if dataclasses.is_dataclass(plain) or typing.is_typeddict(plain):
            unnamed = any(getattr(extra, "name", None) == "" for extra in typing.get_args(hint)[1:])
            yield from _options(typing.cast(type, plain), prefix if unnamed else f"{prefix}{word}.")
        elif not _is_positional(hint):
            option = _option(hint)
            yield f"{prefix}{word}", option
            if option.kind is bool:
                yield f"{prefix}no-{word}", option


def _is_positional(hint: Any) -> bool:
    return tyro.conf.Positional in typing.get_args(hint)[1:]


def _plain(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _option(hint: Any) -> _Option:
    plain = _plain(hint)
    origin, parts = typing.get_origin(plain), typing.get_args(plain)
    if origin is Literal:
        return _Option(parts)
    if origin is tuple:
        return _Option(_option(parts[0]).kind, several=True)
    return _option(parts[0]) if types.NoneType in parts else _Option(plain)
