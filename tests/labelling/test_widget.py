"""The labeller without a browser: what it says when an answer cannot be taken, and that nobody's words become HTML.

Keys, pictures, reloads and restarts are tested in a real browser, test_browser.py.
"""

from pathlib import Path

import pytest
from sqlalchemy import select

from prefvlm_core.labelling import sqlite_file
from prefvlm_core.labelling import widget as widgets
from prefvlm_core.labelling.database import ANSWERS
from prefvlm_core.labelling.queue import LabelQueue, Pair
from prefvlm_core.labelling.widget import Labeller


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelQueue:
    monkeypatch.setattr(widgets, "SOONEST_SECONDS", 0)
    monkeypatch.setattr(sqlite_file, "LOCKED_SECONDS", 0)
    queue = LabelQueue(f"sqlite:///{tmp_path}/<i>labels.sqlite")
    for number in range(3):
        text = "close <script>the drawer</script>"
        queue.post(Pair("run", 1, number, 30, "drawer-close-v3", text, 0, 90, 20, 5, b"clip", truth=1.0))
    return queue


def choices(queue: LabelQueue) -> list[str | None]:
    with queue.transaction(reading=True) as connection:
        return list(connection.execute(select(ANSWERS.c.choice).order_by(ANSWERS.c.pair_id)).scalars())


def words(labeller: Labeller) -> str:
    return str(labeller._task.value + labeller._status.value)


def test_an_answer_that_is_not_stored_leaves_the_pair_on_screen(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    asked = labeller._question
    with queue.transaction():
        labeller.click("left")
        assert "Nothing was stored" in words(labeller) and "locked" in words(labeller)
    assert asked is not None and labeller._question == asked and choices(queue) == [None, None]
    labeller.click("right")
    assert choices(queue)[0] == "right" and "Nothing was stored" not in words(labeller)
    assert labeller._question is not None and labeller._question.pair == 1
    labeller.click("undo")
    assert labeller._question == asked and choices(queue)[0] is None


def test_an_answer_to_a_withdrawn_pair_is_refused_in_words(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    queue.take("run", 1, "withdraw")
    labeller.click("left")
    labeller.click("left")  # the pair that was claimed ahead was withdrawn too
    assert "withdrawn" in words(labeller) and "All answered" in words(labeller)
    assert choices(queue) == [] and labeller._question is None
    labeller.click("undo")
    assert "no answer to take back" in words(labeller)


def test_nobody_s_words_become_html(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann <img src=x>")
    assert "close &lt;script&gt;" in words(labeller)
    with queue.transaction():
        labeller.click("left")  # the database's name is in the message
    assert "&lt;i&gt;labels.sqlite" in words(labeller)
    assert not any(tag in words(labeller) for tag in ("<script", "<img", "<i>"))


def test_the_words_count_answers_and_budget(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    for _ in range(3):
        assert labeller._question is not None
        labeller.click("left" if labeller._question.swapped else "right")  # where the second segment is
    assert "<b>3 of 30</b> labels" in words(labeller) and "100 % agree with the true reward" in words(labeller)
    assert "All answered" in words(labeller)
    labeller.close()
