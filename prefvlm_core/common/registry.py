"""Registries: what can be named in a config, open to entries from outside the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from prefvlm_core.common.errors import PrefVLMError, unknown_name

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """Named entries of one kind.

    A name that ends with a colon stands for a family: the entry of "open_clip:" answers to every "open_clip:<model>".

    Args:
        kind: What the entries are, as error messages say it, for example "teacher".
        entries: The entries that come with the package.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._packaged = frozenset(entries)

    def register(self, name: str, entry: Entry) -> Entry:
        """Add an entry and return it; one that was added before is replaced, as when a notebook's cell is run twice.

        Raises `PrefVLMError` for a name that could not be part of a path, and for one that comes with the package.
        """
        if not name or name != name.strip() or "/" in name:
            raise PrefVLMError(f"A {self.kind} needs a name without spaces around it or slashes, got '{name}'.")
        if name in self._packaged:
            raise PrefVLMError(f"The {self.kind} '{name}' comes with the package; choose another name for yours.")
        self._entries[name] = entry
        return entry

    def check(self, name: str) -> str:
        """Return `name`, or raise `PrefVLMError` with a suggestion where no entry answers to it."""
        if name not in self:
            raise unknown_name(self.kind, name, self._entries)
        return name

    def __getitem__(self, name: str) -> Entry:
        self.check(name)
        return self._entries[name] if name in self._entries else self._entries[_family(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._entries or _family(name) in self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _family(name: str) -> str:
    """The part of a name up to its first colon, with it; empty where there is nothing on either side."""
    family, colon, member = name.partition(":")
    return f"{family}{colon}" if family and member else ""
