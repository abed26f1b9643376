"""Database URLs: how they may be written, what is said of those that are wrong, and that passwords are never shown."""

import re
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy
from builders.runs import quiet, tiny

from prefvlm_core.cli import main
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.experiments import background
from prefvlm_core.experiments.background import train_in_background
from prefvlm_core.experiments.opened import open_experiment
from prefvlm_core.labelling.address import read_address, shown
from prefvlm_core.labelling.database import Database
from prefvlm_core.labelling.queue import LabelQueue
from prefvlm_core.labelling.teacher import queue_url

SECRET = "pw5ecret"
EXAMPLES = "write it like sqlite:///labels.sqlite or postgresql://user@host/database"


@pytest.mark.parametrize("kind", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_known_under_each_of_its_names(kind: str) -> None:
    url = read_address(f"{kind}://ann:{SECRET}@host:5433/labels?host=/tmp&sslmode=require&password={SECRET}")
    assert (url.drivername, url.username, url.password, url.port) == ("postgresql+psycopg", "ann", SECRET, 5433)
    assert (
        "ann:***@host:5433/labels?" in shown(url)
        and "password=***" in shown(url)
        and "require" in shown(url)
        and SECRET not in shown(url)
    )


def test_a_path_of_sqlite_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_address("sqlite:///a/../labels.sqlite").database == str(tmp_path / "labels.sqlite")
    assert read_address(f"sqlite:///{tmp_path}/ü b.sqlite").database == str(tmp_path / "ü b.sqlite")


def test_a_url_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFVLM_LABELS", f"postgresql://ann:{SECRET}@host/labels")
    assert read_address("env:PREFVLM_LABELS").password == SECRET
    monkeypatch.delenv("PREFVLM_LABELS")
    with pytest.raises(PrefVLMError, match="variable PREFVLM_LABELS is to hold the database URL, but it is empty"):
        read_address("env:PREFVLM_LABELS")
    with pytest.raises(PrefVLMError, match="After env: comes the name") as error:
        read_address(f"env:postgresql://ann:{SECRET}@host/labels")
    assert SECRET not in str(error.value)


MEMORY = "needs a file: no other process reaches a SQLite database in memory"
WRONG_URLS = [
    *[(url, MEMORY) for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:")],
    *[(url, "has no options") for url in ("sqlite:///x?mode=memory", "sqlite:///file:x?mode=memory&uri=true")],
    ("sqlite:///results?/labels.sqlite", "has no options"),
    *[(url, "three slashes") for url in ("sqlite://labels.sqlite", "sqlite://home/me/labels.sqlite")],
    (f"sqlite://u:{SECRET}@host/x", "three slashes"),
    *[(f"sqlite:///{path}", "needs the path of a file") for path in ("/", "a\0b")],
    *[(url, EXAMPLES) for url in ("labels.sqlite", "C:\\x", "file:x", "", " ", "sqlite:x", "sqlite:/x", ":memory:")],
    *[(url, EXAMPLES) for url in (f"postgres//u:{SECRET}@h/d", f"u:{SECRET}@h", f"postgresql+psycopg:/u:{SECRET}@h/d")],
    *[(f"postgresql://u:{SECRET}@h:{port}/d", "cannot be read") for port in ("port", "54x", "-", "5432,5433")],
    *[(f"postgresql://u:{SECRET}@h{odd}/d", "cannot be read") for odd in ("\0", "\n", "\x1b[2J", "\ud800")],
    (f"postgresql://u:{SECRET}@{SECRET}@h/d", "write that of a password as %40"),
    (f"postgresql://u@{SECRET}/{SECRET}@h/d", "write that of a password as %40"),
    *[
        (f"{kind}://u:{SECRET}@h/d", f"kept by SQLite or PostgreSQL, not by '{kind}'")
        for kind in ("mysql", "oracle", "nosuch", "http")
    ],
    *[(f"{kind}:///x", f"not by '{kind}'") for kind in ("sqlite+aiosqlite", "sqlite3", "SQLite")],
    *[(f"{kind}://u@h/d", f"not by '{kind}'") for kind in ("postgresql+psycopg2", "postgresql+asyncpg")],
]


@pytest.mark.parametrize(("url", "words"), WRONG_URLS)
def test_a_wrong_url_is_answered_in_one_sentence_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrefVLMError, match=re.escape(words)) as error:
        LabelQueue(url)
    said = str(error.value)
    assert SECRET not in said and said.isprintable() and "pip install" not in said
    if url:  # an empty one is the results folder's queue
        with pytest.raises(SystemExit) as ended:
            main(["labels", "status", "--labels", url])
        assert ended.value.code == 2
    assert SECRET not in "".join(capsys.readouterr()) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [None, 5, Path("labels.sqlite")])
def test_a_url_that_is_no_text_is_answered_in_one_sentence(value: object) -> None:
    with pytest.raises(PrefVLMError, match="A database URL is a text, not of type"):
        LabelQueue(value)  # type: ignore[arg-type]


def test_a_queue_in_memory_is_refused_however_it_is_named() -> None:
    for url in (
        sqlalchemy.URL.create("sqlite"),
        sqlalchemy.URL.create("sqlite", database="x", query={"mode": "memory"}),
    ):
        with pytest.raises(PrefVLMError, match="needs a file"):
            LabelQueue(url)


def test_a_missing_driver_is_answered_by_what_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PrefVLMError, match=r"install it with: pip install 'prefvlm\[postgres\]'"):
        Database("postgres://u@h/d")


@pytest.mark.parametrize(
    "rest",
    [
        "127.0.0.1:1/d",
        "127.0.0.1:1/d?password=" + SECRET,
        f"/d?host=/nowhere&nonsense={SECRET}",
        "nowhere.invalid/d",
        "127.0.0.1:99999/d",
    ],
)
def test_a_server_that_cannot_be_reached_is_named_without_the_password(rest: str) -> None:
    pytest.importorskip("psycopg", reason="no PostgreSQL driver: pip install prefvlm[postgres]")
    with pytest.raises(PrefVLMError, match=r"the label queue postgresql\+psycopg://u:\*\*\*@.* failed \(") as error:
        Database(f"postgresql://u:{SECRET}@{rest}")
    assert SECRET not in str(error.value) and "\n" not in str(error.value)


def test_two_teachers_that_contradict_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--tasks", "drawer-close-v3", "--teacher", "human", "--feedback.teacher", "oracle"])
    assert ended.value.code == 2 and not list(tmp_path.iterdir())
    assert "--teacher human contradicts --feedback.teacher oracle" in capsys.readouterr().err


def test_the_password_of_a_background_training_is_in_no_list_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is replaced by one that waits, and writes down what it was given."""
    waiting = background._TRAIN.replace("from prefvlm_core.train import train\n", "").partition("train([")[0]
    waiting += f"import time; open({str(tmp_path / 'given')!r}, 'w').write(execution.labels); time.sleep(60)"
    monkeypatch.setattr(background, "_TRAIN", waiting)
    url = f"postgresql://u:{SECRET}@127.0.0.1:1/d"
    process = train_in_background(tiny("pebble"), quiet(tmp_path, labels=url))
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "given").exists() or not (tmp_path / "given").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert (tmp_path / "given").read_text() == url
        for file in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{process.pid}/{file}").read_bytes()
    finally:
        process.kill()
        process.wait()


def test_no_file_of_a_training_that_fails_at_its_queue_holds_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="no PostgreSQL driver: pip install prefvlm[postgres]")
    config = tiny("pebble", **{"feedback.teacher": "human"})
    execution = quiet(tmp_path, labels=f"postgresql://u:{SECRET}@127.0.0.1:1/d")
    assert train_in_background(config, execution).wait(120) != 0
    (log,) = (tmp_path / "logs").iterdir()
    assert "u:***@127.0.0.1:1/d failed" in log.read_text()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    assert SECRET not in repr(execution)


@pytest.mark.parametrize("url", [f"postgres://u:{SECRET}@h/d", f"postgresql://h/d?password={SECRET}"])
def test_a_notebook_takes_no_password_as_a_parameter(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(PrefVLMError, match=r"labels holds a password.* env:PREFVLM_LABELS") as error:
        open_experiment("07_human_labeling", "quick", False, labels=url)
    assert SECRET not in str(error.value)
    monkeypatch.setenv("PREFVLM_LABELS", url)
    opened = open_experiment("07_human_labeling", "quick", False, labels="env:PREFVLM_LABELS")
    assert SECRET not in repr(opened) and queue_url(opened.execution).query.get("password", SECRET) == SECRET
