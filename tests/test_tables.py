"""README's table is what the code makes from the stored runs, and the papers' numbers are the papers'."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from prefvlm_core.tables import markdown, readme_table, shown_in, with_reference, write_into_readme

ROOT = Path(__file__).parents[1]
README = "before\n<!-- table of profile quick, written by `prefvlm table` -->\nold\n<!-- end of table -->\nafter\n"


def rows() -> pandas.DataFrame:
    columns = ["experiment", "task", "method", "curve", "human_labels", "vlm_labels", "seeds", "success"]
    columns += ["success_low", "success_high", "area_under_curve"]
    first = ["02_learning_curves", "window-open-v3", "prefvlm", "prefvlm", 1000.0, 5.0, 5, 0.734, 0.5, 0.9, 0.41]
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
    ]
    other = ["03_filter_ablation", "window-open-v3", "rime", "rime", 100.0, 0.0, 5, 0.1, 0.0, 0.2, 0.1]
    return pandas.DataFrame([first, pebble, other], columns=columns)


def test_markdown_by_hand() -> None:
    lines = markdown(rows()).splitlines()
    assert lines[2] == "| window-open-v3 | prefvlm | 1000 | 73 (50–90) | 41 | 5 |"
    assert lines[3] == "| window-open-v3 | pebble (more) | 1990 | 60 | 30 | 1 |"
    assert len(lines) == 5


def test_reference_is_the_digitised_curve_of_the_nearest_budget() -> None:
    """Last 10 % and area of ROVED's Fig. 3 on window-open, in the fact sheet: 73 and 48 (ROVED), 64 and 57 (PEBBLE)."""
    table = with_reference(rows())
    assert table["paper_labels"].tolist()[:2] == [1000, 2000] and np.isnan(table["paper_labels"][2])
    assert table["paper_success"].tolist()[:2] == pytest.approx([0.73, 0.64], abs=0.006)
    assert table["paper_area_under_curve"].tolist()[:2] == pytest.approx([0.48, 0.57], abs=0.006)


def test_readme_gets_the_rows_of_its_profile_and_nothing_else_changes(tmp_path: Path) -> None:
    readme, stored = tmp_path / "README.md", tmp_path / "table.csv"
    readme.write_text(README, encoding="utf-8")
    rows().to_csv(stored, index=False)
    assert not write_into_readme(readme, "paper", stored) and readme.read_text(encoding="utf-8") == README
    assert not write_into_readme(tmp_path / "missing.md", "quick", stored)
    assert write_into_readme(readme, "quick", stored) and write_into_readme(readme, "quick", stored)
    text = readme.read_text(encoding="utf-8")
    assert shown_in(text) == ("quick", markdown(rows()[:2]))
    assert text.startswith("before\n<!-- table") and text.endswith("<!-- end of table -->\nafter\n")


def test_readme_shows_what_is_stored() -> None:
    shown = shown_in((ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown is not None, "README.md lost the markers of its table"
    stored = ROOT / "results" / shown[0] / "table.csv"
    if not stored.exists():
        pytest.skip(f"no runs of profile {shown[0]} are stored")
    assert shown[1] == readme_table(stored)
