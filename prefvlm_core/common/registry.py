"""Registries: what can be named in a config, open to entries from outside the package."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar

from prefvlm_core.common.errors import PrefVLMError, unknown_name

Entry = TypeVar("Entry")
Names = ParamSpec("Names")
Answer = TypeVar("Answer")


class Registry(Mapping[str, Entry]):
    """Named entries of one kind.

    A name that ends with a colon stands for a family: the entry of "open_clip:" answers to every "open_clip:<model>".

    Args:
        kind: What the entries are, as error messages say it, for example "teacher".
        entries: The entries that come with the package.
        summaries: A line on each name that a config may give, also on those that no entry answers to.
    """

    registrations: ClassVar[int] = 0
    """How often an entry of any kind was added in this process."""

    def __init__(self, kind: str, entries: Mapping[str, Entry], summaries: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._summaries = dict(summaries or {})
        self._packaged = frozenset(entries)

    def register(self, name: str, entry: Entry) -> Entry:
        """Add an entry and return it; one that was added before is replaced, as when a notebook's cell is run twice.

        Raises `PrefVLMError` for a name that could not be part of a path, and for one that comes with the package.
        """
        check_part_of_path(self.kind, name)
        if name in self._packaged:
            raise PrefVLMError(f"The {self.kind} '{name}' comes with the package; choose another name for yours.")
        self._entries[name] = entry
        Registry.registrations += 1
        return entry

    @property
    def summaries(self) -> dict[str, str]:
        """A line on each name; those that were added have none."""
        return self._summaries | {name: "" for name in self._entries if name not in self._summaries}

    def check(self, name: str) -> str:
        """Return `name`, or raise `PrefVLMError` with a suggestion where no entry answers to it."""
        if name not in self:
            raise unknown_name(self.kind, name, self._entries)
        return name

    def __getitem__(self, name: str) -> Entry:
        self.check(name)
        return self._entries[name] if name in self._entries else self._entries[_family(name)]

    def get(self, name: str, default: Any = None) -> Any:
        """The entry that answers to `name`, else `default`, as of a dictionary."""
        return self[name] if name in self else default  # Mapping's own waits for a KeyError

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._entries or _family(name) in self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def check_part_of_path(kind: str, name: str) -> None:
    """Raise `PrefVLMError` for a name that could not be a folder's. `kind` says what is named."""
    if not name.isprintable() or name != name.strip() or name in ("", ".", "..") or {"/", "\\"} & set(name):
        raise PrefVLMError(
            f"A {kind} needs a printable name without spaces around it, slashes or backslashes, got {name!r}."
        )


def _family(name: str) -> str:
    """The part of a name up to its first colon, with it; empty where there is nothing on either side."""
    family, colon, member = name.partition(":")
    return f"{family}{colon}" if family and member else ""


def cached_by_name(function: Callable[Names, Answer]) -> Callable[Names, Answer]:
    """Remember what a function of registered names, and of whole numbers, returned, until a registration may change
    what the names mean."""

    @functools.cache
    def remembered(registrations: int, *names: Names.args, **named: Names.kwargs) -> Answer:
        return function(*names, **named)

    @functools.wraps(function)
    def answer(*names: Names.args, **named: Names.kwargs) -> Answer:
        if not all(isinstance(name, str | int) for name in (*names, *named.values())):
            return function(*names, **named)  # which refuses it
        return remembered(Registry.registrations, *names, **named)  # type: ignore[arg-type]  # they can be hashed

    return answer


def import_plugin(module: str) -> None:
    """Import a module of the user's, which registers entries. It may lie in the working directory.

    Raises `PrefVLMError` where there is no such module; what the module itself raises is passed on.
    """
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)  # at the end: nothing in it may hide another module
    try:
        if all(part.isidentifier() for part in module.split(".")):
            importlib.import_module(module)
            return
    except ModuleNotFoundError as error:
        if not error.name or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module imports is missing
    raise PrefVLMError(
        f"There is no module '{module}' on the Python path or in {folder}; plugin takes a module's name, my_names for "
        "the file my_names.py."
    )
