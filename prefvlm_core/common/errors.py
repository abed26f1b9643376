"""The exception that the package raises for mistakes of its users, and suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


class PrefVLMError(ValueError):
    """A mistake of the user. Its message says in one sentence what is wrong, where, and what is allowed."""

    def __str__(self) -> str:
        """The message on one line, whatever it quotes: other characters that cannot be printed are escaped."""
        line = " ".join(super().__str__().splitlines())
        return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython, and therefore a notebook, shows for the error: its sentence alone."""
        return [f"{type(self).__name__}: {self}"]


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> PrefVLMError:
    """The error for a `name` that is not among `allowed`; it suggests the closest one. `kind` says what is named."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return PrefVLMError(f"Unknown {kind} '{name}'.{hint} Allowed: {shown}.")
