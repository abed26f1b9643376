"""Two hundred pairs in a real browser: how soon the next one is on screen, and that nothing is lost or doubled.

`pytest -s tests/labelling/test_browser_long.py` prints the numbers.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.jupyter import (
    CHROMIUM,
    PATIENCE,
    JupyterLab,
    answer,
    jupyter_lab,
    labels,
    post,
    run_cell,
    shown,
    until,
    wait_for,
    wait_for_pair,
)

from prefvlm_core.labelling.agreement import answers_table
from prefvlm_core.labelling.clips import ClipMaker
from prefvlm_core.labelling.queue import LabelQueue

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium"),
]
PAIRS = 200
RELOADS = 20
PACE_MS = 500
"""How long the person looks at a pair, beyond the time in which a press counts as a double one."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[JupyterLab]:
    with jupyter_lab(tmp_path) as lab:
        yield lab
        lab.end_kernels()


def open_labeller(chromium: Any, lab: JupyterLab, queue: LabelQueue, person: str) -> Any:
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(lab.write(person, f"from prefvlm_core import Labeller\nLabeller({queue.database.name!r}, {person!r})"))
    run_cell(page)
    wait_for_pair(page)
    return page


def reload(page: Any, lab: JupyterLab) -> None:
    file = lab.folder / re.search(r"(\w+\.ipynb)", page.url)[1]
    before = file.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    until(lambda: file.stat().st_mtime_ns > before, "the notebook is saved")
    page.wait_for_timeout(1000)  # the page learns that it is
    page.reload()
    wait_for_pair(page)


def restart(page: Any) -> None:
    page.get_by_role("button", name=re.compile("Restart the kernel")).first.click()
    with page.expect_response(re.compile("/restart")):
        page.get_by_role("button", name="Confirm Kernel Restart").click()
    wait_for(page, "it.dataset.state === 'lost'")
    run_cell(page)
    wait_for_pair(page)


def rendered_clip() -> tuple[int, bytes]:
    """A clip of the size that training posts: 10 frames, as segments of 50 environment steps have."""
    from prefvlm_core.domains.environment import Environment

    environment, snapshots = Environment("drawer-close-v3", 60), []
    environment.reset(0)
    for _ in range(10):
        environment.step(np.array([0.3, 0.5, -0.3, 0], np.float32))
        snapshots.append(environment.snapshot())
    both = np.array([snapshots, snapshots[::-1]])
    return ClipMaker().make("drawer-close-v3", both, np.array([environment.scene()] * 2))


def test_the_next_of_two_hundred_pairs_is_on_screen_at_once(chromium: Any, lab: JupyterLab, tmp_path: Path) -> None:
    """Prints the times; asserts only what a busy machine cannot spoil."""
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    clip = rendered_clip()
    post(queue, PAIRS + 20, clips=[clip])
    page = open_labeller(chromium, lab, queue, "Ann")
    times = []
    for number in range(PAIRS):
        page.wait_for_timeout(PACE_MS)
        times.append(answer(page, ("left", "right", "equal", "skip")[number % 4]))
    middle, high = np.percentile(times, [50, 95])
    print(f"\nkey -> next pair on screen, {PAIRS} pairs of {len(clip[1]) // 1000} kB: median {middle:.0f} ms,")
    print(
        f"95th percentile {high:.0f} ms, longest {max(times)} ms; load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    )
    assert len(answers_table(queue.database)) == PAIRS


def test_twenty_reloads_restore_the_pair(chromium: Any, lab: JupyterLab, tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, RELOADS + 5)
    page = open_labeller(chromium, lab, queue, "Ann")
    drawn = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some((value) => value > 0)"
    for _ in range(RELOADS):
        reload(page, lab)
        assert [page.locator("canvas").nth(side).evaluate(drawn) for side in (0, 1)] == [True, True]
        answer(page, "left")  # keys work without a click
    pairs = [pair for pair, _ in labels(queue)]
    assert pairs == list(range(len(pairs))) and len(answers_table(queue.database)) == RELOADS  # with the repeats


def test_two_people_reloads_and_a_restart_lose_and_double_nothing(
    chromium: Any, lab: JupyterLab, tmp_path: Path
) -> None:
    queue, generator = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite"), random.Random(0)
    post(queue, PAIRS)
    pages = {name: open_labeller(chromium, lab, queue, name) for name in ("Ann", "Bob")}
    pressed: Counter[str] = Counter()
    for number in range(PAIRS):
        name = generator.choice(sorted(pages))
        page = pages[name]
        if page.locator(".prefvlm-labeller").get_attribute("data-state") != "asking":
            name, page = next((other, pages[other]) for other in pages if other != name)
        answer(page, generator.choice(("left", "right", "equal", "skip")))
        pressed[name] += 1
        if number == PAIRS // 2:
            restart(pages["Ann"])
        elif number % 40 == 20:
            reload(page, lab)
    while any(page.locator(".prefvlm-labeller").get_attribute("data-state") == "asking" for page in pages.values()):
        for name, page in pages.items():  # repeats do not count as labels, so some pairs are left
            if page.locator(".prefvlm-labeller").get_attribute("data-state") == "asking" and shown(page):
                answer(page, "left")
                pressed[name] += 1
    table = answers_table(queue.database)
    assert table["annotator"].value_counts().to_dict() == dict(pressed)
    assert sorted(pair for pair, _ in labels(queue)) == list(range(PAIRS))
    assert queue.unanswered("run", 1) == 0 and len(queue.take("run", 1, "wait") or []) == PAIRS
    print(f"\n{PAIRS} pairs, {dict(pressed)} answers with repeats: each pair has one label")
