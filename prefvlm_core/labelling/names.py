"""What a person may be called, and which characters a text may hold."""

import unicodedata

from prefvlm_core.common.errors import PrefVLMError

LONGEST_NAME = 100
"""Largest number of characters in the name of an annotator."""
_REFUSED = {"Cc": "control characters", "Cs": "half surrogate pairs", "Zl": "line breaks", "Zp": "line breaks"}
"""Unicode's categories of characters that would steer a terminal, break a line or fit into no database."""


def check_characters(text: str) -> str:
    """Return `text`. Raises `PrefVLMError` if it holds a control character, a line break or half a surrogate pair."""
    for position, character in enumerate(text):
        if refused := _REFUSED.get(unicodedata.category(character)):
            raise PrefVLMError(f"A text may hold no {refused}, but character {position + 1} is U+{ord(character):04X}.")
    return text


def escaped(text: str) -> str:
    """The text for a terminal, with the characters that `check_characters` refuses written as Python writes them."""
    return "".join(repr(one)[1:-1] if unicodedata.category(one) in _REFUSED else one for one in text)


def check_name(name: str) -> str:
    """Return the name of an annotator without spaces around it.

    Raises `PrefVLMError` unless it has 1 to `LONGEST_NAME` characters that `check_characters` allows.
    """
    if not isinstance(name, str):
        raise PrefVLMError(f"An annotator's name is a text, not of type {type(name).__name__}.")
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        shown = f"'{name}'" if len(name) <= LONGEST_NAME else f"{len(name)} characters"
        raise PrefVLMError(f"An annotator needs a name of 1 to {LONGEST_NAME} characters, got {shown}.")
    return check_characters(name)
