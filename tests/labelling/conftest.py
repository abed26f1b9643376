"""Databases that the tests of the label queue share: a file of SQLite's, and a PostgreSQL server of our own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from prefvlm_core.labelling.queue import LabelQueue

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of our own on a socket in a temporary folder; yields the URL of an empty database."""
    pytest.importorskip("psycopg", reason="no PostgreSQL driver: pip install prefvlm[postgres]")
    if POSTGRES is None:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has at most 107 characters
    as_user: list[str] = []
    if os.getuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"

    def call(*command: object) -> None:
        subprocess.run([*as_user, *map(str, command)], check=True, capture_output=True, cwd=folder)

    call(POSTGRES / "initdb", "-D", data, "-A", "trust", "-U", "labels", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=on"
    call(POSTGRES / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    yield f"postgresql+psycopg://labels@/postgres?host={folder}"
    call(POSTGRES / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/labels.sqlite"
    address: str = request.getfixturevalue("postgres")
    queue = LabelQueue(address)
    with queue.transaction() as connection:
        connection.execute(text("TRUNCATE answers, pairs"))
    return address
