"""Labels as JSONL files: one pair per line, with everything known about it and every answer to it.

To repeat a run from such a file, import it into an empty queue and train the same run with that queue: the run finds
every answer in the session in which people gave it. Clips are not in the file, since the repeated run renders the same
ones.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.database import ANSWERS, PAIRS, Database
from prefvlm_core.runs.files import write_atomically

FORMAT = 1
_PAIR = [column.name for column in PAIRS.columns if column.name not in ("id", "clip")]
_ANSWER = [
    "purpose",
    "annotator",
    "swapped",
    "choice",
    "label",
    "seconds",
    "claimed_at",
    "answered_at",
    "number",
    "undone",
]
_TIMES = ("posted_at", "closed_at", "claimed_at", "answered_at")


def export_labels(database: Database, path: Path, run_id: str = "") -> int:
    """Write the pairs that were answered or withdrawn (of one run, if `run_id` is given) to `path` atomically.

    Returns the number of answers. Raises `PrefVLMError` if the file cannot be written.
    """
    pairs = select(PAIRS.c.id, *(PAIRS.c[name] for name in _PAIR)).order_by(PAIRS.c.id)
    if run_id:
        pairs = pairs.where(PAIRS.c.run_id == run_id)
    given = select(ANSWERS.c.pair_id, *(ANSWERS.c[name] for name in _ANSWER))
    lines: dict[int, dict[str, Any]] = {}
    count = 0
    with database.transaction(reading=True) as connection:
        for row in connection.execute(pairs):
            values = {name: _readable(name, row._mapping[name]) for name in _PAIR}
            lines[row.id] = {"format": FORMAT, **values, "answers": []}
        for row in connection.execute(given.where(ANSWERS.c.choice.is_not(None)).order_by(ANSWERS.c.id)):
            if row.pair_id in lines:
                answer = {name: _readable(name, row._mapping[name]) for name in _ANSWER}
                lines[row.pair_id]["answers"].append(answer)
                count += 1
    decided = [line for line in lines.values() if line["answers"] or line["closed_at"] is not None]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in decided)
    write_atomically(path, text.encode())
    return count


def import_labels(database: Database, path: Path) -> int:
    """Add the pairs and answers of a file to a queue, all or none of them, and return the number of answers.

    Raises `PrefVLMError`, naming the line, if one is not in the format of `export_labels` or its pair is in the queue
    already.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PrefVLMError(f"Cannot read {path}: {error.strerror}.") from error
    count = 0
    with database.transaction() as connection:
        for number, line in enumerate(lines, 1):
            pair, answers = _parsed(line, f"{path}, line {number}")
            try:
                key = connection.execute(PAIRS.insert().values(**pair)).inserted_primary_key
            except IntegrityError as error:
                name = f"pair {pair['pair']} of session {pair['session']} of {pair['run_id']}"
                raise PrefVLMError(f"{path}, line {number}: {name} is in {database.name} already.") from error
            assert key is not None
            for answer in answers:
                connection.execute(ANSWERS.insert().values(**answer, pair_id=key[0], window=""))
            count += len(answers)
    return count


def _parsed(line: str, where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The columns of the pair in a line, and those of its answers."""
    try:
        values = json.loads(line)
        if values["format"] != FORMAT:
            raise PrefVLMError(f"{where} has format {values['format']}, but this package reads format {FORMAT}.")
        pair = {name: _stored(name, values[name]) for name in _PAIR}
        return pair, [{name: _stored(name, one[name]) for name in _ANSWER} for one in values["answers"]]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, PrefVLMError):
            raise
        raise PrefVLMError(f"{where} is not a line of a label file: {type(error).__name__} {error}.") from error


def _readable(name: str, value: Any) -> Any:
    return datetime.fromtimestamp(value, UTC).isoformat() if name in _TIMES and value is not None else value


def _stored(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value).timestamp() if name in _TIMES and value is not None else value
