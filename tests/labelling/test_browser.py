"""The labeller as a person meets it: JupyterLab, a headless chromium, keys, clicks, reloads, a restart."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.jupyter import (
    CHROMIUM,
    KEYS,
    PATIENCE,
    SIZE,
    SOONEST_MS,
    JupyterLab,
    answer,
    jupyter_lab,
    labels,
    post,
    run_cell,
    shown,
    until,
    voila,
    wait_for,
    wait_for_pair,
    without_network,
    write_notebook,
)
from packaging.version import Version
from sqlalchemy import select

from prefvlm_core.labelling.database import ANSWERS
from prefvlm_core.labelling.queue import LabelQueue

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")]
SUBSHELLS = Version(version("jupyterlab")) >= Version("4.4") and Version(version("ipykernel")) >= Version("7")
"""Whether widgets have a thread of their own, see docs/howto/label.md."""
HOSTILE = '"><img src=x onerror="window.hacked = 4"><script>window.hacked = 5</script>'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    with jupyter_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def page(chromium: Any, lab: JupyterLab) -> Iterator[Any]:
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(1000 * PATIENCE)
    yield page
    page.close()
    lab.end_kernels()


@pytest.fixture
def queue(lab: JupyterLab, request: pytest.FixtureRequest) -> LabelQueue:
    name = re.sub(r"\W+", "_", request.node.name)
    return LabelQueue(f"sqlite:///{lab.folder}/{name}.sqlite")


def open_notebook(page: Any, lab: JupyterLab, queue: LabelQueue, *more: str, options: str = "") -> Path:
    """Open a notebook whose first cell shows the labeller; returns its file."""
    name = Path(queue.database._file).stem
    cell = f'from prefvlm_core import Labeller\nLabeller({queue.database.name!r}, "Ann"{options})'
    page.goto(lab.write(name, cell, *more))
    return lab.folder / f"{name}.ipynb"


def choices(queue: LabelQueue) -> list[str]:
    return [choice for _, choice in labels(queue)]


def test_label_reload_restart_and_go_on(page: Any, queue: LabelQueue, lab: JupyterLab) -> None:
    post(queue, 30, text="push and close a drawer <script>window.hacked = 1</script>")
    notebook = open_notebook(page, lab, queue)
    run_cell(page)
    wait_for_pair(page)
    given = ["left", "right", "equal", "skip"]
    for click in (False, True):  # keys work without a click
        for choice in given:
            answer(page, choice, click)
    assert choices(queue) == given * 2

    answer(page, "undo")
    assert choices(queue) == (given * 2)[:-1]
    answer(page, "right")
    assert choices(queue) == [*(given * 2)[:-1], "right"]

    page.wait_for_timeout(SOONEST_MS + 50)
    page.locator(".prefvlm-labeller .left").dblclick()  # the second click falls on a pair that nobody has looked at
    until(lambda: len(choices(queue)) == 9, "the first click of a double click is an answer")
    wait_for_pair(page)
    answer(page, "equal")
    assert choices(queue)[8:] == ["left", "equal"]

    root = page.locator(".prefvlm-labeller")
    assert "push and close a drawer <script>" in root.inner_text() and page.evaluate("window.hacked") is None
    before = shown(page)
    root.get_by_role("button", name="Answer 10: equal").click()  # go back to it and answer again
    wait_for(page, f"it.dataset.shown > {before}")
    answer(page, "skip")
    assert choices(queue)[8:] == ["left", "skip"]

    page.keyboard.press("Control+s")
    until(lambda: "vnd.jupyter.widget-view" in notebook.read_text(), "the notebook is saved")
    page.reload()  # the kernel lives on, and the page finds its widget again
    wait_for_pair(page)
    answer(page, "skip")
    assert choices(queue)[10:] == ["skip"]

    page.get_by_role("button", name=re.compile("Restart the kernel")).first.click()
    with page.expect_response(re.compile("/restart")):  # the server answers when the kernel has started again
        page.get_by_role("button", name="Confirm Kernel Restart").click()
    wait_for(page, "it.innerText.includes('The kernel has said nothing for')")
    run_cell(page)
    wait_for_pair(page)
    answer(page, "right")
    assert choices(queue) == [*(given * 2)[:-1], "right", "left", "skip", "skip", "right"]  # nothing lost or skipped
    assert [pair for pair, _ in labels(queue)] == list(range(12))


def test_keys_play_pause_step_and_scrub(page: Any, queue: LabelQueue, lab: JupyterLab) -> None:
    post(queue, 1)
    open_notebook(page, lab, queue)
    run_cell(page)
    wait_for_pair(page)
    slider, place = page.locator(".prefvlm-labeller input[type=range]"), page.locator(".prefvlm-labeller .place")
    scrolled = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop")
    slider.evaluate("slider => { slider.value = 9; slider.dispatchEvent(new Event('input')); }")
    canvas = "c => [c.width, ...c.getContext('2d').getImageData(0, c.height / 2, c.width, 1).data]"
    rows = []
    for side in (0, 1):
        width, *pixels = page.locator("canvas").nth(side).evaluate(canvas)  # the row through both squares
        rows.append(np.array(pixels).reshape(width, 4)[:, :3])
    with queue.transaction(reading=True) as connection:
        swapped = connection.execute(select(ANSWERS.c.swapped)).scalar()
    first, second = rows[::-1] if swapped else rows
    middles = [np.flatnonzero(row[:, 1] < 120).mean() * SIZE / len(row) for row in (first, second)]
    assert middles == pytest.approx([5 + 12, 5 + 9 * 7 + 12], abs=1)
    red, blue = (row[np.flatnonzero(row[:, 1] < 120)].mean(0) for row in (first, second))
    assert red[0] > red[2] and blue[2] > blue[0]  # red is the first segment, blue the second
    page.wait_for_timeout(400)  # four frames
    assert place.inner_text() == "10/10 · 1×" and slider.input_value() == "9"  # scrubbing stops the loop
    assert page.locator(".mark").first.inner_text() == "end"
    page.keyboard.press(",")
    page.keyboard.press("3")
    assert place.inner_text() == "9/10 · 2×"
    for _ in range(3):
        page.keyboard.press(".")
    assert place.inner_text() == "10/10 · 2×"
    page.keyboard.press("Space")  # replays
    page.wait_for_function("document.querySelector('.prefvlm-labeller input').value !== '9'")
    page.keyboard.press("Space")
    stands = place.inner_text()
    page.wait_for_timeout(300)
    assert place.inner_text() == stands
    assert page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop") == scrolled
    assert labels(queue) == []


@pytest.mark.parametrize(("width", "height", "side"), [(1280, 800, 400), (900, 700, 300)])
def test_all_of_it_is_on_screen_at_once(
    page: Any, queue: LabelQueue, lab: JupyterLab, width: int, height: int, side: int
) -> None:
    post(queue, 2)
    page.set_viewport_size({"width": width, "height": height})
    open_notebook(page, lab, queue)
    run_cell(page)
    page.keyboard.press("Control+b")  # closes the file browser; JupyterLab's own keys work beside the labeller's
    wait_for_pair(page)
    page.wait_for_timeout(500)
    inside = """(() => { const box = document.querySelector('.prefvlm-labeller').getBoundingClientRect();
        const room = document.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
        return [box.top - room.top, room.bottom - box.bottom, box.left - room.left, room.right - box.right]; })()"""
    assert min(page.evaluate(inside)) >= 0
    assert page.locator("canvas").first.bounding_box()["width"] >= side
    overflow = "it => [...it.querySelectorAll('*')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    assert page.locator(".prefvlm-labeller").evaluate(overflow) == 0


def wait_for_pair_while_a_cell_runs(page: Any, queue: LabelQueue, lab: JupyterLab) -> None:
    """Post three pairs while a cell runs, which ends when there is a file `end`, and wait for the first."""
    cell = "import pathlib, time\nwhile not pathlib.Path('end').exists(): time.sleep(0.1)"
    open_notebook(page, lab, queue, cell)
    run_cell(page)
    wait_for(page, "it.innerText.includes('No pair waits')")
    page.locator(".jp-CodeCell .cm-content").nth(1).click()
    page.keyboard.press("Control+Enter")
    page.get_by_text("Python 3 (ipykernel) | Busy").wait_for()
    post(queue, 3)
    wait_for_pair(page)
    page.locator(".prefvlm-labeller .task").click()


@pytest.mark.skipif(not SUBSHELLS, reason="answers wait for the cell to end before JupyterLab 4.4 and ipykernel 7")
def test_pairs_come_and_answers_go_while_another_cell_runs(page: Any, queue: LabelQueue, lab: JupyterLab) -> None:
    wait_for_pair_while_a_cell_runs(page, queue, lab)
    for choice in ("left", "equal"):
        answer(page, choice)
    assert choices(queue) == ["left", "equal"]


@pytest.mark.skipif(SUBSHELLS, reason="answers wait for no cell since JupyterLab 4.4 and ipykernel 7")
def test_an_answer_waits_for_another_cell_to_end(page: Any, queue: LabelQueue, lab: JupyterLab) -> None:
    wait_for_pair_while_a_cell_runs(page, queue, lab)
    page.wait_for_timeout(SOONEST_MS + 50)
    page.keyboard.press(KEYS["left"])
    wait_for(page, "it.innerText.includes('Your answer waits for the kernel, which is busy with a cell')")
    assert choices(queue) == []
    (lab.folder / "end").touch()
    wait_for_pair(page)
    answer(page, "equal")
    assert choices(queue) == ["left", "equal"]


def test_nothing_that_the_database_holds_runs_in_the_page(page: Any, queue: LabelQueue, lab: JupyterLab) -> None:
    post(queue, 4)
    words = "text = :hostile, run_id = :hostile, task = :hostile, partition = :hostile"
    with closing(sqlite3.connect(queue.database._file)) as connection, connection:
        connection.execute(f"UPDATE pairs SET {words}, clip = :clip", {"hostile": HOSTILE, "clip": HOSTILE.encode()})
    open_notebook(page, lab, queue)
    run_cell(page)
    root = page.locator(".prefvlm-labeller")
    wait_for(page, "it.innerText.includes('This clip cannot be shown')")
    assert HOSTILE in root.locator(".task").inner_text()
    page.keyboard.press("ArrowLeft")  # only "can't tell" is taken
    answer(page, "skip")
    assert choices(queue) == ["skip"]
    with closing(sqlite3.connect(queue.database._file)) as connection, connection:
        connection.execute("UPDATE pairs SET budget = ?", [HOSTILE])
    wait_for(page, "it.innerText.includes('changed by another program')")
    assert "src=x onerror" in root.locator(".status").inner_text()  # the value is shown, as text
    page.wait_for_timeout(1000)  # a handler would have run by now
    assert page.evaluate("window.hacked") is None
    assert root.locator("img").count() == 0 and root.locator("script").count() == 0
    root.evaluate("it => it.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 6\">')")
    page.wait_for_function("window.hacked === 6")  # it would have been seen


def test_voila_shows_the_labeller_without_a_network(chromium: Any, tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 5)
    cell = f'from prefvlm_core import Labeller\nLabeller({queue.database.name!r}, "Ann")'
    with voila(write_notebook(tmp_path / "label.ipynb", cell)) as address:
        page = without_network(chromium.new_page(viewport={"width": 1280, "height": 800}))
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(address)
        wait_for_pair(page)
        for choice in ("left", "equal", "right"):  # keys work without a click
            answer(page, choice)
        page.close()
    assert choices(queue) == ["left", "equal", "right"]
