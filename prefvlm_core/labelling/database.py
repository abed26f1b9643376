"""The database of the label queue: its two tables, and transactions that hold what they promise."""

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
"""Characters of an annotator's name."""

_LOCKED_SECONDS = 30  # how long a transaction waits for another process's

_metadata = sqlalchemy.MetaData()
PAIRS = sqlalchemy.Table(
    "pairs",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(300), nullable=False),
    Column("session", Integer, nullable=False),  # from 1
    Column("pair", Integer, nullable=False),  # from 0 in each session
    Column("budget", Integer, nullable=False),  # pairs that the run may ask in all
    Column("task", String(100), nullable=False),
    Column("text", Text, nullable=False),  # the task, in words for people
    Column("first", Integer, nullable=False),  # environment steps at which the segments begin
    Column("second", Integer, nullable=False),
    Column("length", Integer, nullable=False),  # environment steps of a segment
    Column("vlm_label", Float),  # P(second preferred)
    Column("divergence", Float),  # nats
    Column("partition", String(20), nullable=False),
    Column("truth", Float),  # P(second preferred) by the true reward, in simulation
    Column("posted_at", Float, nullable=False),  # seconds since 1970, as all times here
    Column("closed_at", Float),  # when training took or withdrew the pair
    Column("last_session", Integer, nullable=False, default=0),  # that did so or, while it is open, went on without it
    Column("frames", Integer, nullable=False),
    Column("clip", LargeBinary),  # a sprite sheet, see clips.py; none where the pair comes from a file
    UniqueConstraint("run_id", "session", "pair"),
)
ANSWERS = sqlalchemy.Table(
    "answers",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("pair_id", sqlalchemy.ForeignKey("pairs.id"), nullable=False),
    Column("training", Integer),  # 1 for purpose `label`, else null: a pair has one such answer at most
    Column("purpose", String(20), nullable=False),
    Column("annotator", String(LONGEST_NAME), nullable=False),
    Column("window", String(32), nullable=False),  # holder of the claim
    Column("claimed_at", Float, nullable=False),
    Column("swapped", Integer, nullable=False),  # 1 where the second segment stood left
    Column("choice", String(10)),  # null while only claimed
    Column("label", Float),  # P(second preferred); null for skip
    Column("seconds", Float),  # from the pair's appearance to the answer
    Column("answered_at", Float),
    Column("number", Integer),  # counts a person's answers, whatever the clock says
    Column("undone", Integer, nullable=False, default=0),  # how often the answer was taken back
    UniqueConstraint("pair_id", "training"),
    UniqueConstraint("pair_id", "annotator", "purpose"),
)


class Database:
    """The database at `url`, any that SQLAlchemy reaches; tables are made where they lack.

    SQLite works in WAL mode with every commit flushed to disk. Raises `PrefVLMError` for a URL that leads nowhere.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            hint = "PostgreSQL's comes with: pip install prefvlm[postgres]"
            raise PrefVLMError(f"There is no driver for that database ({error}); {hint}") from error
        except ArgumentError as error:
            example = "sqlite:///labels.sqlite or postgresql+psycopg://user@host/database"
            raise PrefVLMError(f"'{url}' is no database URL; write it like {example}.") from error
        weakref.finalize(self, self._engine.dispose)  # else the drivers warn of connections that nobody closed
        self.name = self._engine.url.render_as_string(hide_password=True)
        if self._engine.dialect.name == "sqlite":
            sqlalchemy.event.listen(self._engine, "connect", _prepare_sqlite)
            sqlalchemy.event.listen(self._engine, "begin", _begin_sqlite)
        self._reading = self._engine.execution_options(reading=True)
        try:
            self._make_tables()
        except (ProgrammingError, IntegrityError):  # another process made them at the same moment
            self._make_tables()

    @contextmanager
    def transaction(self, reading: bool = False) -> Iterator[sqlalchemy.Connection]:
        """All or nothing; on leaving, what was written is on the disk. Raises `PrefVLMError` where the database is
        locked for too long, full or gone."""
        try:
            with (self._reading if reading else self._engine).begin() as connection:
                yield connection
        except (IntegrityError, ProgrammingError):
            raise
        except DBAPIError as error:
            raise PrefVLMError(f"Nothing was stored, the label queue {self.name} failed: {error.orig}.") from error

    def _make_tables(self) -> None:
        with self.transaction() as connection:
            _metadata.create_all(connection)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    for pragma in (f"busy_timeout={_LOCKED_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    # A writer takes the lock at once: a transaction that reads first and writes later can fail as "locked" in between.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")
