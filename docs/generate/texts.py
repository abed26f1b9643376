"""Docstrings as Markdown."""

import inspect
import re
from typing import Any


def markdown(docstring: str) -> str:
    """A docstring, plain text with backticks, as Markdown: no <name> is a tag there, and options are code."""
    parts = re.split(r"(`[^`]*`)", docstring)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"--[a-z][\w.-]*\w", r"`\g<0>`", text).replace("<", r"\<")


def first_paragraph(documented: Any) -> str:
    """The first paragraph of a docstring in one line of Markdown."""
    return markdown(" ".join(inspect.cleandoc(documented.__doc__ or "").split("\n\n")[0].split()))
