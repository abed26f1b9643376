"""The database of the label queue: its tables, and durable transactions."""

from __future__ import annotations

import math
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy
from sqlalchemy import Column, Float, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.exc import IntegrityError, ProgrammingError, StatementError
from sqlalchemy.types import TypeDecorator

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.address import read_address, secrets_of, shown
from prefvlm_core.labelling.names import LONGEST_NAME
from prefvlm_core.labelling.sqlite_file import (
    LOCKED_SECONDS,
    Stored,
    changed_rows,
    count_write,
    empty_log,
    files_of,
    identities,
    keep_log,
    prepare_sqlite,
    read_stored,
    uri,
)


class Conflict(PrefVLMError):
    """What was to be stored is in the database already, under the same key."""


class _Checked(TypeDecorator[Any]):
    """A column whose values are checked when they are read, because SQLite stores values of any type in any column."""

    impl: Any = String
    cache_ok = True  # stated by each class, because SQLAlchemy does not look at base classes
    kinds: ClassVar[tuple[type, ...]] = (str,)

    def result_processor(self, dialect: sqlalchemy.Dialect, coltype: object) -> Callable[[Any], Any]:
        def check(value: Any) -> Any:
            allowed = value is None or type(value) in self.kinds
            if allowed and not (isinstance(value, float) and not math.isfinite(value)):
                return value
            raise PrefVLMError(
                f"The label queue was changed by another program: it holds {value!r:.60} where only a value of type "
                f"{self.kinds[-1].__name__} is allowed."
            )

        return check


class _Words(_Checked):
    cache_ok = True


class _Whole(_Checked):
    impl, cache_ok = Integer, True
    kinds = (int,)


class _Real(_Checked):
    impl, cache_ok = Float, True
    kinds = (int, float)


class _Picture(_Checked):
    impl, cache_ok = LargeBinary, True
    kinds = (bytes,)


def _training(context: Any) -> int | None:
    return 1 if context.get_current_parameters()["purpose"] == "label" else None


_metadata = sqlalchemy.MetaData()
PAIRS = sqlalchemy.Table(
    "pairs",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", _Words(300), nullable=False),
    Column("session", _Whole, nullable=False),  # from 1
    Column("pair", _Whole, nullable=False),  # from 0 in each session
    Column("budget", _Whole, nullable=False),  # pairs that the run may ask in total
    Column("task", _Words(100), nullable=False),
    Column("text", _Words, nullable=False),  # description of the task for people
    Column("first", _Whole, nullable=False),  # environment steps at which the two segments begin
    Column("second", _Whole, nullable=False),
    Column("length", _Whole, nullable=False),  # environment steps of a segment
    Column("vlm_label", _Real),  # P(second preferred)
    Column("divergence", _Real),  # nats
    Column("partition", _Words(20), nullable=False),
    Column("truth", _Real),  # P(second preferred) by the true reward, in simulation
    Column("posted_at", _Real, nullable=False),  # seconds since 1970, like all times here
    Column("closed_at", _Real),  # when training took or withdrew the pair
    Column("last_session", _Whole, nullable=False, default=0),  # the last one that took, withdrew or left the pair
    Column("frames", _Whole, nullable=False),
    Column("clip", _Picture),  # a sprite sheet, see clips.py; null if the pair was imported from a file
    UniqueConstraint("run_id", "session", "pair"),
)
ANSWERS = sqlalchemy.Table(
    "answers",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("pair_id", _Whole, sqlalchemy.ForeignKey("pairs.id"), nullable=False),
    Column("training", _Whole, default=_training),  # 1 for purpose "label", else null: a pair has at most one label
    Column("purpose", _Words(20), nullable=False),
    Column("annotator", _Words(LONGEST_NAME), nullable=False),
    Column("window", _Words(32), nullable=False),  # the window that holds the claim
    Column("claimed_at", _Real, nullable=False),
    Column("swapped", _Whole, nullable=False),  # 1 if the second segment is shown on the left
    Column("choice", _Words(10)),  # null while the pair is only claimed
    Column("label", _Real),  # P(second preferred); null for skip
    Column("seconds", _Real),  # from showing the pair to the answer
    Column("answered_at", _Real),
    Column("number", _Whole),  # counts a person's answers, independently of clocks
    Column("undone", _Whole, nullable=False, default=0),  # how often the answer was taken back
    Column("saw_guess", _Whole, nullable=False, server_default="0"),  # 1 if the VLM's label was shown with the pair
    UniqueConstraint("pair_id", "training"),
    UniqueConstraint("pair_id", "annotator", "purpose"),
)
TRAINERS = sqlalchemy.Table(
    "trainers",
    _metadata,
    Column("run_id", _Words(300), primary_key=True),
    Column("budget", _Whole, nullable=False),
    Column("seen_at", _Real, nullable=False),  # when the training was last known to live
    Column("next_at", _Real),  # when it expects to ask next; null if it cannot tell
    Column("over", _Whole, nullable=False),  # 1 once it will ask no more
)
IS_LABEL = (ANSWERS.c.purpose == "label") & ANSWERS.c.choice.is_not(None)
"""Whether an answer is the one that training uses, and has been given."""


class Database:
    """The database at `url`, which is SQLite's or PostgreSQL's (`address.read_address` says how to write it).

    SQLite runs in WAL mode and flushes every commit to disk.

    Args:
        url: Where the database is.
        create: Whether to create what is missing of the file and the tables. Who only reads leaves it False.

    Raises:
        PrefVLMError: If the URL is invalid, its driver is not installed, the database cannot be reached, there is none
            and `create` is False, or its tables belong to another program.
    """

    def __init__(self, url: str | sqlalchemy.URL, create: bool = True) -> None:
        address = read_address(url)
        self.name, self._secrets = shown(address), secrets_of(address)
        self._file = str(address.database) if address.drivername == "sqlite" else ""
        if self._file:
            self._check_file_exists(create)
            address = sqlalchemy.URL.create("sqlite", database=uri(self._file), query={"mode": "rw", "uri": "true"})
        try:
            self._engine = sqlalchemy.create_engine(address, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise PrefVLMError(
                "The driver of PostgreSQL is not installed; install it with: pip install 'prefvlm[postgres]'."
            ) from error
        weakref.finalize(self, self._engine.dispose)  # otherwise drivers warn about connections that were not closed
        self._stored = Stored(0, 0)
        """What the file itself held when it was last looked at."""
        if self._file:
            prepare_sqlite(self._engine, self._file)
        self._reading = self._engine.execution_options(reading=True)
        lacking = self._check_tables(create)
        if create and self._file:
            self._keep_log()
        if create or lacking:
            self._make_tables()

    @contextmanager
    def transaction(self, reading: bool = False) -> Iterator[sqlalchemy.Connection]:
        """An atomic transaction; when the context exits, what was written is on the disk.

        Raises `Conflict` for a second row with a key that must be unique, and `PrefVLMError` if the database is locked
        for too long, full or gone, or if another file or other content has taken its place. Then nothing was stored.
        """
        write, content = 0, []
        try:
            with (self._reading if reading else self._engine).begin() as connection:
                self._check_files(connection)
                changes = changed_rows(connection) if self._file else 0
                yield connection
                self._check_files(connection)  # once more before the commit, for a file that was moved meanwhile
                if self._file and not reading:
                    write = count_write(connection, changes)
                if write:
                    content = _content(lambda query: connection.exec_driver_sql(query).fetchall())
            if write:
                self._check_written(write, content)
        except IntegrityError as error:
            raise Conflict(self._failure(error.orig)) from error
        except (StatementError, UnicodeError, OverflowError) as error:
            raise PrefVLMError(self._failure(getattr(error, "orig", error))) from error

    def holds(self, path: Path) -> bool:
        """Whether `path` is a file of this database."""
        return bool(self._file) and any(os.path.exists(name) and path.samefile(name) for name in files_of(self._file))

    def _failure(self, error: BaseException | None) -> str:
        said = " ".join(str(error).split())
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return f"Nothing was stored: the label queue {self.name} failed ({said})."

    def _check_file_exists(self, create: bool) -> None:
        if os.path.exists(self._file):
            return
        if not create:
            raise PrefVLMError(f"There is no label queue {self.name}; training with --teacher human creates one.")
        try:
            with open(self._file, "ab"):
                pass
        except OSError as error:
            raise PrefVLMError(f"Cannot create the label queue {self.name}: {error.strerror}.") from error

    def _check_files(self, connection: sqlalchemy.Connection) -> None:
        """Raise `PrefVLMError` unless who opens the path gets the files that this connection has open."""
        if not self._file:
            return
        earlier = self._stored  # taken before the file is looked at, since another thread may be doing the same
        same = connection.info["files"] == identities(self._file)
        stored = read_stored(self._file) if same else None
        if not stored or not stored.follows(earlier):
            raise PrefVLMError(
                f"Nothing was stored: the file of the label queue {self.name} was moved, deleted or replaced while it "
                "was open; put it back, or open the queue again (in a notebook, run the cell again)."
            )
        self._stored = stored

    def _check_written(self, write: int, content: list[tuple[Any, ...]]) -> None:
        """Raise `PrefVLMError` unless who opens the file now finds the `_content` that this write left."""
        try:
            with closing(sqlite3.connect(f"{uri(self._file)}?mode=rw", timeout=LOCKED_SECONDS, uri=True)) as connection:
                in_file = empty_log(connection)
                connection.execute("BEGIN").close()
                (found,) = connection.execute("PRAGMA user_version").fetchone()
                found_content = _content(lambda query: connection.execute(query).fetchall())
            complete = found > write or found_content == content  # another process may have written meanwhile
            stored = read_stored(self._file) if in_file else Stored(0, found)
            reason = "" if complete and stored and stored.writes >= write else "it holds other content"
        except sqlite3.Error as error:
            reason = str(error)
        if reason:
            raise PrefVLMError(
                f"What was just written to the label queue {self.name} cannot be read back from its file ({reason}): "
                "another program has changed it; put back a copy of the file, and open the queue again."
            )

    def _keep_log(self) -> None:
        try:
            keep_log(self._file)
        except sqlite3.Error as error:
            raise PrefVLMError(self._failure(error)) from error
        self._engine.dispose()  # connections so far know of no log

    def _make_tables(self) -> None:
        try:
            self._make_missing()
        except PrefVLMError as error:
            if not isinstance(error.__cause__, (ProgrammingError, IntegrityError)):
                raise
            self._make_missing()  # another process created them at the same moment

    def _make_missing(self) -> None:
        with self.transaction() as connection:
            _metadata.create_all(connection)
            if "saw_guess" not in _columns(connection, ANSWERS):
                connection.exec_driver_sql("ALTER TABLE answers ADD COLUMN saw_guess INTEGER NOT NULL DEFAULT 0")

    def _check_tables(self, create: bool) -> bool:
        """Whether this is a queue of an earlier release, which lacks `TRAINERS` or `saw_guess`.

        Raises `PrefVLMError` if a table is another program's, or is missing and not to be created.
        """
        lacking = False
        with self.transaction(reading=True) as connection:
            for table in _metadata.sorted_tables:
                found = _columns(connection, table)
                if not found and table is not TRAINERS and not create:
                    raise PrefVLMError(f"{self.name} holds no label queue; training with --teacher human creates one.")
                missing = [column for column in table.columns if column.name not in found]
                if found and (other := [column.name for column in missing if column is not ANSWERS.c.saw_guess]):
                    raise PrefVLMError(
                        f"The table '{table.name}' in {self.name} is not a label queue's, since it has no column "
                        f"'{other[0]}': it belongs to another program, so name another database."
                    )
                lacking |= bool(missing)
        return lacking


def _columns(connection: sqlalchemy.Connection, table: sqlalchemy.Table) -> set[str]:
    """The names of a table's columns in the database; none if it does not exist."""
    inspector = sqlalchemy.inspect(connection)
    return (
        {column["name"] for column in inspector.get_columns(table.name)} if inspector.has_table(table.name) else set()
    )


def _content(read: Callable[[str], Sequence[Sequence[Any]]]) -> list[tuple[Any, ...]]:
    """Everything that a queue holds but the clips, as `read` finds it for a query."""
    columns = ", ".join(str(column) for table in (PAIRS, ANSWERS) for column in table.columns if column.name != "clip")
    everything = f"SELECT {columns} FROM pairs LEFT JOIN answers ON pair_id = pairs.id ORDER BY pairs.id, answers.id"
    by_name = "SELECT run_id, session, pair, id FROM pairs ORDER BY run_id, session, pair"  # from the index
    return [tuple(row) for query in (everything, by_name) for row in read(query)]
