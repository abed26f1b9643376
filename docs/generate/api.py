"""The API: a page per room of the package, with every public module, and the names that the package offers."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import prefvlm_core
from generate.texts import first_paragraph

_MEMBER = re.compile(r"( *)(\w[\w, ]*|`[^`]+`): (.*)")


def rooms() -> dict[str, list[str]]:
    """The public modules of each room, from the first room of the alphabet to the last."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(prefvlm_core.__path__, "prefvlm_core."):
        if not module.name.rpartition(".")[2].startswith("_"):
            found.setdefault(module.name.split(".")[1], []).append(module.name)
    return found


def pages() -> dict[str, str]:
    """The Markdown of the page of each room."""
    return {room: "\n\n".join([f"# {room}", *map(_section, modules)]) + "\n" for room, modules in rooms().items()}


def _section(module: str) -> str:
    """A module under a heading, unless it is the room itself, which has the page's."""
    name = module.removeprefix("prefvlm_core.")
    heading = f"## `{name}`\n\n" if "." in name else ""
    return f"{heading}```{{eval-rst}}\n.. automodule:: {module}\n```"


def rooms_table() -> str:
    """A table of the rooms, with what each says of itself."""
    said = {room: first_paragraph(importlib.import_module(modules[0])) for room, modules in rooms().items()}
    rows = [f"| [{room}](api/{room}.md) | {text} |" for room, text in said.items()]
    return "\n".join(["| room | what it holds |", "|---|---|", *rows]) + "\n"


def public_names() -> str:
    """A table of what `from prefvlm_core import …` offers."""
    rows = [f"| {{py:obj}}`{name} <{home}.{name}>` | `{home}` |" for name, home in prefvlm_core._HOMES.items()]
    return "\n".join(["| name | defined in |", "|---|---|", *rows]) + "\n"


def docstring(lines: list[str]) -> list[str]:
    """A docstring of this package, plain text with backticks, as reStructuredText.

    Indented lists of `name: text`, bullets and drawings need blank lines around them there, and some signs a backslash.
    """
    return list(_separated([_escaped(line) for line in lines]))


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]*`?)", line)
    return "".join(part if part.startswith("`") else re.sub(r"([*|]|\b_|_\b)", r"\\\1", part) for part in parts)


def _separated(lines: list[str]) -> Iterator[str]:
    """The lines, with a blank one wherever a list or an indented block begins or ends."""
    before, text_at = "", 0  # the line before, and where the text of the item that it belongs to begins
    for line in lines:
        indent = len(line) - len(line.lstrip())
        member = _MEMBER.fullmatch(line) if indent else None
        if member and (not before.strip() or indent <= text_at or text_at == 0):
            line, starts = f"{member[1]}* ``{member[2].strip('`')}``: {member[3]}", True
        else:
            starts = line.lstrip().startswith("- ")
        inside = text_at > 0 and indent > text_at - 2
        if starts:
            if before.strip() and not inside:
                yield ""
            text_at = indent + 2
        elif line.strip() and inside:
            line = " " * text_at + line.lstrip()
        elif line.strip():
            if before.strip() and (text_at or indent != len(before) - len(before.lstrip())):
                yield ""
            text_at = 0
        yield line
        before = line
