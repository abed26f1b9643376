"""The database of the label queue: its two tables, and durable transactions."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import Column, Float, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, ProgrammingError

from prefvlm_core.common.errors import PrefVLMError

LONGEST_NAME = 100
"""Largest number of characters in the name of an annotator."""

_LOCKED_SECONDS = 30  # how long a transaction waits for another process's


def _training(context: Any) -> int | None:
    return 1 if context.get_current_parameters()["purpose"] == "label" else None


_metadata = sqlalchemy.MetaData()
PAIRS = sqlalchemy.Table(
    "pairs",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(300), nullable=False),
    Column("session", Integer, nullable=False),  # from 1
    Column("pair", Integer, nullable=False),  # from 0 in each session
    Column("budget", Integer, nullable=False),  # pairs that the run may ask in total
    Column("task", String(100), nullable=False),
    Column("text", Text, nullable=False),  # description of the task for people
    Column("first", Integer, nullable=False),  # environment steps at which the two segments begin
    Column("second", Integer, nullable=False),
    Column("length", Integer, nullable=False),  # environment steps of a segment
    Column("vlm_label", Float),  # P(second preferred)
    Column("divergence", Float),  # nats
    Column("partition", String(20), nullable=False),
    Column("truth", Float),  # P(second preferred) by the true reward, in simulation
    Column("posted_at", Float, nullable=False),  # seconds since 1970, like all times here
    Column("closed_at", Float),  # when training took or withdrew the pair
    Column("last_session", Integer, nullable=False, default=0),  # the last one that took, withdrew or left the pair
    Column("frames", Integer, nullable=False),
    Column("clip", LargeBinary),  # a sprite sheet, see clips.py; null if the pair was imported from a file
    UniqueConstraint("run_id", "session", "pair"),
)
ANSWERS = sqlalchemy.Table(
    "answers",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("pair_id", sqlalchemy.ForeignKey("pairs.id"), nullable=False),
    Column("training", Integer, default=_training),  # 1 for purpose "label", else null: a pair has at most one label
    Column("purpose", String(20), nullable=False),
    Column("annotator", String(LONGEST_NAME), nullable=False),
    Column("window", String(32), nullable=False),  # the window that holds the claim
    Column("claimed_at", Float, nullable=False),
    Column("swapped", Integer, nullable=False),  # 1 if the second segment is shown on the left
    Column("choice", String(10)),  # null while the pair is only claimed
    Column("label", Float),  # P(second preferred); null for skip
    Column("seconds", Float),  # from showing the pair to the answer
    Column("answered_at", Float),
    Column("number", Integer),  # counts a person's answers, independently of clocks
    Column("undone", Integer, nullable=False, default=0),  # how often the answer was taken back
    UniqueConstraint("pair_id", "training"),
    UniqueConstraint("pair_id", "annotator", "purpose"),
)
IS_LABEL = (ANSWERS.c.purpose == "label") & ANSWERS.c.choice.is_not(None)
"""Whether an answer is the one that training uses, and has been given."""


class Database:
    """The database at `url`, of any kind that SQLAlchemy supports; creates missing tables.

    SQLite runs in WAL mode and flushes every commit to disk. Raises `PrefVLMError` if the URL is invalid, its driver is
    not installed, or the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            hint = "that of PostgreSQL comes with: pip install prefvlm[postgres]."
            raise PrefVLMError(f"There is no driver for that database ({error}); {hint}") from error
        except ArgumentError as error:
            example = "sqlite:///labels.sqlite or postgresql+psycopg://user@host/database"
            raise PrefVLMError(f"'{url}' is no database URL; write it like {example}.") from error
        weakref.finalize(self, self._engine.dispose)  # otherwise drivers warn about connections that were not closed
        self.name = self._engine.url.render_as_string(hide_password=True)
        if self._engine.dialect.name == "sqlite":
            sqlalchemy.event.listen(self._engine, "connect", _prepare_sqlite)
            sqlalchemy.event.listen(self._engine, "begin", _begin_sqlite)
        self._reading = self._engine.execution_options(reading=True)
        try:
            self._make_tables()
        except (ProgrammingError, IntegrityError):  # another process created them at the same moment
            self._make_tables()

    @contextmanager
    def transaction(self, reading: bool = False) -> Iterator[sqlalchemy.Connection]:
        """An atomic transaction; when the context exits, what was written is on the disk.

        Raises `PrefVLMError` if the database is locked for too long, full or gone.
        """
        try:
            with (self._reading if reading else self._engine).begin() as connection:
                yield connection
        except (IntegrityError, ProgrammingError):
            raise
        except DBAPIError as error:
            raise PrefVLMError(f"Nothing was stored: the label queue {self.name} failed ({error.orig}).") from error

    def _make_tables(self) -> None:
        with self.transaction() as connection:
            _metadata.create_all(connection)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite begins transactions, not the driver
    for pragma in (f"busy_timeout={_LOCKED_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    # A writer takes the lock at once, because a transaction that reads first and writes later can fail as "locked".
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")
