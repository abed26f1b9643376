"""The threshold explorer as a person meets it: JupyterLab, a headless chromium, and the arrow keys."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.explore import RESULTS, words
from builders.jupyter import CHROMIUM, jupyter_lab, run_cell, until

from prefvlm_core.explore.choosing import run_table, stored_runs
from prefvlm_core.runs.stored import load_labels

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")]
CELL = f'from prefvlm_core.explore import ThresholdExplorer\nThresholdExplorer("laptop", {str(RESULTS)!r})'


def divergences() -> np.ndarray:
    """Of the VLM's labels of the run that is shown first."""
    table = run_table(stored_runs("laptop", RESULTS), "laptop").query("task == 'button-press-v3'")
    of_setting = table.query("method == 'prefvlm'").groupby("setting", sort=False)
    (_, first), *_ = of_setting
    labels = load_labels([first.sort_values("seed")["run"].iloc[0]])
    return labels.loc[labels["teacher"] == "vlm", "divergence"].to_numpy()


def counts(root: Any) -> list[int]:
    """The numbers of clean, flipped and uncertain labels on the page."""
    text = words(root.locator("table").first.inner_html())
    return [int(text.split(f" {name} ")[1].split()[0]) for name in ("clean", "flipped (after the flip)", "uncertain")]


def test_a_slider_moved_by_keys_changes_the_counts_and_the_picture(chromium: Any, tmp_path: Path) -> None:
    values = divergences()
    with jupyter_lab(tmp_path) as lab:
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(150_000)
        page.goto(lab.write("explore", CELL))
        run_cell(page)
        root = page.locator(".prefvlm-thresholds")
        root.locator("table").first.wait_for()
        before, picture = counts(root), root.locator("img").first.get_attribute("src")
        assert sum(before) == len(values)

        root.get_by_role("slider").first.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        page.wait_for_function("was => document.querySelector('.prefvlm-thresholds img').src != was", arg=picture)
        lower = float(root.locator(".widget-readout").first.inner_text())
        clean = np.count_nonzero(values < lower)
        assert clean > before[0]
        until(
            lambda: counts(root) == [clean, before[1], len(values) - clean - before[1]], "the counts of the tenth key"
        )
        page.close()
