"""README.md and NOTES.md are what their templates make of the stored tables, and say nothing else."""

import re
from pathlib import Path

import jinja2
import numpy as np
import pandas
import pytest

from prefvlm_core.analysis.report import (
    README_PROFILE,
    StoredNumbers,
    budgets,
    interval,
    percent,
    percents,
    points,
    render,
    with_reference,
    write_into_texts,
)
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.experiments.batch import table_step

ROOT = Path(__file__).parents[2]
PUBLISHED = sorted(path.parent.name for path in (ROOT / "results").glob("*/runs.csv"))
TEMPLATES = {path: ROOT / "results" / README_PROFILE for path in (ROOT / "docs").glob("**/*.md.j2")} | {
    path: path.parent for path in (ROOT / "results").glob("*/NOTES.md.j2")
}
NOT_RESULTS = ("95 % interval", "Python 3.11–3.13")
"""Percentages and ranges that a template may hold by hand, since no run says them."""
FEW = 'run("02_learning_curves", "pebble (1×B)", "window-open-v3")'


def stored(folder: Path) -> Path:
    """A folder with small tables: two arms on one task, one of them without an interval, and their difference."""
    folder.mkdir(exist_ok=True)
    measures = ["success", "success_low", "success_high"]
    measures += [f"area_under_curve{bound}" for bound in ("", "_low", "_high")]
    columns = ["experiment", "task", "method", "arm", "human_labels", "seeds", *measures]
    experiment, task = "02_learning_curves", "window-open-v3"
    rows = [
        [experiment, task, "pebble", "pebble (1×B)", 99.5, 5, 0.734, 0.5, 0.9, 0.41, 0.3, 0.5],
        [experiment, task, "pebble", "pebble (2×B)", 200.0, 1, 0.6, *[np.nan] * 2, 0.3, *[np.nan] * 2],
    ]
    pandas.DataFrame(rows, columns=columns).to_csv(folder / "table.csv", index=False)
    gaps = [["pebble (1×B)", "pebble (2×B)", "last_three", 0.134, -0.054, 0.3, 5]]
    gap_columns = ["arm", "against", "measure", "mean", "low", "high", "pairs"]
    pandas.DataFrame(gaps, columns=gap_columns).to_csv(folder / "differences.csv", index=False)
    planned = [
        ["03_filter_ablation", "all tasks", "no filter", "", "prefvlm", 0.4, 0.5, -0.1, -0.2, -0.05, 10, 5],
        ["03_filter_ablation", "a", "no filter", "", "prefvlm", 0.4, 0.5, -0.1, -0.2, -0.05, 10, 5],
        ["03_filter_ablation", "all tasks", "random", "errors", "prefvlm", 0.5, 0.5, 0.0, -0.3, 0.3, 10, 5],
        ["05_transfer", "all tasks", "with", "", "without", 0.5, 0.5, 0.0, -0.3, 0.3, 10, 5],
    ]
    columns = ["experiment", "task", "arm", "group", "against", "score", "score_against", "mean", "low", "high"]
    pandas.DataFrame(planned, columns=[*columns, "pairs", "seeds"]).to_csv(folder / "planned.csv", index=False)
    return folder


def rendered(source: str, tmp_path: Path) -> str:
    template = tmp_path / "TEXT.md.j2"
    template.write_text(source, encoding="utf-8")
    return render(template, stored(tmp_path / "results"))


def typed_results(source: str, arms: set[str]) -> list[str]:
    """Percentages, ranges and parts of enumerations in a template, in its text or in quotes, that no expression made.

    Quoted names of arms may hold a percentage.
    """
    text, inside = "", False
    for _, kind, value in jinja2.Environment().lex(source):
        inside = inside if kind == "data" else kind not in ("variable_end", "block_end")
        if kind == "data":
            text += value
        elif kind == "string" and not any(arm.endswith(value[1:-1]) for arm in arms):
            text += f"\n{value}\n"
        elif kind == "variable_end":
            text += "◆"
    for allowed in NOT_RESULTS:
        text = text.replace(allowed, "")
    found = re.finditer(r"\d ?%|\d ?– ?\d|\(\d+\) ?%|\d(?:,| and| or| to|–) ?◆|◆(?:,| and| or| to|–) ?\d", text)
    return [text[max(0, match.start() - 30) : match.end() + 10] for match in found]


def test_reference_is_the_digitized_curve_of_the_nearest_budget() -> None:
    """Last 10 % and area of ROVED's Fig. 3 on window-open, in the fact sheet: 73 and 48 (ROVED), 64 and 57 (PEBBLE)."""
    rows = [
        ("window-open-v3", "prefvlm", 1000.0),
        ("window-open-v3", "pebble", 1990.0),
        ("window-open-v3", "rime", 100.0),
    ]
    table = with_reference(pandas.DataFrame(rows, columns=["task", "method", "human_labels"]))
    assert table["paper_labels"].tolist()[:2] == [1000, 2000] and np.isnan(table["paper_labels"][2])
    assert table["paper_success"].tolist()[:2] == pytest.approx([0.73, 0.64], abs=0.006)
    assert table["paper_area_under_curve"].tolist()[:2] == pytest.approx([0.48, 0.57], abs=0.006)


def test_numbers_in_words_by_hand() -> None:
    row = {"success": 0.734, "success_low": 0.5, "success_high": 0.9, "mean": 0.61, "low": 0.454, "high": 0.77}
    assert percent(0.734) == "73"
    assert interval(row, "success") == "73 (50–90)" and interval(row) == "61 (45–77)"
    assert points({"mean": 0.066, "low": -0.014, "high": 0.151}) == "+7 (−1 to +15)"
    # As from a stored table, which has four digits; the sign of a bound says that the interval ends below 0.
    assert points({"mean": 0.00500004, "low": -0.0008, "high": 0.005}) == "+0 (−0 to +0)"
    assert budgets({"mean": 1.244, "low": 1.0, "high": 2.37}) == "1.2 (1.0–2.4)"
    assert budgets({"mean": 1.244, "low": np.nan, "high": np.nan}) == "1.2"
    assert interval(row | {"success_low": np.nan, "success_high": np.nan}, "success") == "73"
    assert percents([row, {"success": 0.1}, {"success": 1.0}], "success") == "73, 10 and 100"
    with pytest.raises(PrefVLMError, match="not a number"):
        percent(np.nan)


def test_a_table_merges_the_fields_of_table_row_and_column(tmp_path: Path) -> None:
    numbers = StoredNumbers(stored(tmp_path / "results"))
    text = numbers.table(
        "arm",
        experiment="02_learning_curves",
        task="window-open-v3",
        measures={"success": "success", "area": "area_under_curve"},
        rows={
            "B": {"budget": "1×B", "interval": True},
            "2 B": {"budget": "2×B", "interval": True, "cells": {"labels": None}},
        },
        columns={"PEBBLE": {"arm": "pebble ({budget})"}, "labels": {"arm": "pebble (1×B)", "shows": "human_labels"}},
    )
    assert text.splitlines() == [
        "| arm | PEBBLE | labels |",
        "|---|--:|--:|",
        "| B, success | 73 (50–90) | 100 |",
        "| 2 B, success | 60 | – |",
        "| B, area | 41 (30–50) | 100 |",
        "| 2 B, area | 30 | – |",
    ]
    gaps = numbers.table(
        "",
        file="differences",
        measure="last_three",
        shows="mean",
        rows=[{"arm": "pebble (1×B)"}],
        columns={"1": {"against": "pebble (1×B)"}, "2": {"against": "pebble (2×B)"}},
    )
    assert gaps.splitlines()[-1] == "| pebble (1×B) | – | +13 (−5 to +30) |"


def test_every_run_of_an_experiment_by_hand(tmp_path: Path) -> None:
    assert StoredNumbers(stored(tmp_path / "results")).every_run("02_learning_curves").splitlines()[2:] == [
        "| window-open-v3 | pebble (1×B) | 100 | 73 (50–90) | 41 (30–50) | 5 |",
        "| window-open-v3 | pebble (2×B) | 200 | 60 | 30 | 1 |",
    ]


def test_arms_have_finished_with_the_seeds_of_the_one_that_has_fewest(tmp_path: Path) -> None:
    scores = [["all tasks", arm, "last_three", 0.5, seeds] for arm, seeds in (("a", 20), ("b", 3), ("c", 7))]
    scores += [["door-close-v3", "a", "last_three", 0.5, 1], ["all tasks", "a", "success_area", 0.5, 2]]
    (tmp_path / "results").mkdir()
    columns = ["task", "arm", "measure", "mean", "seeds"]
    pandas.DataFrame(scores, columns=columns).to_csv(tmp_path / "results" / "scores.csv", index=False)
    asked = ('["a"]', '{"C": "c", "A": "a"}.values()', '["a", "b", "c"]')
    source = " ".join(f"{{{{ finished_seeds({arms}) }}}}" for arms in asked)
    assert rendered(source, tmp_path) == "20 7 3"


def test_planned_differences_are_said_as_far_as_they_are_stored(tmp_path: Path) -> None:
    numbers = StoredNumbers(stored(tmp_path / "results"))
    assert len(numbers.planned("03_filter_ablation")) == 3 and len(numbers.planned("04_threshold_sensitivity")) == 0
    assert list(numbers.planned("03_filter_ablation", group="")["arm"]) == ["no filter"] * 2
    assert list(numbers.planned("03_filter_ablation", group="errors", against="prefvlm")["arm"]) == ["random"]
    assert numbers.change("03_filter_ablation", "no filter")["high"] == -0.05
    with pytest.raises(PrefVLMError, match=r"Unknown column of planned.csv 'grup'. Did you mean 'group'"):
        numbers.planned("03_filter_ablation", grup="")
    source = """{% for name in ("03_filter_ablation", "04_threshold_sensitivity") if planned(name) | length %}
{{ differences_in_words(planned(name)) }}
{{ differences_counted(planned(name)) }}
{{ differences_as_table(planned(name, group="")) }}
{% endfor %}
{{ points(change("03_filter_ablation", "no filter", "a")) }}
"""
    assert rendered(source, tmp_path).splitlines() == [
        "- **random** against *prefvlm*: +0 (−30 to +30) points, undecided with 5 seeds.",
        "- **no filter** ends below *prefvlm*: −10 (−20 to −5) points.",
        "- Of 2 compared with *prefvlm*: 0 above, 1 below, 0 level, 1 undecided.",
        "| arm | success | compared with | difference (points) | pairs |",
        "| --- | --: | --: | --: | --: |",
        "| no filter | 40 % | prefvlm: 50 % | −10 (−20 to −5) | 10 |",
        "−10 (−20 to −5)",
    ]


def test_a_template_gets_stored_numbers(tmp_path: Path) -> None:
    gap = 'gap("pebble (1×B)", "pebble (2×B)")'
    source = f"{{{{ percent({FEW}.success) }}}} %, {{{{ points({gap}) }}}}: {{{{ verdict({gap}) }}}}\n"
    assert rendered(source, tmp_path) == "73 %, +13 (−5 to +30): not inferior\n"


def test_a_claim_that_holds_leaves_only_its_words(tmp_path: Path) -> None:
    words = f"high ({{{{ percent({FEW}.success) }}}} %)"
    source = f"before\n{{% claim {FEW}.success > 0.7 %}}\n{words}\n{{% endclaim %}}\nafter\n"
    assert rendered(source, tmp_path) == "before\nhigh (73 %)\nafter\n"


def test_a_claim_that_the_numbers_contradict_is_refused(tmp_path: Path) -> None:
    source = (
        f"\n{{% claim {FEW}.success > 0.74 %}}\nPEBBLE ends at {{{{ percent({FEW}.success) }}}} %.\n{{% endclaim %}}\n"
    )
    with pytest.raises(PrefVLMError, match=r"TEXT.md.j2, line 2: the claim 'PEBBLE ends at 73 %\.' does not hold"):
        rendered(source, tmp_path)


def test_a_claim_about_a_number_that_is_missing_is_refused(tmp_path: Path) -> None:
    many = FEW.replace("1×B", "2×B")  # one seed: its interval is nan
    with pytest.raises(PrefVLMError, match="does not hold"):
        rendered(f"{{% claim {many}.success_low < 0.9 %}}x{{% endclaim %}}", tmp_path)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("\n{{ nothing }}", r"line 2: 'nothing' is undefined"),
        (f"{{{{ {FEW}.failure }}}}", "has no attribute 'failure'"),
        (f'{{{{ interval({FEW}, "failure") }}}}', "there is no 'failure"),
        (f"{{{{ {FEW.replace('1×B', '3×B')}.success }}}}", r"line 1: Unknown row of table.csv .*3×B.* Did you mean"),
        ('{{ gap("pebble (2×B)", "pebble (1×B)").low }}', "Unknown row of differences.csv"),
        ('{{ runs("02_learning_curves", "door-close-v3") }}', "no rows of experiment 02_learning_curves on door-close"),
        ('{{ table("", {"row": "pebble (1×B)"}, {"column": {}}, task="window-open-v3") }}', "without its experiment"),
        ('{{ table("", {"row": "x"}, {"column": {}}, file="tabel") }}', "Unknown table 'tabel'. Did you mean 'table'"),
        ("{% claim true %}never closed", "line 1: .*endclaim"),
    ],
)
def test_what_a_template_cannot_get_is_named_in_one_line(source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PrefVLMError, match=reason) as error:
        rendered(source, tmp_path)
    assert str(tmp_path / "TEXT.md.j2") in str(error.value) and "\n" not in str(error.value)


def test_texts_are_written_from_the_tables_of_their_profile(tmp_path: Path) -> None:
    readme, notes = tmp_path / "README.md", tmp_path / README_PROFILE / "NOTES.md"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md.j2").write_text(f"{{{{ interval({FEW}, 'success') }}}}\n", encoding="utf-8")
    other, folder = stored(tmp_path / "other"), stored(tmp_path / README_PROFILE)
    assert write_into_texts(readme, other) == [] and not readme.exists()
    assert write_into_texts(readme, folder) == [readme] and readme.read_text(encoding="utf-8") == "73 (50–90)\n"
    (folder / "NOTES.md.j2").write_text("one\n", encoding="utf-8")
    (tmp_path / "docs" / "page.md.j2").write_text("two\n", encoding="utf-8")
    page = tmp_path / "docs" / "page.md"
    assert write_into_texts(readme, folder) == [notes, page, readme]
    assert (notes.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")) == ("one\n", "two\n")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_committed_texts_are_what_their_templates_make_of_the_stored_tables(template: Path) -> None:
    text = ROOT / "README.md" if template.name == "README.md.j2" else template.with_suffix("")
    assert text.read_text(encoding="utf-8") == render(template, TEMPLATES[template])


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_result_is_typed_into_a_template(template: Path) -> None:
    arms = {str(key[-1]) for key in StoredNumbers(TEMPLATES[template]).files["table"]}
    assert typed_results(template.read_text(encoding="utf-8"), arms) == []


@pytest.mark.parametrize(
    "source",
    [
        "It ends at 23 %.",
        "with probability 61 (45–77)",
        "It ends at 44, 44 and {{ percent(x) }} %.",
        "It ends at {{ percent(x) }} or 84 of 100.",
        '{{ "It ends at 23 %." if x }}',
        '{% set best = "23 %" %}',
        "{% claim x < y %}\n23 % is little{% endclaim %}".replace("claim x < y", "if x").replace("endclaim", "endif"),
    ],
)
def test_typed_results_are_seen(source: str) -> None:
    assert typed_results(source, {"VLM 70 % right"})


def test_what_is_no_typed_result_is_let_through() -> None:
    source = '95 % intervals of {{ percent(run("06", "VLM 70 % right").success) }} %, right 70 or 80 times in 100'
    assert typed_results(source, {"VLM 70 % right"}) == []


@pytest.mark.parametrize("profile", PUBLISHED)
def test_stored_tables_are_those_of_the_stored_runs(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no README.md to bring up to date
    folder = ROOT / "results" / profile
    (tmp_path / profile).mkdir()
    for published in ("runs.csv", "metrics", "labels"):
        (tmp_path / profile / published).symlink_to(folder / published)
    table_step(profile, str(tmp_path))
    written = {path.name: path.read_text() for path in (tmp_path / profile).glob("*.csv")}
    assert written == {path.name: path.read_text() for path in folder.glob("*.csv") if "pilot" not in path.name}
