"""The labeller without a browser: what it tells the browser, and what it does with what the browser says.

Keys, pictures, reloads and restarts are tested in a real browser, test_browser.py.
"""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling import address, sqlite_file
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.database import ANSWERS, TRAINERS
from prefvlm_core.labelling.queue import LabelQueue, Pair
from prefvlm_core.labelling.widget import Labeller


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelQueue:
    monkeypatch.setattr(sqlite_file, "LOCKED_SECONDS", 0)
    (tmp_path / "results").mkdir()
    queue = LabelQueue(f"sqlite:///{tmp_path}/results/labels.sqlite")
    for number in range(3):
        truth, guess = float(number != 1), float(number != 2)
        clip = b"clip %d" % number
        queue.post(Pair("run", 1, number, 3, "drawer-close-v3", "close", 0, 90, 20, 5, clip, guess, truth=truth))
    return queue


def choices(queue: LabelQueue) -> list[str | None]:
    with queue.transaction(reading=True) as connection:
        return list(connection.execute(select(ANSWERS.c.choice).order_by(ANSWERS.c.pair_id)).scalars())


def on_screen(labeller: Labeller) -> dict[str, Any]:
    """What the browser has of the pair that it is to show; empty for none."""
    place = labeller.on_screen["place"]
    return dict(getattr(labeller, place)) if place else {}


def answer(labeller: Labeller, choice: str, seconds: float = 1.5) -> None:
    labeller.receive({"do": "answer", "id": on_screen(labeller)["id"], "choice": choice, "seconds": seconds})


def everything_sent(labeller: Labeller) -> str:
    """All that a browser could know: the state of the widget."""
    return repr({key: value for key, value in labeller.get_state().items() if not key.startswith("_")})


def test_the_next_clip_is_sent_while_its_predecessor_is_on_screen(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    assert (on_screen(labeller)["clip"], labeller.clip_b["clip"]) == (b"clip 0", b"clip 1")
    ahead = labeller.clip_b
    answer(labeller, "left")
    assert on_screen(labeller) is not None and labeller.on_screen["place"] == "clip_b" and labeller.clip_b is ahead
    assert labeller.clip_a["clip"] == b"clip 2" and choices(queue) == ["left", None, None]


def test_a_second_press_for_the_same_pair_and_unknown_messages_are_ignored(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    first = on_screen(labeller)["id"]
    for _ in range(2):
        labeller.receive({"do": "answer", "id": first, "choice": "left", "seconds": 1})
    labeller.receive({"do": "nothing"})
    assert choices(queue) == ["left", None, None]


def test_an_answer_that_is_not_stored_leaves_the_pair_on_screen(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    asked, turn = on_screen(labeller), labeller.on_screen["turn"]
    with queue.transaction():
        answer(labeller, "left")
        assert "Nothing was stored" in labeller.words["problem"] and "locked" in labeller.words["problem"]
    assert on_screen(labeller) == asked and labeller.on_screen["turn"] > turn and choices(queue) == [None, None]
    answer(labeller, "right")
    assert choices(queue)[0] == "right" and not labeller.words["problem"] and "right" in labeller.words["said"]
    assert on_screen(labeller)["clip"] == b"clip 1"
    labeller.receive({"do": "undo"})
    assert on_screen(labeller) == asked and choices(queue)[0] is None


@pytest.mark.parametrize(("choice", "seconds"), [("lft", 1.0), ("left", -1.0), ("left", float("nan"))])
def test_nonsense_from_the_browser_is_refused_in_words(queue: LabelQueue, choice: str, seconds: float) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    answer(labeller, choice, seconds)
    assert labeller.words["problem"] and choices(queue) == [None, None]


def test_an_answer_to_a_withdrawn_pair_is_refused_in_words(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    queue.take("run", 1, "withdraw")
    answer(labeller, "left")
    answer(labeller, "left")  # the pair that was claimed ahead was withdrawn too
    assert "withdrawn" in labeller.words["problem"] and choices(queue) == [] and on_screen(labeller) == {}
    labeller.receive({"do": "undo"})
    assert "no answer to take back" in labeller.words["problem"]


def test_an_answer_can_be_revisited_until_training_has_it(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    for choice in ("left", "right"):
        answer(labeller, choice)
    assert [(one["number"], one["choice"], one["final"]) for one in labeller.recent] == [
        (2, "right", False),
        (1, "left", False),
    ]
    labeller.receive({"do": "revisit", "id": labeller.recent[1]["id"]})
    assert on_screen(labeller)["clip"] == b"clip 0" and choices(queue) == [None, "right", None]
    answer(labeller, "equal")
    assert on_screen(labeller)["clip"] == b"clip 2"  # the one that was on screen before
    answer(labeller, "skip")
    assert choices(queue) == ["equal", "right", "skip"]
    queue.take("run", 1, "wait")
    labeller.receive({"do": "revisit", "id": labeller.recent[0]["id"]})
    assert "Training has used this answer" in labeller.words["problem"] and choices(queue)[2] == "skip"


def test_nothing_tells_how_right_an_answer_is_before_training_has_the_last_one(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann", repeat_every=0)
    for _ in range(3):
        assert not any(word in everything_sent(labeller) for word in ("agree", "%", "VLM", "truth", "vlm"))
        answer(labeller, "left" if on_screen(labeller)["swapped"] else "right")  # where the second segment is
    assert labeller.words["counts"].startswith("3 of 3 labels · yours: 3") and labeller.summary == []
    queue.take("run", 1, "wait")
    labeller._describe()
    assert labeller.words["state"] == "Done: 3 of 3 labels are given. Thank you!"
    assert ("The true reward agrees", "on 67 % of 3 pairs") in labeller.summary


def saw_guess(queue: LabelQueue) -> list[int]:
    with queue.transaction(reading=True) as connection:
        return list(connection.execute(select(ANSWERS.c.saw_guess).order_by(ANSWERS.c.pair_id)).scalars())


def test_the_guess_is_shown_only_if_asked_for_and_noted_with_the_answer(queue: LabelQueue) -> None:
    labeller = Labeller(queue.database.name, "Ann")
    answer(labeller, "left")
    labeller = Labeller(queue.database.name, "Ann", show_guess=True)
    side = "left" if on_screen(labeller)["swapped"] else "right"
    assert labeller.words["guess"] == f"The VLM prefers the {side} one."
    answer(labeller, "left")
    side = "right" if on_screen(labeller)["swapped"] else "left"
    assert labeller.words["guess"] == f"The VLM prefers the {side} one."  # its label is 0
    assert saw_guess(queue) == [0, 1, 0]
    labeller.receive({"do": "undo"})
    assert saw_guess(queue) == [0, 0, 0]


def test_a_cell_that_runs_again_takes_over(queue: LabelQueue) -> None:
    earlier = Labeller(queue.database.name, "Ann")
    shown = on_screen(earlier)
    later = Labeller(queue.database.name, "Ann")
    assert on_screen(later)["id"] == shown["id"] and "another cell" in earlier.words["state"]
    earlier.receive({"do": "answer", "id": shown["id"], "choice": "left", "seconds": 1})
    assert on_screen(earlier) == {} and choices(queue) == [None, None]
    later.close()
    assert choices(queue) == []


def test_states_in_words(queue: LabelQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = Annotator(queue, "Bob")
    held = [bob.claim()]
    while (question := bob.claim([one for one in held if one])) is not None:
        held.append(question)
    labeller = Labeller(queue.database.name, "Ann")
    assert labeller.words["state"] == "3 pairs wait, but others are answering them."
    for question in held:
        assert question is not None
        bob.answer(question, "left", 1)
    labeller._next()
    assert labeller.words["state"] == "No pair waits. The next ones appear here by themselves."

    def tell(run_id: str, seen_at: float, next_at: float | None, over: int = 0) -> str:
        monkeypatch.setattr("prefvlm_core.labelling.standing.time.time", lambda: 1000.0)
        known = {"run_id": run_id, "budget": 10, "seen_at": seen_at, "next_at": next_at, "over": over}
        with queue.transaction() as connection:
            connection.execute(TRAINERS.delete())
            connection.execute(TRAINERS.insert().values(**known))
        labeller._describe()
        return str(labeller.words["state"])

    by_themselves = "They appear here by themselves."
    assert tell("new", 990, 1042) == f"Exploring; the next pairs come in about 40 s. {by_themselves}"
    assert tell("run", 990, 1200) == f"Learning from the answers; the next pairs come in about 3 min. {by_themselves}"
    assert tell("run", 990, None) == "Learning from the answers. The next pairs appear here."
    assert tell("run", 700, 800).startswith("No trainer for 5 min. Every answer is stored")
    assert labeller.words["counts"] == "3 of 10 labels"
    queue.take("run", 1, "wait")
    assert tell("run", 700, None, over=1) == "Done: 3 of 10 labels are given. Thank you!"


def test_without_arguments_it_finds_the_queue_of_the_project(
    queue: LabelQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    labeller = Labeller()
    answer(labeller, "left")
    assert choices(queue)[0] == "left" and labeller._annotator.name == "me"
    (tmp_path / "results" / "labels.sqlite").rename(tmp_path / "labels.sqlite")
    monkeypatch.setattr(address, "__file__", str(tmp_path / "a" / "b" / "address.py"))
    with pytest.raises(PrefVLMError, match=r"no label queue results/labels.sqlite in .*/notebooks, above it"):
        Labeller()
