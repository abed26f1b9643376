"""README's table is what the code makes from the stored runs, and the papers' numbers are the papers'."""

import re
from pathlib import Path

import numpy as np
import pandas
import pytest

from prefvlm_core.analysis.report import (
    markdown,
    readme_table,
    shown_in,
    with_numbers,
    with_reference,
    write_into_texts,
)
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.experiments.batch import table_step

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.name for path in (ROOT / "results").iterdir() if (path / "table.csv").exists())
TAG = "<!-- table | 02_learning_curves | window-open-v3 | prefvlm | {} -->"
README = "before\n<!-- table of profile quick, written by `prefvlm table` -->\nold\n<!-- end of table -->\nafter\n"


def rows() -> pandas.DataFrame:
    columns = ["experiment", "task", "method", "curve", "human_labels", "vlm_labels", "seeds", "success"]
    columns += ["success_low", "success_high"] + [f"area_under_curve{bound}" for bound in ("", "_low", "_high")]
    first = ["02_learning_curves", "window-open-v3", "prefvlm", "prefvlm", 1000.0, 5.0, 5, 0.734, 0.5, 0.9]
    first += [0.41, 0.3, 0.5]
    pebble = [
        "02_learning_curves",
        "window-open-v3",
        "pebble",
        "pebble (more)",
        1990.0,
        0.0,
        1,
        0.6,
        *[np.nan] * 2,
        0.3,
        *[np.nan] * 2,
    ]
    other = ["03_filter_ablation", "window-open-v3", "rime", "rime", 100.0, 0.0, 5, 0.1, 0.0, 0.2, 0.1, 0.0, 0.2]
    return pandas.DataFrame([first, pebble, other], columns=columns)


def test_markdown_by_hand() -> None:
    lines = markdown(rows()).splitlines()
    assert lines[2] == "| window-open-v3 | prefvlm | 1000 | 73 (50–90) | 41 (30–50) | 5 |"
    assert lines[3] == "| window-open-v3 | pebble (more) | 1990 | 60 | 30 | 1 |"
    assert len(lines) == 5


def test_reference_is_the_digitised_curve_of_the_nearest_budget() -> None:
    """Last 10 % and area of ROVED's Fig. 3 on window-open, in the fact sheet: 73 and 48 (ROVED), 64 and 57 (PEBBLE)."""
    table = with_reference(rows())
    assert table["paper_labels"].tolist()[:2] == [1000, 2000] and np.isnan(table["paper_labels"][2])
    assert table["paper_success"].tolist()[:2] == pytest.approx([0.73, 0.64], abs=0.006)
    assert table["paper_area_under_curve"].tolist()[:2] == pytest.approx([0.48, 0.57], abs=0.006)


def test_texts_get_the_numbers_of_their_profile_and_nothing_else_changes(tmp_path: Path) -> None:
    readme, folder = tmp_path / "README.md", tmp_path / "quick"
    (tmp_path / "paper").mkdir()
    folder.mkdir()
    for name in ("paper", "quick"):
        rows().to_csv(tmp_path / name / "table.csv", index=False)
    readme.write_text(README + "0" + TAG.format("success"), encoding="utf-8")
    (folder / "NOTES.md").write_text(f"99{TAG.format('human_labels')} labels", encoding="utf-8")
    before = readme.read_text(encoding="utf-8")
    assert write_into_texts(readme, tmp_path / "paper") == [] and readme.read_text(encoding="utf-8") == before
    for _ in range(2):
        assert write_into_texts(readme, folder) == [readme, folder / "NOTES.md"]
    text = readme.read_text(encoding="utf-8")
    assert shown_in(text) == ("quick", markdown(rows()[:2]))
    assert text.startswith("before\n<!-- table") and text.endswith("after\n73" + TAG.format("success"))
    assert (folder / "NOTES.md").read_text(encoding="utf-8") == f"1000{TAG.format('human_labels')} labels"


def test_an_interval_that_one_seed_does_not_have_comes_and_goes(tmp_path: Path) -> None:
    tag = "<!-- table | 02_learning_curves | window-open-v3 | pebble (more) | success_low -->"
    rows().to_csv(tmp_path / "table.csv", index=False)
    assert with_numbers(f"12{tag}", tmp_path) == f"nan{tag}"
    rows().fillna(0.4).to_csv(tmp_path / "table.csv", index=False)
    assert with_numbers(f"nan{tag}", tmp_path) == f"40{tag}"


def test_a_number_that_is_not_stored_is_named(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "table.csv", index=False)
    for tag in (
        TAG.format("failure"),
        TAG.replace("prefvlm", "prefvlmm").format("success"),
        TAG.replace("table", "x").format("success"),
    ):
        with pytest.raises(PrefVLMError, match="holds no number"):
            with_numbers(f"5{tag}", tmp_path)


def test_readme_shows_what_is_stored() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = shown_in(text)
    assert shown is not None, "README.md lost the markers of its table"
    folder = ROOT / "results" / shown[0]
    assert shown[1] == readme_table(folder / "table.csv")
    assert text == with_numbers(text, folder)


@pytest.mark.parametrize("profile", PROFILES)
def test_stored_tables_are_those_of_the_stored_runs(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no README.md to bring up to date
    folder = ROOT / "results" / profile
    stored = {path.name: path.read_text() for path in folder.glob("*.csv")}
    for run in folder.glob("*/*/*"):
        target = tmp_path / run.relative_to(ROOT / "results")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(run)
    table_step(profile, str(tmp_path))
    assert {path.name: path.read_text() for path in (tmp_path / profile).glob("*.csv")} == stored


@pytest.mark.parametrize("profile", PROFILES)
def test_every_percentage_in_the_notes_is_a_stored_one(profile: str) -> None:
    notes = ROOT / "results" / profile / "NOTES.md"
    if not notes.exists():
        pytest.skip(f"no notes on profile {profile}")
    text = notes.read_text(encoding="utf-8")
    assert text == with_numbers(text, notes.parent)
    untagged = re.findall(r"[^\n]*\d ?%[^\n]*", re.sub(r"95 % interval|`[^`]*`|(?<=<!--).*?(?=-->)", "", text))
    assert not untagged, "tag these numbers, see prefvlm_core/analysis/report.py"
