"""The project's frame: dependencies, notebooks, versions and sizes are what the files promise."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zlib
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import prefvlm_core

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def requirements(extra: str | None = None) -> set[str]:
    """What `pip install prefvlm` (or `prefvlm[extra]`) asks for, with extras that name other extras opened up."""
    listed = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    asked: set[str] = set()
    for line in listed:
        requirement = Requirement(line)
        asked |= set().union(*map(requirements, requirement.extras)) if requirement.name == "prefvlm" else {line}
    return asked


def notebook_faults(notebook: dict[str, Any]) -> list[str]:
    """Every way in which a notebook breaks the rules for notebooks in git."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    sources = {id(cell): [line for line in "".join(cell["source"]).splitlines() if line.strip()] for cell in code}
    body = [sources[id(cell)] for cell in code if cell not in parameters]
    faults = []
    if len(parameters) != 1:
        faults.append(f"{len(parameters)} cells tagged `parameters` instead of 1")
    if any(cell["outputs"] for cell in code):
        faults.append("outputs")
    if any(cell["execution_count"] is not None for cell in code):
        faults.append("execution counts")
    if (total := sum(map(len, body))) > 60:
        faults.append(f"{total} lines of code, more than 60")
    if (longest := max(map(len, body), default=0)) > 25:
        faults.append(f"a cell of {longest} lines, more than 25")
    if any(re.match(r"\s*(async\s+)?(def|class)\b", line) for lines in body for line in lines):
        faults.append("a definition, which belongs in prefvlm_core")
    return faults


def test_conda_and_pip_ask_for_the_same_packages() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    from_conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (from_pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert from_conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert sorted(from_pip) == sorted(requirements() | requirements("batch") | {"-e ."})


LOCKS = {path.stem: path for path in (ROOT / "requirements").glob("*.txt")}
"""What `make locks` wrote: every package that the checks need, at one version for each version of Python."""


def locked(name: str) -> list[Requirement]:
    return [Requirement(line) for line in LOCKS[name].read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "extras"), [("lowest", ("test",)), ("highest", ("dev",))])
def test_locks_hold_all_that_is_declared(name: str, extras: tuple[str, ...]) -> None:
    pins = defaultdict(set)
    for line in locked(name):
        (pin,) = line.specifier  # a name and a version: no address of where it came from
        assert pin.operator == "==" and line.url is None, line
        pins[canonicalize_name(line.name)].add(pin.version)
    for line in map(Requirement, requirements().union(*map(requirements, [*extras, "browser"]))):
        assert all(map(line.specifier.contains, pins[canonicalize_name(line.name)])), line
        assert pins[canonicalize_name(line.name)], line


def test_every_lower_bound_is_tried() -> None:
    """So that a bound says what was tested: those of the extras in `lowest.txt` are what that file holds."""
    pins = {canonicalize_name(line.name): next(iter(line.specifier)).version for line in locked("lowest")}
    for line in map(Requirement, requirements().union(requirements("test"), requirements("browser"))):
        (least,) = (bound.version for bound in line.specifier if bound.operator == ">=")
        assert Version(pins[canonicalize_name(line.name)]) == Version(least), line


def test_ci_tries_every_python_and_both_locks() -> None:
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))["jobs"]["tests"]
    entries = steps["strategy"]["matrix"]["include"]
    listed = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert {entry["python"] for entry in entries} == listed
    assert {entry["versions"] for entry in entries} == LOCKS.keys() == {"lowest", "highest"}
    assert [entry["python"] for entry in entries if entry["versions"] == "lowest"] == ["3.11"]
    assert all("test" in entry["checks"].split() for entry in entries)
    assert [entry["python"] for entry in entries if entry.get("everything")] == ["3.12"]


def test_binder_installs_what_the_notebooks_need() -> None:
    binder = ROOT / ".binder"
    libraries = re.search('packages="(.*)"', (ROOT / "tools" / "install_gl.sh").read_text(encoding="utf-8"))
    assert libraries is not None and (binder / "apt.txt").read_text().split() == libraries[1].split()
    python, pip, torch = yaml.safe_load((binder / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python=")) and pip == "pip"
    assert torch.removeprefix("pytorch-cpu") in {line.removeprefix("torch") for line in requirements()}
    assert "install --no-cache-dir -e '.[notebooks]'" in (binder / "postBuild").read_text(encoding="utf-8")
    assert os.access(binder / "postBuild", os.X_OK) and requirements("notebooks")


def test_containers_are_built_by_the_same_steps() -> None:
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    apptainer = (ROOT / "apptainer.def").read_text(encoding="utf-8")
    sections = {name: text.splitlines() for name, text in re.findall(r"^%(\w+)\n((?: +.+\n)+)", apptainer, re.M)}
    runs = " && ".join(re.findall("^RUN (.*)", docker, re.M))
    assert [step.strip() for step in runs.split("&&")] == [step.strip() for step in sections["post"]]
    copies = [words.split() for words in re.findall("^COPY (.*)", docker, re.M)]
    files = {name: words[-1] for words in copies for name in words[:-1]}
    assert files == dict(line.split() for line in sections["files"])
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*" and {line[1:] for line in ignored if line.startswith("!")} == files.keys()
    assert sections["environment"] == ["    export " + re.findall("^ENV (.*)", docker, re.M)[0]]
    assert f"From: {re.findall('^FROM (.*)', docker, re.M)[0]}\n" in apptainer


def test_containers_hold_what_a_batch_needs() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    libraries = re.search('packages="(.*)"', (ROOT / "tools" / "install_gl.sh").read_text(encoding="utf-8"))
    torch = re.search(r"pip install (torch==[\d.]+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    from_debian = re.search(r"apt-get install -y --no-install-recommends ([^\\\n]*)", text)
    assert libraries and torch and from_debian
    compiler = ["gcc", "libc6-dev", "python3-dev"]  # for torch.compile on a GPU
    assert from_debian[1].split() == ["git", *compiler, "python3-venv", *libraries[1].split()]
    # In one command: a later one would take the newest torchvision, and for it replace torch.
    assert re.findall(r"pip install --no-cache-dir (.*)", text) == [f"{torch[1]} -e '/opt/prefvlm[batch,openclip,dmc]'"]
    assert {"batch", "openclip", "dmc"} <= PROJECT["optional-dependencies"].keys() and "slurm" not in text
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11")  # Debian bookworm's
    assert "debian:bookworm-slim" in text and "PATH=/opt/venv/bin:$PATH" in text
    needed = [PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "prefvlm_core"]
    assert {name for words in re.findall("^COPY (.*) /", text, re.M) for name in words.split()} == set(needed)


def declared(*extras: str) -> set[str]:
    """Names of the distributions that pyproject.toml asks for: for everyone, or for the named extras."""
    asked = set().union(*map(requirements, extras)) if extras else requirements()
    return {canonicalize_name(Requirement(line).name) for line in asked}


def imported(*folders: str) -> list[set[str]]:
    """For each package that the modules below `folders` import, the distributions that it may come from."""
    distributions = packages_distributions() | {"open_clip": ["open_clip_torch"]}  # not installed for the tests
    packages = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            packages |= {name.partition(".")[0] for name in names}
    packages -= {"prefvlm_core", "builders", "generate", *sys.stdlib_module_names}
    return [set(map(canonicalize_name, distributions.get(package, [package]))) for package in packages]


USED_WITHOUT_AN_IMPORT = {
    "dm-control": "imported by the names of its modules, without its ways to draw",
    "ipykernel": "the kernel that papermill starts",
    "ipywidgets": "what anywidget and the bars of tqdm are made of",
    "jupyterlab": "where people open the notebooks",
    "playwright": "looked for by the browser test, which is skipped without it",
    "psycopg": "SQLAlchemy's driver for PostgreSQL",
    "snakemake": "started by `prefvlm reproduce`",
    "snakemake-executor-plugin-slurm": "named in profiles/slurm",
    **dict.fromkeys(
        ("mypy", "nbstripout", "pre-commit", "pytest-cov", "pytest-xdist", "ruff"),
        "called by the Makefile and git hooks",
    ),
    **dict.fromkeys(("furo", "myst-nb", "sphinx-copybutton", "sphinx-design"), "named in docs/conf.py"),
    "seaborn": "not yet",
}
"""Declared dependencies that no module imports, and what they are for."""


def test_every_import_is_a_declared_dependency() -> None:
    known = declared() | declared(*PROJECT["optional-dependencies"])
    assert [names for names in imported("prefvlm_core", "tests", "tools", "docs") if names.isdisjoint(known)] == []


def test_every_declared_dependency_is_used() -> None:
    in_package = set().union(*imported("prefvlm_core"))
    anywhere = set().union(*imported("prefvlm_core", "tests", "docs"))
    assert declared() - in_package - USED_WITHOUT_AN_IMPORT.keys() == set()
    assert declared(*PROJECT["optional-dependencies"]) - anywhere - USED_WITHOUT_AN_IMPORT.keys() == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_thin_and_clean(path: Path) -> None:
    assert notebook_faults(json.loads(path.read_text(encoding="utf-8"))) == []


def test_the_notebook_rules_are_seen() -> None:
    def cell(source: str, *tags: str, count: int | None = None, outputs: tuple[str, ...] = ()) -> dict[str, Any]:
        metadata = {"tags": list(tags)} if tags else {}
        return dict(cell_type="code", source=source, metadata=metadata, execution_count=count, outputs=list(outputs))

    good = [{"cell_type": "markdown", "source": ["# Title"], "metadata": {}}, cell("seed = 1", "parameters")]
    assert notebook_faults({"cells": [*good, cell("x = 1\n\n" * 25), cell("y = 2\n" * 25), cell("z\n" * 10)]}) == []
    assert notebook_faults({"cells": [*good, *[cell("x = 1\n" * 20)] * 3, cell("y")]}) == [
        "61 lines of code, more than 60"
    ]
    assert notebook_faults({"cells": [cell("x\n" * 26)]}) == [
        "0 cells tagged `parameters` instead of 1",
        "a cell of 26 lines, more than 25",
    ]
    assert notebook_faults({"cells": [*good, cell("if x:\n    def f(): ...", count=3, outputs=("text",))]}) == [
        "outputs",
        "execution counts",
        "a definition, which belongs in prefvlm_core",
    ]


def test_one_version_everywhere() -> None:
    version = prefvlm_core.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == version
    assert PROJECT["dynamic"] == ["version"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: no list of the repository's files")
def test_the_repository_stays_small() -> None:
    # safe.directory: a checkout that belongs to another user (containers) is still listed.
    git = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert ROOT / "pyproject.toml" in files
    exempt = {path for path in files if path.parts[len(ROOT.parts)] == "figures" or path.suffix == ".safetensors"}
    # Git stores files compressed: what a table of text adds to the repository is a tenth of its size.
    sizes = {path: len(zlib.compress(path.read_bytes())) for path in files if path not in exempt}
    assert [str(path.relative_to(ROOT)) for path, size in sizes.items() if size > 1e6] == []
