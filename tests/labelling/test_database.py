"""The database of the queue: what is stored is what others find, and nothing else is believed."""

import os
import re
import resource
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from builders.queue import pair, post, stored

from prefvlm_core.cli import main
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution
from prefvlm_core.labelling import pair_view, sqlite_file
from prefvlm_core.labelling.agreement import agreement_table, progress, status_table
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.database import ANSWERS, PAIRS, TRAINERS, Database
from prefvlm_core.labelling.files import add_labels, export_labels, read_labels
from prefvlm_core.labelling.queue import LabelQueue, Question
from prefvlm_core.labelling.teacher import open_queue, queue_url
from prefvlm_core.labelling.widget import Labeller


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "LOCKED_SECONDS", 0)
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
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # less than the log needs for one page
    try:
        with pytest.raises(PrefVLMError, match="Nothing was stored"):
            ann.answer(question, "left", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stored(queue) == []
    ann.answer(question, "right", 1)
    assert stored(LabelQueue(queue.database.name)) == [(0, "Ann", "right")]


# ---- a file that is moved while it is open


def answered_once(folder: Path) -> tuple[LabelQueue, Annotator, Question]:
    """A queue with three pairs, the first of which is answered and the second claimed."""
    queue = LabelQueue(f"sqlite:///{folder}/labels.sqlite")
    post(queue, 3)
    ann = Annotator(queue, "Ann")
    first = ann.claim()
    assert first is not None
    ann.answer(first, "left", 1)
    question = ann.claim()
    assert question is not None
    return queue, ann, question


def replaced_by_another(folder: Path) -> None:
    other = LabelQueue(f"sqlite:///{folder}/other.sqlite")
    other.database._engine.dispose()
    os.replace(folder / "other.sqlite", folder / "labels.sqlite")


def restored_from_a_copy(folder: Path) -> None:
    for file in list(folder.glob("labels.sqlite*")):
        shutil.copy(file, folder / "copy")
        os.replace(folder / "copy", file)


HARM: list[Callable[[Path], object]] = [
    lambda folder: [file.unlink() for file in folder.glob("labels.sqlite*")],
    lambda folder: (folder / "labels.sqlite").unlink(),
    lambda folder: (folder / "labels.sqlite-wal").unlink(),
    lambda folder: (folder / "labels.sqlite-shm").unlink(),
    lambda folder: (folder / "labels.sqlite").rename(folder / "moved.sqlite"),
    lambda folder: folder.rename(folder.with_name("moved")),
    lambda folder: shutil.rmtree(folder),
    lambda folder: (folder / "labels.sqlite").write_bytes(b""),
    replaced_by_another,
    restored_from_a_copy,
]


def written_over(content: Callable[[Path], bytes]) -> Callable[[Path], object]:
    """Put other content into the file itself, as `cp` does: it stays the same file for whoever has it open."""

    def harm(folder: Path) -> None:
        with open(folder / "labels.sqlite", "r+b") as file:
            new = content(folder)
            file.truncate(0)
            file.write(new)

    return harm


def another(folder: Path) -> bytes:
    """The file of another queue, which looks the same to its last answer."""
    (folder.parent / "another").mkdir()
    other, _, _ = answered_once(folder.parent / "another")
    other.database._engine.dispose()
    return (folder.parent / "another" / "labels.sqlite").read_bytes()


def of_an_earlier_release(folder: Path) -> bytes:
    content = bytearray(another(folder))
    content[60:64] = content[68:72] = bytes(4)  # the two numbers that are new
    return bytes(content)


def itself(folder: Path) -> bytes:
    return (folder / "labels.sqlite").read_bytes()


HARM += [
    written_over(another),
    written_over(of_an_earlier_release),
    written_over(lambda folder: b"no database, but a text\n" * 2000),
    written_over(lambda folder: bytes(len(itself(folder)))),
    written_over(lambda folder: itself(folder)[:16]),
    written_over(lambda folder: bytes(100) + itself(folder)[100:]),
]


@pytest.mark.parametrize("harm", HARM)
def test_no_answer_is_acknowledged_once_the_file_is_another(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    queue, ann, question = answered_once(folder)
    harm(folder)
    before = sorted(tmp_path.rglob("*"))
    for act in (
        lambda: ann.answer(question, "left", 1),
        ann.claim,
        ann.undo,
        lambda: queue.post(pair(7)),
        lambda: queue.take("run", 1, "withdraw"),
        lambda: queue.unanswered("run", 1),  # what training waits for: it would wait for ever
        lambda: Annotator(queue, "Ben"),
    ):
        with pytest.raises(PrefVLMError, match=r"Nothing was stored: the file of the label queue .* was moved"):
            act()
    assert sorted(tmp_path.rglob("*")) == before  # no empty database in its place


def test_an_older_copy_put_into_the_file_is_noticed(tmp_path: Path) -> None:
    """It is the same queue, but lacks an answer: after the one that is given now, nobody would know."""
    _, ann, question = answered_once(tmp_path)
    older = itself(tmp_path)
    ann.answer(question, "left", 1)
    question = ann.claim()
    written_over(lambda folder: older)(tmp_path)
    with pytest.raises(PrefVLMError, match="was moved, deleted or replaced"):
        ann.answer(question, "left", 1)
    again = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")  # who opens it anew takes it as it is
    ann = Annotator(again, "Ann")
    ann.answer(ann.claim(), "right", 1)
    assert stored(again) == [(0, "Ann", "left"), (1, "Ann", "right")]


@pytest.mark.parametrize("content", [another, lambda folder: b"x" * 50_000], ids=["another", "text"])
def test_content_that_changes_between_question_and_commit_is_noticed(tmp_path: Path, content: Any) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    queue, _, _ = answered_once(folder)
    with pytest.raises(PrefVLMError, match="was moved"), queue.transaction() as connection:
        connection.execute(PAIRS.update().values(budget=5))
        written_over(content)(folder)


def found_by_others(folder: Path, copy: Path) -> list[tuple[int, str, str]]:
    """The answers that whoever opens the file alone finds, as after a crash that took the log."""
    shutil.copy(folder / "labels.sqlite", copy / "labels.sqlite")
    return stored(LabelQueue(f"sqlite:///{copy}/labels.sqlite", create=False))


@pytest.mark.parametrize("seed", range(12))
def test_an_answer_that_was_acknowledged_is_in_the_file(tmp_path: Path, seed: int) -> None:
    """Bytes written over, a file cut off, a log written over or emptied: it is refused, or others find the answer."""
    generator = np.random.default_rng(seed)
    for trial in range(6):
        folder, copy = tmp_path / f"{trial}", tmp_path / f"copy-{trial}"
        folder.mkdir(), copy.mkdir()
        _, ann, question = answered_once(folder)
        with open(folder / ("labels.sqlite" + ("", "", "-wal")[trial % 3]), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(start := int(generator.integers(size)))
            if trial < 3:
                file.truncate(start)
            else:
                file.write(generator.bytes(int(generator.integers(1, 20_000))))
        try:
            ann.answer(question, "right", 1)
        except PrefVLMError:
            continue
        assert (1, "Ann", "right") in found_by_others(folder, copy)


def test_a_queue_of_an_earlier_release_gets_its_identity(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "labels.sqlite").write_bytes(of_an_earlier_release(tmp_path / "new"))
    url = f"sqlite:///{tmp_path}/old/labels.sqlite"
    reader = LabelQueue(url, create=False)
    assert stored(reader) == [(0, "Ann", "left")] and itself(tmp_path / "old")[68:72] == bytes(4)  # nothing was written
    writer = LabelQueue(url)
    assert itself(tmp_path / "old")[68:72] != bytes(4)
    ann = Annotator(reader, "Ann")  # opened before, and goes on
    ann.answer(ann.claim(), "right", 1)
    assert stored(writer) == stored(reader) == [(0, "Ann", "left"), (1, "Ann", "right")]
    os.makedirs(tmp_path / "x")
    written_over(lambda folder: another(tmp_path / "x" / "y"))(tmp_path / "old")
    with pytest.raises(PrefVLMError, match="was moved, deleted or replaced"):
        ann.undo()


def test_polling_writes_nothing(tmp_path: Path) -> None:
    queue, ann, _ = answered_once(tmp_path)
    held: list[Question] = []
    while question := ann.claim(held):
        held.append(question)
    before = itself(tmp_path)
    for _ in range(3):
        assert ann.claim(held) is None and queue.unanswered("run", 1) == 2
    assert itself(tmp_path) == before


def test_a_file_that_is_moved_between_question_and_commit_is_noticed(tmp_path: Path) -> None:
    queue, _, _ = answered_once(tmp_path)
    with pytest.raises(PrefVLMError, match="was moved"), queue.transaction() as connection:
        connection.execute(PAIRS.update().values(budget=5))
        (tmp_path / "labels.sqlite").rename(tmp_path / "moved.sqlite")
    (tmp_path / "moved.sqlite").rename(tmp_path / "labels.sqlite")
    with queue.transaction(reading=True) as connection:
        assert set(connection.execute(PAIRS.select()).scalars()) and connection.scalar(PAIRS.select()) is not None
        assert {row.budget for row in connection.execute(PAIRS.select())} == {100}


def test_a_file_that_is_put_back_goes_on(tmp_path: Path) -> None:
    _, ann, question = answered_once(tmp_path)
    away = tmp_path / "away"
    away.mkdir()
    files = list(tmp_path.glob("labels.sqlite*"))
    for file in files:
        file.rename(away / file.name)
    with pytest.raises(PrefVLMError, match="put it back"):
        ann.answer(question, "left", 1)
    for file in files:
        (away / file.name).rename(file)
    ann.answer(question, "right", 1)
    assert stored(LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")) == [(0, "Ann", "left"), (1, "Ann", "right")]


def test_a_queue_is_not_left_behind_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    queue = LabelQueue("sqlite:///labels.sqlite")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    queue.database._engine.dispose()  # the next connection is a new one
    post(queue, 1)
    assert list(LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite").posted("run", 1)) == [0]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_an_export_does_not_replace_the_queue(tmp_path: Path, suffix: str) -> None:
    queue, _, _ = answered_once(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / f"labels.sqlite{suffix}")
    for path in (tmp_path / f"labels.sqlite{suffix}", tmp_path / "link"):
        with pytest.raises(PrefVLMError, match="is the label queue itself"):
            export_labels(queue.database, path)
    assert stored(LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")) == [(0, "Ann", "left")]


# ---- readers


@pytest.mark.parametrize("action", ["status", "agreement", "export"])
@pytest.mark.parametrize("results", ["missing", "file", "/proc/x"])
def test_who_only_reads_creates_nothing(
    tmp_path: Path, action: str, results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["labels", action, "--results", str(tmp_path / results), "--file", str(tmp_path / "out")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    where = f"--results is '{tmp_path / 'file'}'" if results == "file" else "There is no label queue sqlite:///"
    assert said.startswith(f"prefvlm: {where}") and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_labeller_waits_for_no_queue_that_a_typing_error_made(tmp_path: Path) -> None:
    with pytest.raises(PrefVLMError, match="There is no label queue"):
        Labeller(f"sqlite:///{tmp_path}/lables.sqlite", "Ann")
    assert not list(tmp_path.iterdir())


def test_an_empty_file_is_no_queue_for_a_reader_and_stays_empty(tmp_path: Path) -> None:
    file = tmp_path / "labels.sqlite"
    file.touch()
    with pytest.raises(PrefVLMError, match="holds no label queue"):
        Database(f"sqlite:///{file}", create=False)
    assert file.stat().st_size == 0


@pytest.mark.parametrize("name", ["it's ü 人", "a?b", "50%", "a#b;c", "%20", '"quoted"', os.fsdecode(b"latin\xe9")])
def test_a_results_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    execution = Execution(str(tmp_path / name / "results"))
    queue = open_queue(execution)
    assert (tmp_path / name / "results" / "labels.sqlite").stat().st_size > 0
    post(queue, 1)
    assert list(LabelQueue(queue_url(execution), create=False).posted("run", 1)) == [0]
    queue.database.name.encode()  # it can be printed


@pytest.mark.parametrize("results", ["file", "file/below", "/proc/x"])
def test_a_queue_that_cannot_be_created_is_named(tmp_path: Path, results: str) -> None:
    (tmp_path / "file").write_text("")
    wrong = "Cannot write to the results folder" if results == "/proc/x" else "file is a file, not a folder"
    with pytest.raises(PrefVLMError, match=wrong):
        open_queue(Execution(str(tmp_path / results)))
    with pytest.raises(
        PrefVLMError, match=r"Cannot create the label queue sqlite:.*: (Not a|No such file or) directory"
    ):
        LabelQueue(f"sqlite:///{tmp_path / results}/labels.sqlite")


# ---- what another program has written


def test_tables_of_another_program_are_named(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "labels.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE pairs (id INTEGER PRIMARY KEY, run_id TEXT)")
    for create in (True, False):
        with pytest.raises(PrefVLMError, match=r"table 'pairs' in sqlite:.* belongs to another program"):
            Database(f"sqlite:///{tmp_path}/labels.sqlite", create)


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.sqlite").write_bytes(content)
    for create in (True, False):
        with pytest.raises(PrefVLMError, match=r"labels.sqlite failed \(.*(not a database|malformed)"):
            Database(f"sqlite:///{tmp_path}/labels.sqlite", create)


HOSTILE = '"><img src=x onerror=alert(1)>'
NUMBERS = ("budget", "frames", "first", "truth", "vlm_label", "posted_at", "session")
WRONG_TYPES = [(column, value) for column in NUMBERS for value in (HOSTILE, b"\x80bytes", 9e999)]
WRONG_TYPES += [("clip", HOSTILE), ("clip", 2**40), ("text", b"bytes"), ("run_id", b"bytes")]


@pytest.mark.parametrize(("column", "value"), WRONG_TYPES)
def test_a_value_of_another_type_is_refused_wherever_it_is_read(tmp_path: Path, column: str, value: Any) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 2)
    with closing(sqlite3.connect(tmp_path / "labels.sqlite")) as connection, connection:
        connection.execute(f"UPDATE pairs SET {column} = ?", (value,))
    refused = 0
    for read in (
        lambda: Annotator(queue, "Ann").claim(),
        lambda: progress(queue.database, "Ann", "run"),
        lambda: status_table(queue.database),
        lambda: queue.posted("run", 1),
        lambda: queue.take("run", 1, "withdraw"),
        lambda: agreement_table(queue.database),
        lambda: export_labels(queue.database, tmp_path / "out"),
    ):
        try:
            read()
        except PrefVLMError as error:
            refused += "changed by another program" in str(error) or "no calendar" in str(error)
    assert refused
    labeller = Labeller(f"sqlite:///{tmp_path}/labels.sqlite", "Ann")
    assert all(isinstance(words, str | int) for words in labeller.words.values())
    for sent in filter(None, (labeller.clip_a, labeller.clip_b)):
        assert [type(sent[name]) for name in ("id", "frames", "swapped", "clip")] == [int, int, bool, bytes]


def test_whatever_words_the_database_holds_become_text(tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 1)
    for table, column in ((PAIRS, "text"), (PAIRS, "run_id"), (PAIRS, "task"), (PAIRS, "partition")):
        with queue.transaction() as connection:
            connection.execute(table.update().values({column: HOSTILE}))
    labeller = Labeller(f"sqlite:///{tmp_path}/labels.sqlite", HOSTILE)
    assert labeller.words["task"] == HOSTILE  # what the browser writes as text
    script = Path(pair_view.__file__).with_suffix(".js").read_text()
    assert "textContent" in script and not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write", script)


def test_no_words_that_the_database_holds_steer_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue, _, _ = answered_once(tmp_path)
    with queue.transaction() as connection:
        connection.execute(ANSWERS.update().values(annotator="Zoë\x1b[2J\n\0"))
        connection.execute(PAIRS.update().values(run_id="run\x1b]0;title\x07"))
    for action, words in (("agreement", r"Zoë\x1b[2J\n\x00"), ("status", r"run\x1b]0;title\x07")):
        with pytest.raises(SystemExit) as ended:
            main(["labels", action, "--results", str(tmp_path)])
        said = capsys.readouterr().out
        assert ended.value.code == 0 and words in said and said.replace("\n", "").isprintable()


# ---- what is refused at the door


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1])
def test_seconds_must_be_a_duration(tmp_path: Path, seconds: float) -> None:
    queue, ann, question = answered_once(tmp_path)
    with pytest.raises(PrefVLMError, match="seconds must be a finite number of at least 0"):
        ann.answer(question, "left", seconds)
    assert stored(queue) == [(0, "Ann", "left")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *[(name, "1 to 100 characters") for name in ("", "  ", "x" * 101, "\u2028")],
        *[(name, "control characters") for name in ("a\nb", "a\x1b[31m", "a\0", "a\x7fb", "a\x85b")],
        ("a\ud800", "surrogate"),
        ("a\u2028b", "line breaks"),
    ],
)
def test_a_name_that_no_terminal_or_database_should_get_is_refused(tmp_path: Path, name: str, words: str) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    with pytest.raises(PrefVLMError, match=words) as error:
        Annotator(queue, name + "b" if words != "1 to 100 characters" else name)
    assert str(error.value).isprintable()
    for name in (None, 5, b"Ann"):  # type: ignore[assignment]
        with pytest.raises(PrefVLMError, match="name is a text, not of type"):
            Annotator(queue, name)
    with pytest.raises(PrefVLMError, match="repeat_every must be at least 0, got -1"):
        Annotator(queue, "Ann", repeat_every=-1)


def test_what_no_database_can_hold_is_refused_in_a_sentence(tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    for bad in ({"run_id": "a\ud800"}, {"session": 2**70}):
        with pytest.raises(PrefVLMError, match="Nothing was stored"):
            queue.post(pair(0, **bad))
    with pytest.raises(PrefVLMError, match="Nothing was stored"):
        status_table(queue.database, "a\ud800")
    with queue.transaction(reading=True) as connection:
        assert connection.execute(PAIRS.select()).all() == connection.execute(ANSWERS.select()).all() == []


# ---- PostgreSQL


def test_a_server_holds_the_same_labels(postgres: str, url: str, tmp_path: Path) -> None:
    """What one kind of database exports, the other imports, with the names of people in any script."""
    queue = LabelQueue(url)
    post(queue, 3, text="ouvrir « la porte » 🚪")
    for number, name in enumerate(("José", "人", "נועה\u200d👩‍🔬")):
        person = Annotator(queue, name)
        question = person.claim()
        assert question is not None and question.pair == number
        person.answer(question, "left", 0.1 + 0.2)
    export_labels(queue.database, tmp_path / "labels.jsonl")
    copied = LabelQueue(f"sqlite:///{tmp_path}/copy.sqlite")
    assert add_labels(copied.database, read_labels(tmp_path / "labels.jsonl")) == 3
    assert stored(copied) == stored(queue) == [(0, "José", "left"), (1, "人", "left"), (2, "נועה\u200d👩‍🔬", "left")]
    with pytest.raises(PrefVLMError, match=r"line 1: pair 0 of session 1 of run is in .* already"):
        add_labels(queue.database, read_labels(tmp_path / "labels.jsonl"))


def test_tables_of_another_program_on_a_server_are_named(postgres: str) -> None:
    administrator = Database(postgres)
    with administrator._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE other"))
    url = postgres.replace("/postgres?", "/other?")
    with pytest.raises(PrefVLMError, match="holds no label queue"):
        Database(url, create=False)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE pairs (id integer PRIMARY KEY, name text)"))
    for create in (True, False):
        with pytest.raises(PrefVLMError, match=r"table 'pairs' in .* belongs to another program"):
            Database(url, create)
    assert sqlalchemy.inspect(engine).get_table_names() == ["pairs"]
    engine.dispose()


@pytest.mark.parametrize("bad", [{"run_id": "a\0b"}, {"run_id": "a\ud800"}, {"session": 2**40}, {"truth": "yes"}])
def test_what_a_server_refuses_is_said_in_a_sentence(postgres: str, bad: dict[str, Any]) -> None:
    with pytest.raises(PrefVLMError, match="Nothing was stored") as error:
        LabelQueue(postgres).post(pair(0, **bad))
    assert "\n" not in str(error.value)


def test_a_file_that_looks_malformed_for_a_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does to whoever looks while another process moves its log into the file."""
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    failures = []

    def connect(*arguments: Any, connect=sqlite3.connect, **options: Any) -> sqlite3.Connection:
        if "immutable" in arguments[0] and len(failures) < 3:
            failures.append(arguments[0])
            raise sqlite3.DatabaseError("database disk image is malformed")
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite_file.sqlite3, "connect", connect)
    post(queue, 2)
    assert len(failures) == 3 and len(stored(queue)) == 0
    with queue.database.transaction(reading=True) as connection:
        assert len(connection.execute(sqlalchemy.select(PAIRS)).fetchall()) == 2


def test_a_queue_without_the_newer_column_and_table_gets_them(tmp_path: Path) -> None:
    queue, _, _ = answered_once(tmp_path)
    with queue.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE answers DROP COLUMN saw_guess")
        connection.exec_driver_sql("DROP TABLE trainers")
    reader = LabelQueue(queue.database.name, create=False)
    assert stored(reader) == [(0, "Ann", "left")]
    again = Annotator(reader, "Ann")
    again.answer(again.claim(), "right", 1, saw_guess=True)
    with reader.transaction(reading=True) as connection:
        seen = connection.execute(sqlalchemy.select(ANSWERS.c.saw_guess).order_by(ANSWERS.c.pair_id)).scalars().all()
        assert list(seen) == [0, 1] and connection.execute(sqlalchemy.select(TRAINERS)).all() == []
