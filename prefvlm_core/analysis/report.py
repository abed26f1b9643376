"""Stored results as people read them: tables with the papers' numbers, and README.md and NOTES.md from Jinja templates.

A template never holds a result: it asks for one by name, and `render` refuses what is not stored.

    {% set prefvlm = run("02_learning_curves", "prefvlm (1×B)") %}
    {% claim prefvlm.success < 0.5 %}
    PrefVLM ends at {{ interval(prefvlm, "success") }} %.
    {% endclaim %}

`StoredNumbers` holds what a template may call. The words between `claim` and `endclaim` are written only where the
comparison holds on the stored numbers; where it does not, `render` fails and quotes them.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from prefvlm_core.analysis.answers import differences_by_arm, differences_counted, differences_in_words
from prefvlm_core.analysis.label_quality import error_rates
from prefvlm_core.analysis.paired import DECIDING, verdict
from prefvlm_core.analysis.stages import differences_by_stages_in_words, with_stages
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.analysis.wording import interval, percent, points
from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.runs.files import UNREADABLE, write_atomically

README_PROFILE = "laptop"
"""The profile whose numbers README.md shows."""
README_EXPERIMENT = "02_learning_curves"
"""The experiment that compares methods."""
REFERENCE_METHODS = {"prefvlm": "ROVED", "pebble": "PEBBLE", "surf": "SURF", "mrn": "MRN", "vlm-reward": "LIV"}
"""Our methods -> names in the digitized curves of ROVED."""
KEYS = {
    "table": ("experiment", "task", "arm"),
    "labels": ("experiment", "task", "arm"),
    "judges": ("task", "arm", "partition"),
    "scores": ("task", "arm", "measure"),
    "differences": ("arm", "against", "measure"),
    "worth": ("arm", "measure"),
    "planned": ("experiment", "task", "arm"),
}
"""Files of `results/<profile>/` that `prefvlm table` writes, without .csv, and the columns that name a row:
`stats.summary_table`, `label_quality.error_rates` by task and `label_quality.judges`, `paired.score_table`,
`paired.difference_table` of every two arms, `paired.worth_table`, `paired.planned_differences` of every experiment."""

_COUNTS = ("human_labels", "vlm_labels", "seeds", "labels")


def with_reference(table: pandas.DataFrame) -> pandas.DataFrame:
    """A `summary_table` with the papers' numbers: columns paper_success, paper_area_under_curve (0..1, nan where ROVED
    shows no such curve) and paper_labels, of its curve with the nearest label budget."""
    text = resources.files("prefvlm_core.analysis").joinpath("reference_curves.json").read_text(encoding="utf-8")
    summaries = json.loads(text)["summaries"]
    columns = {"success": "paper_success", "area_under_curve": "paper_area_under_curve", "labels": "paper_labels"}
    rows = []
    for row in table.itertuples():
        name = REFERENCE_METHODS.get(row.method)
        known = [entry for entry in summaries if entry["task"] == row.task and entry["method"] == name]
        rows.append(min(known, key=lambda entry: abs(entry["labels"] - row.human_labels)) if known else {})
    paper = pandas.DataFrame(rows, index=table.index, columns=list(columns)).rename(columns=columns)
    return pandas.concat([table, paper.astype(float)], axis=1)


def label_errors(labels: pandas.DataFrame) -> pandas.DataFrame:
    """`error_rates` of each task in a label log, one row per task and arm; no row without labels of the VLM."""
    by_task = labels[labels["teacher"] == "vlm"].groupby("task")
    tables = {str(task): error_rates(rows) for task, rows in by_task}
    return pandas.concat(tables, names=["task", ""]).reset_index("task") if tables else pandas.DataFrame()


def percents(rows: Iterable[Mapping[str, Any]], shows: str) -> str:
    """One fraction of each of several stored rows in percent: `44, 52 and 84`."""
    *first, last = (percent(row[shows]) for row in rows)
    return f"{', '.join(first)} and {last}"


def highest(rows: Iterable[Mapping[str, Any]], shows: str) -> float:
    """The largest number of a column."""
    return max(row[shows] for row in rows)


def lowest(rows: Iterable[Mapping[str, Any]], shows: str) -> float:
    """The smallest number of a column."""
    return min(row[shows] for row in rows)


def budgets(row: Mapping[str, Any]) -> str:
    """A label equivalent, in label budgets, with its 95 % interval where it has one: `1.2 (1.0–2.4)`."""
    return f"{row['mean']:.1f}" + ("" if math.isnan(row["low"]) else f" ({row['low']:.1f}–{row['high']:.1f})")


def differences_as_table(gaps: pandas.DataFrame) -> str:
    """`answers.differences_by_arm` as a Markdown table."""
    table = differences_by_arm(gaps).reset_index()
    lines = [list(table), ["---", *["--:"] * (table.shape[1] - 1)], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_IN_WORDS = {"differences": points, "worth": budgets, "planned": points}
"""Tables whose rows are one number with an interval, and how a cell shows it."""


class StoredNumbers:
    """The tables of `results/<profile>/` as templates see them: rows by name, each a mapping of its columns.

    An arm is one curve of a figure, such as "prefvlm (1×B)". Asking for a row that is not stored raises `PrefVLMError`.
    """

    def __init__(self, folder: Path) -> None:
        self.files = {name: _rows(folder / f"{name}.csv", columns) for name, columns in KEYS.items()}

    def row(self, file: str, **key: str) -> dict[str, Any]:
        """The row of `file` (see `KEYS`) that `key` names."""
        if file not in KEYS:
            raise unknown_name("table", file, KEYS)
        missing = [column for column in KEYS[file] if column not in key]
        if missing:
            raise PrefVLMError(f"A row of {file}.csv was asked for without its {' and '.join(missing)}.")
        name = tuple(key[column] for column in KEYS[file])
        if name not in self.files[file]:
            raise unknown_name(f"row of {file}.csv", " | ".join(name), map(" | ".join, self.files[file]))
        return self.files[file][name]

    def run(self, experiment: str, arm: str, task: str = ALL_TASKS) -> dict[str, Any]:
        """Success, area and labels of an arm: a row of `table.csv`."""
        return self.row("table", experiment=experiment, task=task, arm=arm)

    def runs(self, experiment: str, task: str = ALL_TASKS, arms: Sequence[str] = ()) -> list[dict[str, Any]]:
        """`run` of several arms: of those named, in that order, else of all that ran on the task (at least one)."""
        if arms:
            return [self.run(experiment, arm, task) for arm in arms]
        found = [row for row in self.files["table"].values() if (row["experiment"], row["task"]) == (experiment, task)]
        if not found:
            raise PrefVLMError(f"table.csv holds no rows of experiment {experiment} on {task}.")
        return found

    def judges(self, arm: str, task: str = ALL_TASKS, partition: str = "all") -> dict[str, Any]:
        """How often the VLM and the reward ensemble are right about an arm's pairs: a row of `judges.csv`."""
        return self.row("judges", task=task, arm=arm, partition=partition)

    def score(self, arm: str, task: str = ALL_TASKS, measure: str = DECIDING) -> dict[str, Any]:
        """The mean of a measure over the runs of an arm: a row of `scores.csv`."""
        return self.row("scores", task=task, arm=arm, measure=measure)

    def finished_seeds(self, arms: Iterable[str]) -> int:
        """With how many seeds every one of these arms has finished on every task."""
        return int(lowest(map(self.score, arms), "seeds"))

    def gap(self, arm: str, against: str, measure: str = DECIDING) -> dict[str, Any]:
        """How much more an arm scores than another, paired by task and seed: a row of `differences.csv`."""
        return self.row("differences", arm=arm, against=against, measure=measure)

    def worth(self, arm: str, measure: str = DECIDING) -> dict[str, Any]:
        """With how many label budgets PEBBLE scores as an arm does: a row of `worth.csv`."""
        return self.row("worth", arm=arm, measure=measure)

    def change(self, experiment: str, arm: str, task: str = ALL_TASKS) -> dict[str, Any]:
        """How much more an arm scores than the one that it is compared with: a row of `planned.csv`."""
        return self.row("planned", experiment=experiment, task=task, arm=arm)

    def planned(self, experiment: str, **values: str) -> pandas.DataFrame:
        """What is stored of the arms of an experiment against those that they are compared with: rows of `planned.csv`,
        those with these values in these columns; none where nothing is stored."""
        rows = [row for row in self.files["planned"].values() if row["experiment"] == experiment]
        for column, value in values.items():
            if rows and column not in rows[0]:
                raise unknown_name("column of planned.csv", column, rows[0])
            rows = [row for row in rows if ("" if pandas.isna(row[column]) else row[column]) == value]
        return pandas.DataFrame(rows)

    def labels(self, experiment: str, arm: str, task: str) -> dict[str, Any]:
        """How often the VLM's labels of an arm are wrong: a row of `labels.csv`."""
        return self.row("labels", experiment=experiment, task=task, arm=arm)

    def every_run(self, experiment: str) -> str:
        """All rows of an experiment as a Markdown table: success and area in percent with their intervals."""
        lines = ["| task | arm | human labels | success | area under curve | seeds |", "|---|---|--:|--:|--:|--:|"]
        for row in self.files["table"].values():
            if row["experiment"] == experiment:
                cells = [row["task"], row["arm"], f"{row['human_labels']:.0f}", interval(row, "success")]
                cells += [interval(row, "area_under_curve"), str(row["seeds"])]
                lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def table(
        self,
        corner: str,
        rows: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        columns: Mapping[str, Any],
        measures: Mapping[str, str] | None = None,
        **shared: Any,
    ) -> str:
        """A Markdown table. Each cell is a stored number, named by the fields of the table, its row and its column
        together, the later ones winning: `file` ("table"), the columns in `KEYS`, `shows` (the column shown,
        "success") and `interval` (False). Texts may name other fields in braces: "prefvlm{vlm}".

        `rows` and `columns` map headings to fields; a text stands for {"arm": text}. `rows` may also be `runs`. A row's
        `cells` changes the fields under one heading, or leaves that cell out (None); so is one where an arm meets
        itself. `measures`, names -> columns, repeats all rows for each.
        """
        named = rows if isinstance(rows, Mapping) else {row["arm"]: row["arm"] for row in rows}
        lines = [f"| {' | '.join([corner, *columns])} |", "|---|" + "--:|" * len(columns)]
        for measure, shows in (measures or {"": "success"}).items():
            for name, row in named.items():
                fields = {"shows": shows} | shared | _fields(row)
                special = fields.pop("cells", {})
                cells = [
                    "–"
                    if special.get(head, "") is None
                    else self._cell(fields | _fields(column) | _fields(special.get(head, {})))
                    for head, column in columns.items()
                ]
                lines.append(f"| {' | '.join([f'{name}, {measure}' if measure else name, *cells])} |")
        return "\n".join(lines)

    def _cell(self, fields: Mapping[str, Any]) -> str:
        file, shows = fields.get("file", "table"), fields["shows"]
        key = {name: fields[name].format_map(fields) for name in KEYS.get(file, ()) if name in fields}
        if key.get("arm") == key.get("against", ""):
            return "–"
        row = self.row(file, **key)
        if shows not in row:
            raise unknown_name(f"column of {file}.csv", shows, row)
        if shows in _COUNTS:
            return f"{row[shows]:.0f}"
        if file in _IN_WORDS:
            return _IN_WORDS[file](row)
        return interval(row, shows) if fields.get("interval") else percent(row[shows])


class Claim(Extension):
    """`{% claim comparison %}words{% endclaim %}`: the words, where the comparison holds; else `PrefVLMError`."""

    tags = {"claim"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        comparison = parser.parse_expression()
        words = parser.parse_statements(("name:endclaim",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_words", [comparison]), [], [], words).set_lineno(line)

    def _words(self, holds: bool, caller: Callable[[], str]) -> str:
        words = caller()
        if not holds:
            raise PrefVLMError(f"the claim '{' '.join(words.split())}' does not hold on the stored numbers.")
        return words


def render(template: Path, folder: Path) -> str:
    """The text of a template with the numbers stored in `folder`, which is `results/<profile>/`.

    Raises `PrefVLMError`, naming the template and the line, for a name or a row that is not there and for a claim that
    the numbers contradict.
    """
    numbers = StoredNumbers(folder)
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        extensions=[Claim],
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    rows = (numbers.run, numbers.runs, numbers.score, numbers.gap, numbers.worth, numbers.labels, numbers.judges)
    words = (percent, percents, interval, points, verdict, budgets, highest, lowest)
    compared = (numbers.change, numbers.planned, differences_in_words, differences_counted, differences_as_table)
    by_stages = (with_stages, differences_by_stages_in_words)
    environment.globals |= {
        function.__name__: function
        for function in (*rows, numbers.finished_seeds, numbers.table, numbers.every_run, *words, *compared, *by_stages)
    }
    try:
        return environment.get_template(template.name).render()
    except (TemplateError, PrefVLMError, KeyError) as error:
        frames = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(template)
        ]
        line = error.lineno if isinstance(error, TemplateSyntaxError) else frames[-1]
        reason = f"there is no {error}." if isinstance(error, KeyError) else error
        raise PrefVLMError(f"{template}, line {line}: {reason}") from error


def write_into_texts(readme: Path, folder: Path) -> list[Path]:
    """Write the texts that show a folder's numbers from their templates, as far as there are any: its NOTES.md, and
    where README.md shows the folder's profile, README.md and the pages of `docs/`; returns the files written."""
    templates = {folder / "NOTES.md": folder / "NOTES.md.j2"}
    if folder.name == README_PROFILE:
        docs = readme.parent / "docs"
        templates |= {path.with_suffix(""): path for path in sorted(docs.glob("**/*.md.j2"))}
        templates[readme] = templates.pop(docs / "README.md", docs / "README.md.j2")
    written = [text for text, template in templates.items() if template.exists()]
    for text in written:
        write_atomically(text, render(templates[text], folder).encode())
    return written


def _fields(named: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"arm": named} if isinstance(named, str) else dict(named)


def _rows(path: Path, columns: tuple[str, ...]) -> dict[tuple[str, ...], dict[str, Any]]:
    """The rows of a table by the values of `columns`; none where there is no such file."""
    if not path.exists():
        return {}
    try:
        table = pandas.read_csv(path)
        return {tuple(row[column] for column in columns): row for row in table.to_dict("records")}
    except UNREADABLE as error:
        raise PrefVLMError(
            f"{path} is damaged ({' '.join(str(error).split())}); remove it to compute it again."
        ) from error
