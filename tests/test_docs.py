"""The documentation site leaves nothing out: modules, commands, fields, names, columns and notebooks have a place."""

import ast
import contextlib
import dataclasses
import importlib
import io
import json
import re
from pathlib import Path

import pandas
import pytest
from generate import api, commands, fields, names, notebooks, texts

from prefvlm_core.cli import COMMANDS
from prefvlm_core.config.arguments import parse
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.config.run import flatten
from prefvlm_core.domains.tasks import TASKS
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.labelling.schema import AnswerLine, PairLine
from prefvlm_core.methods import METHODS, run_config
from prefvlm_core.preferences.log import COLUMNS
from prefvlm_core.preferences.teachers import TEACHERS
from prefvlm_core.vlm import VLMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "api")
"""Pages that people write."""


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def directives(kind: str, text: str) -> dict[str, str]:
    """The directives of one kind by what stands behind it, with their content."""
    return dict(re.findall(rf"^```{{{kind}}} ([^\n]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


def test_every_public_module_is_in_the_api() -> None:
    sources = [path.relative_to(ROOT) for path in (ROOT / "prefvlm_core").rglob("*.py")]
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in sources}
    public = {name for name in modules if not any(part.startswith("_") for part in name.split("."))} - {"prefvlm_core"}
    pages = api.pages()
    assert sorted(re.findall(r"automodule:: (\S+)", "".join(pages.values()))) == sorted(public)
    assert {name.split(".")[1] for name in public} == set(pages) and "\napi/*\n" in page("reference/api.md")


def test_every_public_name_leads_to_where_it_is_defined() -> None:
    rows = re.findall(r"`(\w+) <(\S+)\.\1>` \| `\2`", api.public_names())
    package = importlib.import_module("prefvlm_core")
    assert {name for name, _ in rows} == set(package.__all__) - {"__version__"}
    assert all(getattr(importlib.import_module(module), name) is getattr(package, name) for name, module in rows)


def options_in_help(command: str) -> set[str]:
    """The options that `prefvlm <command> --help` lists, each at the beginning of a line."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
        parse(COMMANDS, [command, "--help"], "")
    found = re.findall(r"^[│| ] (--[a-z][\w.-]*)(?:, (--[\w.-]+))?", printed.getvalue(), flags=re.MULTILINE)
    return {option for options in found for option in options if option}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_on_a_page(command: str) -> None:
    section = commands.text().split(f"## `prefvlm {command}`\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"--[a-z][\w.-]*", " ".join(directives("option", section))))
    elsewhere: set[str] = set()
    if "(config.md)" in section:
        elsewhere |= {f"--{name.replace('_', '-')}" for name in directives("confval", fields.text())}
    if "(#how-runs-are-executed)" in section:
        executed = commands.text().split("\n## How runs are executed\n")[1]
        elsewhere |= set(re.findall(r"--[a-z][\w-]*", " ".join(directives("option", executed))))
    offered = options_in_help(command)
    switches = {option for option in offered if re.sub(r"(--|\.)no-", r"\1", option) in elsewhere}
    assert listed <= offered and offered - listed - elsewhere - switches == set()
    assert listed


def test_every_config_field_is_on_its_page_with_its_values() -> None:
    told = directives("confval", fields.text())
    configs = {profile: run_config("drawer-close-v3", "pebble", 0, profile) for profile in PROFILES}
    values = {profile: flatten(dataclasses.asdict(config)) for profile, config in configs.items()}
    assert set(told) == set(values["paper"])
    for name in set(told) - {"task", "method", "seed", "profile"}:
        held = {profile: values[profile][name] for profile in values}
        typed = {profile: f"{value:.6g}" if isinstance(value, float) else str(value) for profile, value in held.items()}
        default = told[name].split(":default: ")[1].split("\n")[0]
        if len(set(typed.values())) == 1:
            assert default == f"`{typed['paper'] or chr(34) * 2}`"
        else:
            assert dict(re.findall(r"(\w+) `([^`]*)`", default)) == typed


def test_every_name_is_on_its_page() -> None:
    text = names.text()
    for kind in (TASKS, METHODS, VLMS.summaries, TEACHERS.summaries, EXPERIMENTS.summaries, PROFILES):
        assert [name for name in kind if f"| `{name}` |" not in text] == []
    assert all(f"`{field}`" in text for method in METHODS.values() for field in (*method.changes, *method.small))


def test_every_column_of_the_published_tables_is_explained() -> None:
    explained = page("reference/files.md")
    metrics, labels = re.split(r"^## Columns of (?:metrics|labels)\.csv$", explained, flags=re.MULTILINE)[1:]
    tables = sorted((ROOT / "results" / "laptop" / "metrics").rglob("*.csv"))
    columns = {name for path in tables for name in pandas.read_csv(path, nrows=0).columns}
    assert len(columns) > 30 and [name for name in sorted(columns) if f"`{name}`" not in metrics] == []
    assert [name for name in ("method", "seed", "hash", *COLUMNS) if f"`{name}`" not in labels] == []


def test_every_field_of_a_label_file_is_explained() -> None:
    section = page("reference/files.md").split("\n## Label files\n")[1]
    for line in (PairLine, AnswerLine):
        assert [name for name in line.model_fields if f"`{name}`" not in section] == []


def test_every_notebook_has_a_page_with_its_figures() -> None:
    pages = notebooks.pages()
    assert set(pages) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} and len(pages) > 9
    assert "\nnotebooks/*\n" in page("results/notebooks.md")
    for figure in (ROOT / "figures" / "laptop").glob("*.png"):
        (shown,) = [text for name, text in pages.items() if figure.stem.startswith(f"{name}_")]
        assert f"figures/laptop/{figure.name}" in shown or '"image/png"' in shown


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one notebook, `a`, which draws one figure."""
    for folder in ("notebooks", "results/notebooks", "figures/laptop"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks" / "a.ipynb").write_text(notebook("# A", "x = 1", 'show(x["steps"], "steps")', "x"))
    (tmp_path / "figures" / "laptop" / "a_steps.png").touch()
    return tmp_path


def notebook(*sources: str) -> str:
    """Cells of code as JSON; one that begins with an injected comment is papermill's."""
    cells = [{"cell_type": "code", "source": source, "metadata": {}} for source in sources]
    for cell in cells:
        if str(cell["source"]).startswith("# injected"):
            cell["metadata"] = {"tags": ["injected-parameters"]}
    return json.dumps({"cells": cells})


def shown() -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebooks.pages()["a"])["cells"]]


def test_a_figure_stands_below_the_cell_that_draws_it(project: Path) -> None:
    title, whose, *others = shown()
    assert title == "# A" and "profile `laptop`" in whose
    assert others == ["x = 1", 'show(x["steps"], "steps")', "![a_steps](../../../figures/laptop/a_steps.png)", "x"]


def test_an_executed_copy_is_shown_if_its_cells_are_those_of_today(project: Path) -> None:
    executed = project / "results" / "notebooks" / "a-laptop.ipynb"
    cells = ["# A", "x = 1", "# injected\nx = 2", 'show(x["steps"], "steps")', "x"]
    executed.write_text(notebook(*cells))
    assert shown() == cells
    executed.write_text(notebook(*cells[:-1], "an older cell"))
    assert "an older cell" not in shown()


def test_docstrings_become_what_sphinx_reads() -> None:
    written = [
        "Sums |x| * y_ of `a*`.",
        "",
        "Args:",
        "    x: One",
        "        thing.",
        "    y: Two.",
        "Then:",
        "- this,",
        "  and",
    ]
    assert api.docstring(written) == [
        *(r"Sums \|x\| \* y\_ of `a*`.", "", "Args:", "", "    * ``x``: One", "      thing.", ""),
        *("    * ``y``: Two.", "", "Then:", "", "- this,", "  and"),
    ]


def test_docstrings_become_markdown() -> None:
    assert texts.markdown("`a<b>` in <results>, see --x.y-z.") == r"`a<b>` in \<results>, see `--x.y-z`."


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(DOCS)))
def test_python_on_a_page_can_be_read_and_imports_what_is_there(path: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.M | re.S):
        tree = compile(block, path.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")
