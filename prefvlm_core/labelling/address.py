"""Where a label queue is: reading the URL of its database, and showing it without passwords.

A text that cannot be read is never repeated in a message, because it may hold a password.
"""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.names import check_characters

_POSTGRESQL = "postgresql+psycopg"
DRIVERS = {"sqlite": "sqlite", **dict.fromkeys(("postgresql", "postgres", _POSTGRESQL), _POSTGRESQL)}
"""What a URL may begin with -> SQLAlchemy's name of the driver."""
FROM_ENVIRONMENT = "env:"
"""What stands before the name of an environment variable that holds the URL."""
_EXAMPLES = "write it like sqlite:///labels.sqlite or postgresql://user@host/database"
_PUBLIC_OPTIONS = ("host", "port", "sslmode")
"""The options of a PostgreSQL URL whose values are shown; any other could be a password, or hold one."""


def read_address(given: str | sqlalchemy.URL) -> sqlalchemy.URL:
    """The URL of a label queue's database, with the package's driver and, for SQLite, the absolute path of the file.

    `given` is a URL, or `env:NAME` for the URL that the environment variable NAME holds: a password then appears in no
    list of processes and in no notebook. Raises `PrefVLMError` for anything else, and for a database in memory.
    """
    url = given if isinstance(given, sqlalchemy.URL) else _parsed(_from_environment(given))
    if url.drivername not in DRIVERS:
        raise PrefVLMError(f"A label queue is kept by SQLite or PostgreSQL, not by '{url.drivername}'; {_EXAMPLES}.")
    url = url.set(drivername=DRIVERS[url.drivername])
    if url.drivername == "sqlite":
        return url.set(database=os.path.abspath(_sqlite_file(url)))
    if any("@" in (part or "") for part in (url.username, url.host, url.database)):
        raise PrefVLMError(
            f"The database URL holds more than one '@': write that of a password as %40, and {_EXAMPLES}."
        )
    return url


def project_queue() -> sqlalchemy.URL:
    """The URL of `results/labels.sqlite` in the nearest folder from the working directory up, or in the checkout.

    Raises `PrefVLMError` if there is no such file.
    """
    checkout = Path(__file__).resolve().parents[2]
    for folder in (*Path.cwd().joinpath("here").parents, checkout):
        if (file := folder / "results" / "labels.sqlite").is_file():
            return sqlalchemy.URL.create("sqlite", database=str(file))
    raise PrefVLMError(
        f"There is no label queue results/labels.sqlite in {Path.cwd()}, above it or in {checkout}; training with "
        "--teacher human creates one and prints the line that names it."
    )


def shown(url: sqlalchemy.URL) -> str:
    """The URL for people: with `***` for every password, and for every option that could be one."""
    options = {name: value if name in _PUBLIC_OPTIONS else "***" for name, value in url.query.items()}
    plain = url.set(query=options)
    if url.database:  # whose bytes that are no text SQLAlchemy 2.1 cannot write
        plain = plain.set(database=url.database.encode(errors="backslashreplace").decode())
    text = plain.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
    return text.encode(errors="backslashreplace").decode()


def secrets_of(url: sqlalchemy.URL) -> list[str]:
    """Every value of the URL that `shown` hides."""
    options = [value for name, value in url.normalized_query.items() if name not in _PUBLIC_OPTIONS]
    return [secret for secret in (url.password, *(part for values in options for part in values)) if secret]


def _from_environment(given: str) -> str:
    if not isinstance(given, str):
        raise PrefVLMError(f"A database URL is a text, not of type {type(given).__name__}; {_EXAMPLES}.")
    if not given.startswith(FROM_ENVIRONMENT):
        return given
    name = given.removeprefix(FROM_ENVIRONMENT)
    if not name.isidentifier():
        raise PrefVLMError("After env: comes the name of an environment variable, for example env:PREFVLM_LABELS.")
    if not os.environ.get(name):
        raise PrefVLMError(f"The environment variable {name} is to hold the database URL, but it is empty or not set.")
    return os.environ[name]


def _parsed(text: str) -> sqlalchemy.URL:
    try:
        url = sqlalchemy.make_url(check_characters(text) if not text.startswith("sqlite:") else text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number, or a character that is not allowed
        hidden = "it is not repeated here, since it may hold a password"
        raise PrefVLMError(f"The database URL cannot be read ({hidden}); {_EXAMPLES}.") from None
    if url.drivername == "sqlite" and "?" in text:
        raise PrefVLMError("A SQLite URL has no options, so it may hold no '?', not even as a part of the path.")
    return url


def _sqlite_file(url: sqlalchemy.URL) -> str:
    """The path in a SQLite URL."""
    path = url.database or ""
    if any((url.username, url.password, url.host, url.port)):
        raise PrefVLMError(
            "A SQLite URL has three slashes before a relative path and four before an absolute one: "
            "sqlite:///labels.sqlite or sqlite:////home/me/labels.sqlite."
        )
    if path in ("", ":memory:") or path.startswith("file:") or url.query:
        raise PrefVLMError(
            "A label queue needs a file: no other process reaches a SQLite database in memory; "
            "write it like sqlite:///labels.sqlite."
        )
    if "\0" in path or not Path(path).name:
        raise PrefVLMError("A SQLite URL needs the path of a file; write it like sqlite:///labels.sqlite.")
    return path
