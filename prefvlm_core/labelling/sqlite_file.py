"""The file of a SQLite database: how it is opened, and how content that another program put into it is noticed."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
import urllib.parse
from contextlib import closing
from typing import Any, NamedTuple

import sqlalchemy

LOCKED_SECONDS = 30
"""How long a transaction waits for another process's."""
_ATTEMPTS = 100
_NUMBERS = ("application_id", "user_version")  # of `Stored`


class Stored(NamedTuple):
    """Two numbers in the header of a SQLite database, by which content that was put in its place is noticed."""

    identity: int
    """A random number, the same for ever (`application_id`); 0 in databases of earlier releases, until a write."""
    writes: int
    """How many transactions have written to it (`user_version`)."""

    def follows(self, earlier: Stored) -> bool:
        """Whether a file that held `earlier` can hold this now, unless another program wrote to it."""
        return earlier.identity in (0, self.identity) and earlier.writes <= self.writes


def read_stored(file: str) -> Stored | None:
    """The numbers in the file itself, whatever waits in its write-ahead log; None if it is no database.

    While another process moves its log into the file, this looks malformed for a moment, so it is read again for a
    second.
    """
    for attempt in range(_ATTEMPTS):
        try:
            # SQLite reads it, because closing the file any other way would release SQLite's locks of this process.
            with closing(sqlite3.connect(f"{uri(file)}?mode=ro&immutable=1", uri=True)) as connection:
                return Stored(*(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _NUMBERS))
        except sqlite3.Error:
            time.sleep(1 / _ATTEMPTS if attempt < _ATTEMPTS - 1 else 0)
    return None


def changed_rows(connection: sqlalchemy.Connection) -> int:
    """How many rows a SQLite connection has changed so far."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver.total_changes


def count_write(connection: sqlalchemy.Connection, changes: int) -> int:
    """Count a transaction in the database and return its number; 0 if nothing has changed since `changes` rows had.

    The first one also gives the database its identity.
    """
    identity, writes = (int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in _NUMBERS)
    if not identity:
        connection.exec_driver_sql(f"PRAGMA application_id = {secrets.randbelow(2**31 - 1) + 1}")
    elif changed_rows(connection) == changes:
        return 0
    connection.exec_driver_sql(f"PRAGMA user_version = {writes + 1}")
    return writes + 1


def empty_log(connection: sqlite3.Connection) -> bool:
    """Move what waits in the log into the file itself, where it stays whatever becomes of the log.

    False if that is left to another process, which is reading, or to later, when the disk has room again.
    """
    try:
        busy, waiting, moved = connection.execute("PRAGMA wal_checkpoint").fetchone()
    except sqlite3.OperationalError:
        return False
    return not busy and waiting == moved


def uri(file: str) -> str:
    """The path as SQLite's URI, to which the mode of opening is added: without one, SQLite would create the file."""
    return "file:" + urllib.parse.quote(os.fsencode(file))


def files_of(file: str) -> list[str]:
    """The files of a SQLite database: itself, its write-ahead log and the log's index."""
    return [f"{file}{suffix}" for suffix in ("", "-wal", "-shm")]


def identities(file: str) -> list[tuple[int, int] | None]:
    """Device and inode of each of `files_of`; None for one that does not exist, and for a database that was emptied."""
    found = [_status(name) for name in files_of(file)]
    emptied = found[0] is not None and found[0].st_size == 0
    return [None if one is None or emptied else (one.st_dev, one.st_ino) for one in found]


def _status(file: str) -> os.stat_result | None:
    try:
        return os.stat(file)
    except OSError:
        return None


def keep_log(file: str) -> None:
    """Have every connection to the database keep a write-ahead log from now on, a property of the file."""
    with closing(sqlite3.connect(f"{uri(file)}?mode=rw", timeout=LOCKED_SECONDS, uri=True)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").close()


def prepare_sqlite(engine: sqlalchemy.Engine, file: str) -> None:
    """Have an engine open the database `file` with durable commits, and remember which files it has opened."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # `begin` begins transactions, not the driver
        for pragma in (f"busy_timeout={LOCKED_SECONDS * 1000}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # opens the write-ahead log
        record.info["files"] = identities(file)

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        # A writer takes the lock at once, because a transaction that reads first and writes later can fail as "locked".
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")
