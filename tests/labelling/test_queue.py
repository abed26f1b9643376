"""The label queue with one person and with several, under kills, races and jumping clocks."""

import json
import multiprocessing
import random
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from builders.queue import post, stored
from sqlalchemy import select

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling import queue as labels
from prefvlm_core.labelling.agreement import agreement, agreement_table, progress, status_table
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.database import ANSWERS, PAIRS
from prefvlm_core.labelling.queue import AnswerRejected, ClosedPair, LabelQueue, label_of

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["prefvlm_core.labelling.agreement", "prefvlm_core.labelling.files", "pytest"])
# ---- what an answer means


@pytest.mark.parametrize(
    ("choice", "swapped", "label"),
    [("left", False, 0), ("left", True, 1), ("right", False, 1), ("right", True, 0), ("equal", True, 0.5)],
)
def test_a_choice_is_about_the_side_and_a_label_about_the_segment(choice: str, swapped: bool, label: float) -> None:
    assert label_of(choice, swapped) == label
    assert label_of("skip", swapped) is None
    with pytest.raises(PrefVLMError, match=r"Unknown answer 'lft'. Did you mean 'left'"):
        label_of("lft", swapped)


def test_a_session_from_post_to_take(url: str) -> None:
    queue = LabelQueue(url)
    post(queue, 4)
    post(queue, 4, truth=0.5)  # posted again, as a resumed run does: nothing changes
    ann = Annotator(queue, "Ann")
    for choice in ("left", "right", "equal"):
        question = ann.claim()
        assert question is not None and question.truth == question.pair % 2
        ann.answer(question, choice, 1.5)
    assert queue.unanswered("run", 1) == 1 and queue.take("run", 1, "wait") is None
    last = ann.claim()
    assert last is not None and ann.claim([last]) is None
    ann.answer(last, "skip", 2.5)
    with queue.transaction(reading=True) as connection:
        sides = [bool(row[0]) for row in connection.execute(select(ANSWERS.c.swapped).order_by(ANSWERS.c.pair_id))]
    given = float(sides[0]), float(not sides[1]), 0.5, None
    expected = [ClosedPair(1, number, number, 500 + number, 1.0, 0.25, label) for number, label in enumerate(given)]
    assert queue.take("run", 1, "wait") == expected
    assert queue.take("run", 1, "withdraw") == expected  # a resumed run gets the same
    assert queue.posted("run", 1) == {number: (number, 500 + number) for number in range(4)}
    assert [tuple(row) for row in status_table(queue.database).to_numpy()] == [("run", 1, 3, 1, 0, 0, 1.5)]


def test_undo_takes_the_last_answer_back_until_training_has_it(url: str) -> None:
    queue = LabelQueue(url)
    post(queue, 3)
    ann = Annotator(queue, "Ann")
    assert ann.undo() is None
    first, second = (ann.claim() for _ in range(2))
    assert first is not None and second is not None and first == second  # not held, so claimed once
    ann.answer(first, "left", 1)
    second = ann.claim()
    assert second is not None
    ann.answer(second, "left", 1)
    back = ann.undo()
    assert back is not None and back.pair == 1 and stored(queue) == [(0, "Ann", "left")]
    ann.answer(back, "right", 1)
    assert stored(queue) == [(0, "Ann", "left"), (1, "Ann", "right")]
    assert [taken.pair for taken in queue.take("run", 1, "withdraw") or []] == [0, 1]
    with pytest.raises(AnswerRejected, match="Training has used this answer"):
        ann.undo()


def test_a_withdrawn_pair_takes_no_answer(url: str) -> None:
    queue = LabelQueue(url)
    post(queue, 1)
    ann = Annotator(queue, "Ann")
    question = ann.claim()
    assert question is not None and queue.take("run", 1, "withdraw") == []
    with pytest.raises(AnswerRejected, match="withdrawn"):
        ann.answer(question, "left", 1)
    assert ann.claim() is None and queue.take("run", 1, "withdraw") == []


def test_a_late_answer_goes_to_the_next_session_and_to_no_other(url: str) -> None:
    queue = LabelQueue(url)
    ann = Annotator(queue, "Ann")

    def answer(count: int) -> None:
        for _ in range(count):
            question = ann.claim()
            assert question is not None
            ann.answer(question, "equal", 1)

    def taken(session: int, missing: labels.UnansweredPolicy = "leave") -> list[tuple[int, int]]:
        return [(one.session, one.pair) for one in queue.take("run", session, missing) or []]

    post(queue, 3)
    post(queue, 2, run_id="other")
    answer(1)
    assert taken(1) == [(1, 0)] and queue.left_open("run", 1) == 2
    claimed = ann.claim()
    post(queue, 2, session=2)
    assert taken(2) == [] and queue.left_open("run", 2) == 4
    assert claimed is not None and ann.claim() == claimed  # a session that goes on takes nothing out of anybody's hands
    answer(1)  # after session 2 went on: repeated after a kill, it must find nothing again
    assert (taken(1), taken(2), queue.unanswered("run", 2)) == ([(1, 0)], [], 0)
    post(queue, 1, session=3)
    assert queue.take("run", 3, "wait") is None and queue.unanswered("run", 3) == 4
    answer(3)  # one of session 1, two of the other run
    assert taken(3, "withdraw") == [(1, 1), (1, 2)] and queue.left_open("run", 3) == 0
    assert ann.claim() is None
    assert [taken(session) for session in (1, 2, 3)] == [[(1, 0)], [], [(1, 1), (1, 2)]]
    assert [queue.left_open("run", session) for session in (1, 2, 3)] == [2, 4, 0]
    assert [one.pair for one in queue.take("other", 1, "wait") or []] == [0, 1]


# ---- several people


def test_nobody_gets_a_pair_that_another_has(url: str) -> None:
    queue = LabelQueue(url)
    post(queue, 2)
    ann, ben = Annotator(queue, "Ann"), Annotator(queue, "Ben")
    questions = [ann.claim(), ben.claim()]
    assert [question.pair for question in questions if question] == [0, 1]
    assert Annotator(queue, "Cem").claim() is None
    ben.close()
    given_back = Annotator(queue, "Cem").claim()
    assert given_back is not None and given_back.pair == 1


def test_a_second_window_of_the_same_person_takes_over(url: str) -> None:
    queue = LabelQueue(url)
    post(queue, 2)
    old = Annotator(queue, "Ann")
    question = old.claim()
    new = Annotator(queue, "Ann")  # after a kernel restart, say: no waiting for the old claim to lapse
    again = new.claim()
    assert question is not None and again == question
    with pytest.raises(AnswerRejected, match="went to somebody else"):
        old.answer(question, "left", 1)
    new.answer(question, "right", 1)
    new.answer(question, "right", 1)  # a repeated message counts once
    with pytest.raises(AnswerRejected):
        new.answer(question, "left", 1)
    assert stored(queue) == [(0, "Ann", "right")]


def test_second_opinions_and_repeats_are_counted_apart(url: str) -> None:
    queue = LabelQueue(url)
    post(queue, 12)
    ann = Annotator(queue, "Ann", repeat_every=7)
    purposes = []
    for _ in range(13):
        question = ann.claim()
        assert question is not None
        purposes.append((question.purpose, question.pair))
        right = question.truth != float(question.swapped)  # where the segment of higher true return stands
        right ^= question.purpose == "repeat"  # changes her mind each time
        ann.answer(question, "right" if right else "left", 1)
    assert purposes == [("label", n) for n in range(6)] + [("repeat", 0)] + [("label", n) for n in range(6, 12)]
    ben = Annotator(queue, "Ben", agreement=True)
    for choice in ("left", "skip", "equal"):
        question = ben.claim()
        assert question is not None and question.purpose == "agreement"
        ben.answer(question, choice, 1)
    assert len(stored(queue)) == 12 and {name for _, name, _ in stored(queue)} == {"Ann"}
    table = agreement_table(queue.database).set_index(["first", "second"])
    assert table.loc[("Ann", "true reward"), ["pairs", "percent", "kappa"]].tolist() == [12, 100, 1]
    assert table.loc[("Ann", "Ann (repeats)"), ["pairs", "percent"]].tolist() == [1, 0]
    assert table.loc[("Ann", "VLM"), ["pairs", "percent"]].tolist() == [12, 50]
    assert table.loc[("Ann", "Ben"), "pairs"] == 2
    counts = progress(queue.database, "Ann", "run")
    assert (counts.answered, counts.budget, counts.mine, counts.oracle.percent) == (12, 100, 13, 100)


def test_kappa_by_hand() -> None:
    first, second = [0, 0, 1, 1, 1, 0.5, None, 0], [0, 1, 1, 1, 0, 0.5, 1, float("nan")]
    # 4 of 6 alike; by chance (2·2 + 3·3 + 1·1) / 36 = 14/36
    assert agreement(first, second) == pytest.approx((6, 400 / 6, (24 / 36 - 14 / 36) / (22 / 36)))
    assert agreement([], []).pairs == 0


def _label_all(url: str, name: str, acknowledged: str, together: Barrier) -> None:
    """A labeller process: answers until nothing is left, and notes what was acknowledged once it was."""
    annotator = Annotator(LabelQueue(url), name)
    together.wait()
    with open(acknowledged, "a", buffering=1) as file:
        while (question := annotator.claim()) is not None:
            choice = ("left", "right", "equal", "skip")[question.pair % 4]
            annotator.answer(question, choice, 0.1)
            file.write(f"{question.pair} {choice}\n")
            time.sleep(0.002)  # nobody is faster; without it SQLite's lock can starve one process for the whole test


def acknowledgements(folder: Path) -> list[tuple[int, str]]:
    lines = [line for path in folder.glob("*.ack") for line in path.read_text().splitlines()]
    return [(int(line.split()[0]), line.split()[1]) for line in lines if len(line.split()) == 2]


def test_four_labellers_and_a_thousand_pairs(url: str, tmp_path: Path) -> None:
    queue = LabelQueue(url)
    post(queue, 1000)
    together = PROCESSES.Barrier(4)
    arguments = [(url, f"person {index}", f"{tmp_path}/{index}.ack", together) for index in range(4)]
    people = [PROCESSES.Process(target=_label_all, args=one) for one in arguments]
    for process in people:
        process.start()
    for process in people:
        process.join(300)
        assert process.exitcode == 0
    expected = [(number, ("left", "right", "equal", "skip")[number % 4]) for number in range(1000)]
    assert sorted(acknowledgements(tmp_path)) == expected  # each exactly once
    assert [(number, choice) for number, _, choice in stored(queue)] == expected
    assert len({name for _, name, _ in stored(queue)}) == 4


# ---- kills

PAIRS_EACH = 20  # pairs of a session


def _train(url: str, sessions: int, taken: str, started: Any) -> None:
    """A trainer without the training: posts its sessions, waits for each, and notes what it took."""
    queue = LabelQueue(url)
    started.set()
    for session in range(1, sessions + 1):
        post(queue, PAIRS_EACH, session=session)
        while (answers := queue.take("run", session, "wait")) is None:
            time.sleep(0.005)
        with open(taken, "a") as file:
            file.write(json.dumps([session, [one.label for one in answers]]) + "\n")


def _label_while_asked(url: str, name: str, acknowledged: str, started: Any) -> None:
    annotator = Annotator(LabelQueue(url), name)
    started.set()
    with open(acknowledged, "a", buffering=1) as file:
        while True:
            if (question := annotator.claim()) is None:
                time.sleep(0.005)
                continue
            choice = ("left", "right", "equal", "skip")[question.pair % 4]
            annotator.answer(question, choice, 0.1)
            file.write(f"{question.session} {question.pair} {label_of(choice, question.swapped)}\n")
            time.sleep(0.1)  # so slowly that all kills fall between answers


def test_kills_lose_and_double_nothing(url: str, tmp_path: Path) -> None:
    """A trainer and four labellers are killed at random moments, and started again; in the end nobody can tell."""
    sessions, kills = (50, 60) if url.startswith("sqlite") else (20, 30)
    queue, notes, moments = LabelQueue(url), tmp_path / "taken", random.Random(3)
    jobs: list[tuple[Any, tuple[Any, ...]]] = [(_train, (url, sessions, str(notes)))]
    jobs += [(_label_while_asked, (url, f"person {n}", f"{tmp_path}/{n}.ack")) for n in range(4)]
    running: dict[int, Any] = {}

    def start(job: int) -> None:
        started = PROCESSES.Event()
        running[job] = PROCESSES.Process(target=jobs[job][0], args=(*jobs[job][1], started))
        running[job].start()
        assert started.wait(60)

    def kill(job: int) -> None:
        running[job].kill()
        running[job].join()

    for job in range(len(jobs)):
        start(job)
    for number in range(kills):
        while len(stored(queue)) < number * sessions * PAIRS_EACH // kills:  # the kills are spread over all answers
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.02))
        kill(number % len(jobs))
        start(number % len(jobs))
    running[0].join(300)  # the trainer gets through in the end
    for job in range(1, len(jobs)):
        kill(job)

    expected = [n for _ in range(sessions) for n in range(PAIRS_EACH)]
    assert [number for number, _, _ in stored(queue)] == expected  # none doubled
    query = select(PAIRS.c.session, PAIRS.c.pair, ANSWERS.c.label).join(ANSWERS)
    with queue.transaction(reading=True) as connection:
        labels_now = {(row.session, row.pair): row.label for row in connection.execute(query)}
    lines = [line.split() for path in tmp_path.glob("*.ack") for line in path.read_text().splitlines()]
    noted = {(int(session), int(number)): label for session, number, label in lines}
    assert len(lines) == len(noted) >= len(expected) - kills  # one note per kill may be missing, none is twice
    assert all(str(labels_now[key]) == label for key, label in noted.items())  # none lost, none changed
    for session, values in map(json.loads, notes.read_text().splitlines()):
        assert values == [labels_now[session, number] for number in range(PAIRS_EACH)]  # every time it was taken


# ---- clocks


def test_a_forgotten_claim_lapses_and_clock_jumps_do_no_harm(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, now = LabelQueue(url), [1e9]
    monkeypatch.setattr(labels.time, "time", lambda: now[0])
    post(queue, 3)
    ann, ben = Annotator(queue, "Ann"), Annotator(queue, "Ben")
    first = ann.claim()
    now[0] += labels.LEASE_SECONDS - 1
    second = ben.claim()
    assert first is not None and second is not None and (first.pair, second.pair) == (0, 1)
    ann.answer(first, "left", 600)  # late, but nobody wanted it
    third = ann.claim()
    now[0] += 1e6  # the clock jumps: every claim looks forgotten
    taken_over = ben.claim([second])
    assert third is not None and taken_over is not None and taken_over.pair == third.pair == 2
    with pytest.raises(AnswerRejected):
        ann.answer(third, "left", 1)
    ben.answer(taken_over, "right", 1)
    now[0] -= 2e6  # and back, before everything
    ben.answer(second, "equal", 1)
    undone = ben.undo()
    assert undone is not None and undone.pair == 1  # the last one by count, though not by clock
    assert stored(queue) == [(0, "Ann", "left"), (2, "Ben", "right")]
