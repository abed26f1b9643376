"""The one error that users of the package meet, and typo suggestions for names."""

import difflib
from collections.abc import Iterable


class PrefVLMError(ValueError):
    """What was wrong, where, and what is allowed, in one sentence."""

    def _render_traceback_(self) -> list[str]:
        """What IPython, and so a notebook, shows of the error: the sentence alone."""
        return [f"{type(self).__name__}: {self}"]


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> PrefVLMError:
    """Error for a name that is not among `allowed`, with the closest allowed name suggested."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return PrefVLMError(f"Unknown {kind} '{name}'.{hint} Allowed: {shown}.")
