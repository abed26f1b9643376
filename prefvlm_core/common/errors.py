"""The exception that the package raises for mistakes of its users, and suggestions for misspelled names."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class PrefVLMError(ValueError):
    """A mistake of the user. Its message says in one sentence what is wrong, where, and what is allowed."""

    def __str__(self) -> str:
        """The message on one line, whatever it quotes: other characters that cannot be printed are escaped."""
        line = " ".join(super().__str__().splitlines())
        return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython, and therefore a notebook, shows for the error: its sentence alone."""
        return [f"{type(self).__name__}: {self}"]


def shown(value: object) -> str:
    """A value as an error message shows it: on one line, its quotes included if it is text, and never at length."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out integers of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


def unknown_name(kind: str, name: object, allowed: Iterable[str], meant: str | None = None) -> PrefVLMError:
    """The error for a `name` that is not among `allowed`. `kind` says what is named.

    It suggests `meant` if that is given ("": nothing), else the allowed name that is spelled most alike, if one is.
    """
    names = sorted(allowed)
    if meant is None:
        meant = next(iter(difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)), "")
    hint = f" Did you mean '{meant}'?" if meant else ""
    listed = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return PrefVLMError(f"Unknown {kind} {shown(name)}.{hint} Allowed: {listed}.")


def check_path(name: str, path: str | Path, folder: bool = True) -> None:
    """Raise `PrefVLMError` unless `path` can be that of a folder, or of a file in one: not empty, and below no file.

    `name` says what it is the path of.
    """
    text = os.fspath(path)
    if not text.strip() or "\0" in text or text == "." * (not folder):
        raise PrefVLMError(f"{name} must name a {'folder' if folder else 'file'}, got {shown(text)}.")
    above = Path(text) if folder else Path(text).parent
    try:
        file = next((place for place in (above, *above.parents) if place.exists() and not place.is_dir()), None)
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise PrefVLMError(f"{name} is {shown(text)}, which cannot be used: {error.strerror}.") from error
    if file is not None:
        raise PrefVLMError(f"{name} is {shown(text)}, but {file} is a file, not a folder.")
