"""Labels as JSONL files: one pair per line, with everything known about it and every answer to it (`schema.PairLine`).

To repeat a run from such a file, import it into an empty queue and train the same run with that queue: the run finds
every answer in the session in which people gave it. Clips are not in the file, since the repeated run renders the same
ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import RowMapping, select
from sqlalchemy.exc import IntegrityError

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.database import ANSWERS, PAIRS, Database
from prefvlm_core.labelling.schema import FORMAT, AnswerLine, PairLine, complaint
from prefvlm_core.runs.files import write_atomically

LARGEST_FILE = 256_000_000
"""Bytes; the labels of a hundred thousand pairs take about half of this."""
_PAIR = [name for name in PairLine.model_fields if name not in ("format", "answers")]
_ANSWER = list(AnswerLine.model_fields)
_TIMES = ("posted_at", "closed_at", "claimed_at", "answered_at")
_OTHER_FILES = {
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"BZh": "is compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first",
    b"PK\x03\x04": "is a ZIP archive; unpack it first",
    b"SQLite format 3": "is a SQLite database; a label queue is named with --labels sqlite:///path",
    b"\xff\xfe": "is encoded in UTF-16 or UTF-32; save it as UTF-8",
    b"\xfe\xff": "is encoded in UTF-16; save it as UTF-8",
    b"\0\0\xfe\xff": "is encoded in UTF-32; save it as UTF-8",
    b"<": "is HTML or XML, perhaps the page of a website in place of the file",
    b"[": "is a JSON array; write each of its objects on a line of its own",
}
"""How other files begin -> what they are."""
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark, which editors on Windows write


def export_labels(database: Database, path: Path, run_id: str = "") -> int:
    """Write the pairs that were answered or withdrawn (of one run, if `run_id` is given) to `path` atomically.

    Returns the number of answers. Raises `PrefVLMError` if there are none of these pairs, if the file cannot be
    written or is the queue itself, and if another program has written to the database what a label file cannot hold.
    """
    if path.is_dir():
        raise PrefVLMError(f"Cannot write labels to {path}: it is a folder; name a file.")
    if path.exists() and database.holds(path):
        raise PrefVLMError(f"{path} is the label queue itself, which an export would destroy; name another file.")
    lines = _decided_pairs(database, run_id)
    if not lines:
        of = f" of run {run_id}" if run_id else ""
        raise PrefVLMError(f"{database.name} holds no answers{of}, so nothing was written to {path}.")
    write_atomically(path, "".join(f"{line.model_dump_json()}\n" for line in lines).encode())
    return sum(len(line.answers) for line in lines)


def _decided_pairs(database: Database, run_id: str) -> list[PairLine]:
    pairs = select(PAIRS.c.id, *(PAIRS.c[name] for name in _PAIR)).order_by(PAIRS.c.id)
    if run_id:
        pairs = pairs.where(PAIRS.c.run_id == run_id)
    given = select(ANSWERS.c.pair_id, *(ANSWERS.c[name] for name in _ANSWER)).where(ANSWERS.c.choice.is_not(None))
    with database.transaction(reading=True) as connection:
        found = {row.id: {"answers": [], **_readable(row._mapping, _PAIR)} for row in connection.execute(pairs)}
        for row in connection.execute(given.order_by(ANSWERS.c.id)):
            if row.pair_id in found:
                found[row.pair_id]["answers"].append(_readable(row._mapping, _ANSWER))
    try:
        return [PairLine.model_validate({"format": FORMAT, **values}) for values in found.values() if _decided(values)]
    except ValidationError as error:
        raise PrefVLMError(f"{database.name} holds what no label file may hold: {complaint(error)}.") from error


def _decided(values: Mapping[str, Any]) -> bool:
    """Whether a pair is closed or has the answer that training uses: any other is still open, and is asked again."""
    return values["closed_at"] is not None or any(answer["purpose"] == "label" for answer in values["answers"])


def _readable(row: RowMapping, names: list[str]) -> dict[str, Any]:
    """The fields of a row as a label file holds them."""
    values = {name: row[name] for name in names}
    try:
        times = {name: datetime.fromtimestamp(values[name], UTC) for name in _TIMES if values.get(name) is not None}
    except (ValueError, OverflowError, OSError) as error:
        raise PrefVLMError(f"The label queue holds a time that no calendar has ({error}).") from error
    return values | times


def read_labels(path: Path) -> dict[str, PairLine]:
    """The lines of a label file, by a text that says where each is. Empty lines and a byte-order mark are ignored.

    Raises `PrefVLMError`, naming file, line and field, for the first line that is not in the format of `export_labels`
    or repeats a pair, and for a file that cannot be read, is empty, or is of another kind.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise PrefVLMError(f"Cannot read {path}: {getattr(error, 'strerror', error)}.") from error
    if other := _other_kind(content):
        raise PrefVLMError(f"{path} {other}; label files are what `prefvlm labels export` writes.")
    lines: dict[str, PairLine] = {}
    places: dict[tuple[str, int, int], str] = {}
    for number, line in enumerate(content.removeprefix(_MARK).split(b"\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            lines[where] = parsed = _parsed(line, where)
            earlier = places.setdefault((parsed.run_id, parsed.session, parsed.pair), where)
            if earlier != where:
                raise PrefVLMError(f"{where}: the pair is that of line {earlier.rpartition(' ')[2]}.")
    return lines


def _other_kind(content: bytes) -> str:
    """What a file is that is no label file, as far as its bytes show."""
    if len(content) > LARGEST_FILE:
        return f"is larger than {LARGEST_FILE // 1_000_000} MB"
    beginning = content.removeprefix(_MARK).lstrip()
    if not beginning:
        return "is empty"
    for mark, kind in _OTHER_FILES.items():
        if content.startswith(mark) or beginning.startswith(mark):
            return kind
    return "is binary, or encoded in UTF-16 or UTF-32" if b"\0" in content else ""


def _parsed(line: bytes, where: str) -> PairLine:
    try:
        return PairLine.model_validate_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PrefVLMError(
            f"{where}: byte {error.start + 1} is not UTF-8; the file may be encoded in Latin-1 or Windows-1252, so "
            "save it as UTF-8."
        ) from error
    except ValidationError as error:
        raise PrefVLMError(f"{where}: {complaint(error)}.") from error


def add_labels(database: Database, lines: Mapping[str, PairLine]) -> int:
    """Add the pairs and answers that `read_labels` returns to a queue, all or none; returns the number of answers.

    Raises `PrefVLMError`, naming the line, if a pair is in the queue already.
    """
    with database.transaction() as connection:
        for where, line in lines.items():
            try:
                key = connection.execute(PAIRS.insert().values(**_stored(line, _PAIR))).inserted_primary_key
            except IntegrityError as error:
                pair = f"pair {line.pair} of session {line.session} of {line.run_id}"
                raise PrefVLMError(f"{where}: {pair} is in {database.name} already.") from error
            assert key is not None
            for answer in line.answers:
                values = _stored(answer, _ANSWER)
                connection.execute(ANSWERS.insert().values(**values, pair_id=key[0], window=""))
    return sum(len(line.answers) for line in lines.values())


def _stored(line: PairLine | AnswerLine, names: list[str]) -> dict[str, Any]:
    """The fields of a line as the database holds them."""
    values = {name: getattr(line, name) for name in names}
    return {name: value.timestamp() if isinstance(value, datetime) else value for name, value in values.items()}
