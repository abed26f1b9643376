"""Every command that a text tells its reader to type is one."""

import re
import shlex
from pathlib import Path

import pytest

from prefvlm_core.cli import COMMANDS
from prefvlm_core.config.arguments import parse

ROOT = Path(__file__).parents[2]
TEXTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


def commands(text: str) -> list[str]:
    """Lines that begin with the command, and whatever stands in backticks with an option or a name behind it."""
    lines = re.findall(r"^(?:\$ )?prefvlm ([a-z].*?)(?:  +#.*)?$", text, re.MULTILINE)
    return lines + re.findall(r"`prefvlm ([a-z]+ [^`]+)`", text)


def test_commands_are_found() -> None:
    found = [command for path in TEXTS for command in commands(path.read_text(encoding="utf-8"))]
    assert len(found) > 12
    assert {"train", "show", "list", "runs", "labels", "pack", "experiment"} <= {line.split()[0] for line in found}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_in_texts_are_understood(path: Path) -> None:
    for line in commands(path.read_text(encoding="utf-8")):
        words = [word for word in shlex.split(line.replace("\n", " ")) if word != "--plugin"]
        if words[-1] != "--help":
            assert isinstance(parse(COMMANDS, [word for word in words if word != "my_names"], ""), COMMANDS[words[0]])
