"""Label files, and databases that cannot be read or written."""

import json
import resource
from pathlib import Path

import pytest
from builders.queue import pair, post, stored

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling import database as label_database
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.files import export_labels, import_labels
from prefvlm_core.labelling.queue import LabelQueue


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_database, "_LOCKED_SECONDS", 0)
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 1)
    ann = Annotator(queue, "Ann")
    question = ann.claim()
    assert question is not None
    with queue.transaction(), pytest.raises(PrefVLMError, match=r"Nothing was stored.*labels.sqlite.*locked"):
        ann.answer(question, "left", 1)
    assert stored(queue) == []
    ann.answer(question, "left", 1)
    assert stored(queue) == [(0, "Ann", "left")]


def test_a_full_disk_loses_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 1)
    ann = Annotator(queue, "Ann")
    question = ann.claim()
    assert question is not None
    with queue.transaction() as connection:  # SQLite's own limit of pages gives the error of a full disk
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(PrefVLMError, match=r"Nothing was stored.*disk is full"):
        for number in range(1, 100):
            queue.post(pair(number, text="x" * 1000))
    before = len(queue.posted("run", 1))
    with queue.transaction() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    ann.answer(question, "left", 1)
    assert stored(queue) == [(0, "Ann", "left")] and len(queue.posted("run", 1)) == before < 100


def test_an_answer_that_the_disk_refuses_can_be_given_again(tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 1)
    ann = Annotator(queue, "Ann")
    question = ann.claim()
    assert question is not None
    written, (soft, hard) = (tmp_path / "labels.sqlite-wal").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, hard))  # the system lets no file grow beyond this one
    try:
        with pytest.raises(PrefVLMError, match="Nothing was stored"):
            ann.answer(question, "left", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stored(queue) == []
    ann.answer(question, "right", 1)
    assert stored(LabelQueue(queue.database.name)) == [(0, "Ann", "right")]


def test_bad_names_and_addresses_are_named(tmp_path: Path) -> None:
    for url, words in (
        ("labels.sqlite", "is no database URL"),
        ("nosuch://here", "no driver"),
        (f"sqlite:///{tmp_path}/no/such/folder.sqlite", "unable to open database file"),
    ):
        with pytest.raises(PrefVLMError, match=words):
            LabelQueue(url)
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    for name in ("", "  ", "x" * 101):
        with pytest.raises(PrefVLMError, match="1 to 100 characters"):
            Annotator(queue, name)


def test_a_file_holds_all_that_is_known(tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 3)
    queue.post(pair(0, session=2))
    ann = Annotator(queue, "Änn <b>")
    for choice in ("left", "skip"):
        question = ann.claim()
        assert question is not None
        ann.answer(question, choice, 1.5)
    queue.take("run", 1, "withdraw")
    file, again = tmp_path / "labels.jsonl", tmp_path / "again.jsonl"
    assert export_labels(queue.database, file) == 2
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(line["session"], line["pair"], len(line["answers"])) for line in lines] == [
        (1, 0, 1),
        (1, 1, 1),
        (1, 2, 0),
    ]
    known = {
        "task": "door-open-v3",
        "first": 0,
        "second": 500,
        "divergence": 0.25,
        "partition": "uncertain",
        "truth": 0,
    }
    assert lines[0].items() >= known.items() and lines[0]["answers"][0]["annotator"] == "Änn <b>"

    copy = LabelQueue(f"sqlite:///{tmp_path}/copy.sqlite")
    assert import_labels(copy.database, file) == 2
    assert copy.take("run", 1, "wait") == queue.take("run", 1, "wait")
    assert export_labels(copy.database, again) == 2 and again.read_text() == file.read_text()
    assert Annotator(copy, "Änn <b>").undo() is None  # without a clip it could not be asked again
    with pytest.raises(PrefVLMError, match=r"line 1: pair 0 of session 1 of run is in .*copy.sqlite already"):
        import_labels(copy.database, file)


@pytest.mark.parametrize("line", ["no json", "{}", '{"format": 9}', '{"format": 1, "run_id": "x"}'])
def test_a_line_that_is_no_label_is_named(tmp_path: Path, line: str) -> None:
    queue, file = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite"), tmp_path / "bad.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(PrefVLMError, match=r"bad.jsonl, line 1"):
        import_labels(queue.database, file)
    assert queue.posted("run", 1) == {}
