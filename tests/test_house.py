"""The house: which room may import which, and how long a file, a class and a function may become.

`python tests/test_house.py` prints the numbers.
"""

import ast
import graphlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "prefvlm_core"
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}

ROOMS = (
    *("__main__", "__init__", "cli", "bench", "explore", "experiments", "plots", "analysis", "train", "evaluations"),
    *("checks", "feedback", "labelling", "reward", "vlm", "preferences", "agent", "runs", "methods", "config"),
    *("domains", "common"),
)
"""From top to bottom: a room imports those below it only."""

LIMITS = {"file": 350, "class": 200, "function": 45}
"""Lines."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def arrows() -> set[tuple[str, str]]:
    """Rooms and the rooms they import, also inside functions and in programs that are written as texts."""
    an_import = re.compile(r"^ *(?:from|import) (prefvlm_core[.\w]*)(?: import (.*))?", re.MULTILINE)
    found = set()
    for path, source in SOURCES.items():
        for module, names in an_import.findall(source):
            rooms = {module.split(".")[1]} if "." in module else set(names.split(", ")) - {"__version__"}
            found |= {(room_of(path), room) for room in rooms - {room_of(path)}}
    return found


def upward_arrows() -> set[tuple[str, str]]:
    return {(room, other) for room, other in arrows() if ROOMS.index(room) > ROOMS.index(other)}


def circle() -> list[str]:
    """Rooms that import each other in a circle; none where there is none."""
    try:
        graphlib.TopologicalSorter({room: {o for r, o in arrows() if r == room} for room in ROOMS}).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def lengths() -> dict[str, dict[str, int]]:
    """Lines of every file, class and function of the package, by kind and name."""
    found: dict[str, dict[str, int]] = {kind: {} for kind in LIMITS}
    for path, source in SOURCES.items():
        name = str(path.relative_to(PACKAGE))
        found["file"][name] = len(source.splitlines())
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                lines = int(node.end_lineno or 0) - node.lineno + 1
                found[kind][f"{name} {node.name}"] = max(lines, found[kind].get(f"{name} {node.name}", 0))
    return found


def files_at_the_root() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if path.is_file())


def test_every_module_is_in_a_room_and_imports_go_down() -> None:
    assert set(map(room_of, SOURCES)) <= set(ROOMS)
    assert upward_arrows() == set()


@pytest.mark.parametrize(("kind", "limit"), LIMITS.items())
def test_nothing_is_too_long_to_be_read_at_once(kind: str, limit: int) -> None:
    too_long = {name: lines for name, lines in lengths()[kind].items() if lines > limit}
    assert too_long == {}


def test_the_corridor_is_short() -> None:
    assert len(files_at_the_root()) <= 8


def main() -> None:
    """Print the numbers of the house."""
    print(f"rooms                   {len({room_of(path) for path in SOURCES if path.stem[0] != '_'})}")
    print(f"arrows between rooms    {len(arrows())}")
    print(f"upward arrows           {len(upward_arrows())}  {' '.join('->'.join(arrow) for arrow in upward_arrows())}")
    print(f"circle of rooms         {' -> '.join(circle()) or 'none'}")
    print(f"files at the root       {len(files_at_the_root())}  {' '.join(files_at_the_root())}")
    for kind, found in lengths().items():
        longest = max(found, key=lambda name: found[name])
        over = sum(lines > LIMITS[kind] for lines in found.values())
        print(f"longest {kind:<16}{found[longest]}  {longest}: {over} of {len(found)} are over {LIMITS[kind]}")


if __name__ == "__main__":
    main()
