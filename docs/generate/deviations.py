"""Where the code knowingly differs from that of the baselines, as the docstrings of its modules say."""

import importlib
import inspect
import re

from generate import api


def text() -> str:
    """The Markdown of every list of deviations, under the name of its module."""
    found = {name: _deviations(name) for modules in api.rooms().values() for name in modules}
    parts = [f"`{name.removeprefix('prefvlm_core.')}`: {said}" for name, said in found.items() if said]
    return "\n\n".join(parts) + "\n"


def _deviations(module: str) -> str:
    """The paragraph of the module's docstring that begins with the word; empty if none does."""
    docstring = inspect.cleandoc(importlib.import_module(module).__doc__ or "")
    begins = re.search(r"^(?:.*\. )?Deliberate deviation.*", docstring, re.MULTILINE)
    if not begins:
        return ""
    said = docstring[begins.start() :][begins.group().index("Deliberate") :]
    with_list = re.match(r"(.*?:)\n+((?:- .*(?:\n  .*)*\n?)+)", said)
    said = f"{with_list[1]}\n\n{with_list[2].rstrip()}" if with_list else said.split("\n\n")[0]
    return said[0].lower() + said[1:]
