"""The labeller as a person meets it: JupyterLab, a headless chromium, keys, clicks, a reload, a restart."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nbformat
import numpy as np
import pytest
from sqlalchemy import select

from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.metaworld import Environment
from prefvlm_core.labelling.agreement import answers_table
from prefvlm_core.labelling.clips import CLIP_SIZE, ClipMaker, encode
from prefvlm_core.labelling.database import ANSWERS, PAIRS
from prefvlm_core.labelling.queue import LabelQueue, Pair, label_of
from prefvlm_core.labelling.widget import SOONEST_SECONDS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "equal": "ArrowUp", "skip": "ArrowDown"}
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")]


def drawn_clip(number: int, frames: int = 10) -> bytes:
    """Two squares that move, so that a reader of the screenshot or of the canvas sees which pair it is."""
    sheet = np.full((frames, 2, CLIP_SIZE, CLIP_SIZE, 3), 230, np.uint8)
    for frame in range(frames):
        for side, color in enumerate(((200, 60, 60), (60, 60, 200))):
            left = 10 + frame * 15 if side else 10 + number * 5 % 100
            sheet[frame, side, 90:140, left : left + 50] = color
    return encode(sheet)


def post(queue: LabelQueue, count: int, session: int = 1, clips: list[tuple[int, bytes]] | None = None) -> None:
    for number in range(count):
        frames, clip = clips[number % len(clips)] if clips else (10, drawn_clip(number))
        text = "push and close a drawer <script>window.hacked = 1</script>"
        text = "push and close a drawer" if clips else text
        known = {"vlm_label": 1.0, "truth": None if clips else float(number % 2)}
        queue.post(Pair("run", session, number, 40, "drawer-close-v3", text, 0, 90, 20, frames, clip, **known))


def labels(queue: LabelQueue) -> list[tuple[int, str | None]]:
    """(pair, choice) of what training would use, in order of pair; None while a pair is only claimed."""
    query = select(PAIRS.c.pair, ANSWERS.c.choice, ANSWERS.c.label, ANSWERS.c.swapped).join(ANSWERS)
    with queue.transaction(reading=True) as connection:
        rows = connection.execute(query.where(ANSWERS.c.training == 1).order_by(PAIRS.c.id)).all()
    assert all(row.choice is None or row.label == label_of(row.choice, bool(row.swapped)) for row in rows)
    return [(row.pair, row.choice) for row in rows]


def answered(queue: LabelQueue) -> list[str]:
    return [choice for _, choice in labels(queue) if choice is not None]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextlib.contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """Serve `folder`; yields the address of JupyterLab."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    settings = [f"--ServerApp.port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    settings += ["--no-browser", "--allow-root", "--ServerApp.port_retries=0", "--LabApp.news_url=None"]
    settings += ["--LabApp.extension_manager=readonly"]
    private = {name: str(folder / ".jupyter") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    package = str(Path(__file__).parents[2])
    with (folder / "jupyter.log").open("wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *settings]
        environment = (
            os.environ | private | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
        )
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/api/status?token={token}"):
                break
            assert server.poll() is None, (folder / "jupyter.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/label.ipynb?reset&token={token}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def queue(tmp_path: Path) -> LabelQueue:
    cells = [
        nbformat.v4.new_code_cell(
            "from prefvlm_core.labelling.widget import Labeller\n"
            f'labeller = Labeller("sqlite:///{tmp_path}/labels.sqlite", "Ann <img src=x onerror=window.hacked=2>")\n'
            "labeller"
        )
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "label.ipynb")
    return LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")


@pytest.fixture
def page(tmp_path: Path, queue: LabelQueue) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install prefvlm[browser]")
    with jupyter_lab(tmp_path) as address, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1250, "height": 1100})
        page.set_default_timeout(150_000)
        page.goto(address)
        yield page
        browser.close()


def press_run(page: Any) -> None:
    """Run the first cell; JupyterLab runs nothing while the kernel is starting (its issue 8490)."""
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")


def run_cell(page: Any) -> None:
    press_run(page)
    page.locator(".prefvlm-labeller canvas").first.wait_for()


def wait_for(page: Any, condition: str) -> None:
    """Until a JavaScript condition on `it`, the labeller's element, holds."""
    page.wait_for_function(
        f"(() => {{ const it = document.querySelector('.prefvlm-labeller'); return it && {condition}; }})()"
    )


def shown(page: Any) -> int:
    return int(page.locator(".prefvlm-labeller").get_attribute("data-shown"))


def scrub_to(page: Any, frame: int) -> None:
    set_value = f"slider => {{ slider.value = {frame}; slider.dispatchEvent(new Event('input')); }}"
    page.locator(".prefvlm-labeller input[type=range]").evaluate(set_value)


def answer(page: Any, choice: str, click: bool = False) -> int:
    """Give an answer as a person does and wait for the next pair; returns the milliseconds until it was on screen."""
    before = shown(page)
    page.wait_for_timeout(1000 * SOONEST_SECONDS + 50)  # sooner counts as a double click
    if click:
        page.locator(f".prefvlm-{choice}").click()
    else:
        page.keyboard.press({**KEYS, "undo": "Backspace"}[choice])
    wait_for(page, f"it.dataset.shown > {before}")
    return int(page.locator(".prefvlm-labeller").get_attribute("data-milliseconds"))


def test_label_reload_restart_and_go_on(page: Any, queue: LabelQueue, tmp_path: Path) -> None:
    post(queue, 30)
    run_cell(page)
    root = page.locator(".prefvlm-labeller")
    root.click(position={"x": 5, "y": 5})
    given = ["left", "right", "equal", "skip"]
    for click in (False, True):
        for choice in given:
            answer(page, choice, click)
    assert answered(queue) == given * 2

    answer(page, "undo")
    assert answered(queue) == (given * 2)[:-1]
    answer(page, "right")
    assert answered(queue) == [*(given * 2)[:-1], "right"]

    page.wait_for_timeout(1000 * SOONEST_SECONDS + 50)
    page.locator(".prefvlm-left").dblclick()  # the second click falls on a pair that nobody has looked at
    until(lambda: len(answered(queue)) == 9, "the first click of a double click is an answer")
    answer(page, "equal")  # the kernel takes clicks in turn, so now it has seen the second one
    until(lambda: len(answered(queue)) >= 10, "the answer after a double click")
    assert answered(queue)[8:] == ["left", "equal"]

    assert "push and close a drawer <script>" in root.inner_text()
    assert page.evaluate("window.hacked") is None
    assert "VLM prefers" not in root.inner_text()
    root.get_by_text("show the VLM's guess").click()
    wait_for(page, "it.innerText.includes('The VLM prefers')")

    page.keyboard.press("Control+s")
    until(lambda: "vnd.jupyter.widget-view" in (tmp_path / "label.ipynb").read_text(), "the notebook is saved")
    page.reload()  # the kernel lives on, and the page finds its widgets again
    page.locator(".prefvlm-labeller canvas").first.wait_for()
    root.click(position={"x": 5, "y": 5})
    answer(page, "skip")
    assert answered(queue)[10:] == ["skip"]

    page.get_by_role("button", name=re.compile("Restart the kernel")).first.click()
    with page.expect_response(re.compile("/restart")):  # the server answers when the kernel has started again
        page.get_by_role("button", name="Confirm Kernel Restart").click()
    run_cell(page)
    wait_for(page, "it.dataset.shown == '1'")
    root.click(position={"x": 5, "y": 5})
    answer(page, "right")
    assert answered(queue) == [*(given * 2)[:-1], "right", "left", "equal", "skip", "right"]  # nothing lost or skipped


def rendered_clips(count: int) -> list[tuple[int, bytes]]:
    """What training would post: pairs of an expert's segment and of one that is mostly noise."""
    task, maker, clips = "drawer-close-v3", ClipMaker(), []
    environment = Environment(task, 60, goal_visible=True)
    for seed in range(count):
        snapshots, scenes = [], []
        for side, noise in enumerate((0.0, 3.0)):
            expert = Expert(task, noise, np.random.default_rng(seed))
            observation, steps = environment.reset(2 * seed + side), []
            for step in range(50):
                observation = environment.step(expert(observation, step))[0]
                steps.append(environment.snapshot())
            snapshots.append(steps[24 + 2 * seed :][:20])
            scenes.append(environment.scene())
        clips.append(maker.make(task, np.array(snapshots), np.array(scenes)))
    return clips


def test_a_page_for_two_hundred_pairs(page: Any, queue: LabelQueue, tmp_path: Path) -> None:
    """Prints how soon the next pair is on screen, and leaves the picture that README shows."""
    clips = rendered_clips(4)
    post(queue, 40, clips=clips)
    run_cell(page)
    root = page.locator(".prefvlm-labeller")
    root.click(position={"x": 5, "y": 5})
    times = [answer(page, "equal") for _ in range(25)]
    assert len(answers_table(queue.database)) == 25  # with the repeats
    print(f"\nnext pair on screen after {np.median(times):.0f} ms (median), {max(times)} ms at most: {times}")
    print(f"clips of {[len(clip) // 1000 for _, clip in clips]} kB")
    scrub_to(page, 19)
    picture = tmp_path / "labeller.png"
    root.screenshot(path=picture)
    print(picture)
    assert picture.stat().st_size < 300_000


def test_scrubbing_shows_the_frame_asked_for_on_both_sides(page: Any, queue: LabelQueue) -> None:
    post(queue, 1)
    run_cell(page)
    scrub_to(page, 9)
    pixels = "c => [...c.getContext('2d').getImageData(0, 230, 480, 1).data]"  # the row through both squares
    rows = [np.array(page.locator("canvas").nth(side).evaluate(pixels)).reshape(480, 4)[:, :3] for side in (0, 1)]
    swapped = page.locator(".prefvlm-labeller img").get_attribute("data-swapped") == "1"
    first, second = rows[::-1] if swapped else rows
    middles = [np.flatnonzero(row[:, 1] < 120).mean() * CLIP_SIZE / 480 for row in (first, second)]
    assert middles == pytest.approx([10 + 24.5, 10 + 9 * 15 + 24.5], abs=2)
    assert first[70, 0] > first[70, 2] and second[360, 2] > second[360, 0]  # red is the first, blue the second
    page.wait_for_timeout(400)  # four frames
    assert page.locator(".prefvlm-labeller input[type=range]").input_value() == "9"  # scrubbing stops the loop


HOSTILE = '"><img src=x onerror="window.hacked = 4"><script>window.hacked = 5</script>'


@pytest.mark.parametrize("column", ["words", "budget", "frames", "vlm_label", "clip"])
def test_nothing_that_the_database_holds_runs_in_the_page(
    page: Any, queue: LabelQueue, tmp_path: Path, column: str
) -> None:
    post(queue, 2)
    words = "text = :hostile, run_id = :hostile, task = :hostile, partition = :hostile"
    with sqlite3.connect(tmp_path / "labels.sqlite") as connection:
        connection.execute(
            f"UPDATE pairs SET {words if column == 'words' else f'{column} = :hostile'}", {"hostile": HOSTILE}
        )
    press_run(page)
    root = page.locator(".prefvlm-labeller")
    said = "<script>window.hacked = 5</script>" if column == "words" else "changed by another program"
    wait_for(page, f"it.innerText.includes({said!r})")
    assert "src=x onerror" in root.inner_text()  # the value is shown, as text
    page.wait_for_timeout(1500)  # a handler would have run by now
    assert page.evaluate("window.hacked") is None
    assert root.locator("img").count() == 1 and root.locator("script").count() == 0
    root.evaluate("it => it.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 6\">')")
    page.wait_for_function("window.hacked === 6")  # it would have been seen
