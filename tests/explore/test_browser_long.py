"""How soon a person sees what a moved slider asks for: every explorer of notebook 00, in JupyterLab and under Voila.

`pytest -s tests/explore/test_browser_long.py` prints the times; they are asserted nowhere, as a machine may be busy.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from builders.jupyter import CHROMIUM, PATIENCE, jupyter_lab, voila, without_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium"),
]
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_explore.ipynb"
EXPLORERS = {"thresholds": 1, "episode": 2, "labels": 1, "runs": 1}
"""How many pictures of each are drawn anew when its first slider moves."""
MOVES = 20
WATCH = """(root, pictures) => {
    root.times = [];
    root.addEventListener('keydown', (event) => { root.pressed = event.timeStamp; root.loaded = 0; }, true);
    root.addEventListener('load', () => {
        if (++root.loaded === pictures) root.times.push(performance.now() - root.pressed);
    }, true);
}"""
"""Notes the milliseconds from each key to the moment at which the last picture that it changes is decoded."""


@pytest.fixture
def page(chromium: Any) -> Any:
    page = chromium.new_page(viewport={"width": 1280, "height": 5000})  # JupyterLab leaves out what is out of sight
    page.set_default_timeout(1000 * PATIENCE)
    return page


def processor_seconds() -> float:
    """What all processes that the test has started have used: server, kernel and browser."""
    return float(sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True)))


def measure(page: Any, front_end: str) -> None:
    """Move the first slider of each explorer to and fro by the arrow keys, one step after the other."""
    for name in EXPLORERS:  # the kernel is busy with cells until all are there
        page.locator(f".prefvlm-{name} img").first.wait_for()
    for name, pictures in EXPLORERS.items():
        root = page.locator(f".prefvlm-{name}")
        handle = root.get_by_role("slider").first
        root.evaluate(WATCH, pictures)
        handle.focus()
        key, used = "ArrowRight", processor_seconds()
        for move in range(1, MOVES + 1):
            value, least, most = (handle.get_attribute(f"aria-value{which}") for which in ("now", "min", "max"))
            key = {most: "ArrowLeft", least: "ArrowRight"}.get(value, key)
            page.keyboard.press(key)
            page.wait_for_function("([root, move]) => root.times.length === move", arg=[root.element_handle(), move])
        used = 1000 * (processor_seconds() - used) / MOVES
        middle, high = np.percentile(root.evaluate("root => root.times"), [50, 95])
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"\n{front_end}, {name}: median {middle:.0f} ms, 95th percentile {high:.0f} ms, {load};")
        print(f"{used:.0f} ms of the processor for a move, of server, kernel and browser together")


def test_every_key_moves_a_slider_of_each_explorer_in_jupyterlab(page: Any, tmp_path: Path) -> None:
    shutil.copy(NOTEBOOK, tmp_path)
    with jupyter_lab(tmp_path) as lab:
        page.goto(f"http://127.0.0.1:{lab.port}/lab/tree/{NOTEBOOK.name}?reset&token={lab.token}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        measure(page, "JupyterLab")
        lab.end_kernels()


def test_voila_shows_the_explorers_without_a_network(page: Any, tmp_path: Path) -> None:
    shutil.copy(NOTEBOOK, tmp_path)
    with voila(tmp_path / NOTEBOOK.name) as address:
        without_network(page).goto(address)
        measure(page, "Voila")
