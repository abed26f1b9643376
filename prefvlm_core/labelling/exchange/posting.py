"""Preference data for people: its pairs, with the labels that they have, posted to a label queue."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import func, select

from prefvlm_core.common.errors import PrefVLMError, shown, unknown_name
from prefvlm_core.domains.registry import all_tasks
from prefvlm_core.labelling.clips import encode, side_by_side
from prefvlm_core.labelling.database import ANSWERS, PAIRS
from prefvlm_core.labelling.exchange.data import SCRIPT, VLM, PreferenceData
from prefvlm_core.labelling.names import check_characters, check_name
from prefvlm_core.labelling.queue import CHOICES, OF_NO_RUN, PURPOSES, LabelQueue, label_of
from prefvlm_core.preferences.log import PARTITIONS
from prefvlm_core.preferences.teachers import HUMAN

TASK, TEXT = "own clips", "Which clip is better?"
"""What pairs without a task and without a text are called, and what people are asked of them."""


def add_data(queue: LabelQueue, data: PreferenceData) -> tuple[int, int]:
    """Post every pair with its clips, its answers and the VLM's label, all or none.

    People are asked about those pairs that have no answer of purpose "label" from a person. Pairs without a run get
    one, named by their content, the session 1, and the number of their row. Returns the numbers of pairs and answers.

    Raises `PrefVLMError` for labels that no queue can hold, and if a pair is in the queue already.
    """
    labels: dict[str, list[dict[str, Any]]] = {}
    for label in data.labels.to_pylist():
        labels.setdefault(label["pair"], []).append(label)
    pairs, answers = _pairs(data, labels), 0
    with queue.transaction() as connection:
        for pair, values in pairs.items():
            key = _insert(connection, PAIRS, values, queue, pair)
            for label in labels.get(pair, []):
                if label["teacher"] in (HUMAN, SCRIPT):
                    _insert(connection, ANSWERS, _answer(connection, label) | {"pair_id": key}, queue, pair)
                    answers += 1
    return len(pairs), answers


def _pairs(data: PreferenceData, labels: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By name, every pair as the queue stores it. A run's budget counts at least its pairs and their numbers."""
    clips = {clip["clip"]: clip for clip in data.clips.select(["clip", "first", "length"]).to_pylist()}
    run_id = _name_of(data)
    pairs = {
        row["pair"]: _pair(data, clips, row, number, run_id) | _guess(row["pair"], labels.get(row["pair"], []))
        for number, row in enumerate(data.pairs.to_pylist())
    }
    budgets = Counter(values["run_id"] for values in pairs.values())
    for values in pairs.values():
        budgets[values["run_id"]] = max(budgets[values["run_id"]], values["pair"] + 1)
    return {name: values | {"budget": budgets[values["run_id"]]} for name, values in pairs.items()}


def _insert(
    connection: sqlalchemy.Connection, table: sqlalchemy.Table, values: dict[str, Any], queue: LabelQueue, pair: str
) -> int:
    """Insert a row and return its key. Raises `PrefVLMError` where a unique key of the table forbids it."""
    try:
        inserted = connection.execute(table.insert().values(**values))
    except sqlalchemy.exc.IntegrityError as error:
        if table is PAIRS:
            raise PrefVLMError(f"Pair '{pair}' is in {queue.database.name} already.") from error
        raise PrefVLMError(
            f"Pair '{pair}' has two answers of purpose 'label', or two of one person and purpose; a queue holds one."
        ) from error
    assert inserted.inserted_primary_key is not None
    return int(inserted.inserted_primary_key[0])


def _name_of(data: PreferenceData) -> str:
    """A name for the pairs that come from no run, made of what they show."""
    content = hashlib.blake2b(digest_size=8)
    for row in data.pairs.select(["pair", "first_clip", "second_clip"]).to_pylist():
        content.update(row["pair"].encode() + data.strips[row["first_clip"]] + data.strips[row["second_clip"]])
    return f"{OF_NO_RUN[1]}{content.hexdigest()}"


def _pair(
    data: PreferenceData, clips: dict[str, dict[str, Any]], row: dict[str, Any], number: int, run_id: str
) -> dict[str, Any]:
    """A pair as the queue stores it, but for the VLM's label and the budget."""
    if row["run_id"] and not row["run_id"].startswith(OF_NO_RUN) and row["task"] not in all_tasks():
        raise PrefVLMError(
            f"Pair '{row['pair']}' names the run {row['run_id']}, so its task must be one that `prefvlm list tasks` "
            f"shows, not {shown(row['task'])}; leave run_id empty for pairs of no run."
        )
    frames = side_by_side(data.frames(row["first_clip"]), data.frames(row["second_clip"]))
    sides = clips[row["first_clip"]], clips[row["second_clip"]]
    return {
        "run_id": check_characters(row["run_id"] or run_id),
        "session": 1 if row["session"] is None else row["session"],
        "pair": number if row["number"] is None else row["number"],
        "task": check_characters(row["task"] or TASK),
        "text": check_characters(row["text"] or TEXT),
        "first": sides[0]["first"] or 0,
        "second": sides[1]["first"] or 0,
        "length": sides[0]["length"] or len(frames),
        "truth": row["truth"],
        "posted_at": time.time(),
        "frames": len(frames),
        "clip": encode(frames),
    }


def _guess(pair: str, labels: list[dict[str, Any]]) -> dict[str, Any]:
    """The VLM's label of a pair as the queue stores it."""
    of_vlm = [label for label in labels if label["teacher"] == VLM]
    if len(of_vlm) > 1:
        raise PrefVLMError(f"Pair '{pair}' has {len(of_vlm)} labels of teacher '{VLM}', but a queue holds one.")
    if not of_vlm:
        return {"partition": ""}
    if (partition := of_vlm[0]["partition"] or "") not in PARTITIONS:
        raise unknown_name(f"partition of pair '{pair}'", partition, PARTITIONS)
    return {"vlm_label": of_vlm[0]["label"], "divergence": of_vlm[0]["divergence"], "partition": partition}


def _answer(connection: sqlalchemy.Connection, label: dict[str, Any]) -> dict[str, Any]:
    """A person's label as the queue stores it, numbered after the same person's other answers."""
    swapped, purpose = bool(label["swapped"]), label["purpose"] or "label"
    if purpose not in PURPOSES:
        raise unknown_name(f"purpose of a label of pair '{label['pair']}'", purpose, PURPOSES)
    choices = [choice for choice in CHOICES if label_of(choice, swapped) == label["label"]]
    if not choices:
        raise PrefVLMError(
            f"The label of pair '{label['pair']}' is {label['label']}, but people's labels are 0, 0.5, 1 or empty."
        )
    annotator = check_name(label["annotator"] or label["teacher"])
    newest = select(func.coalesce(func.max(ANSWERS.c.number), 0)).where(ANSWERS.c.annotator == annotator)
    answered_at = label["answered_at"].timestamp() if label["answered_at"] else time.time()
    return {
        "purpose": purpose,
        "annotator": annotator,
        "window": "",
        "swapped": int(swapped),
        "choice": choices[0],
        "label": label["label"],
        "seconds": label["seconds"] or 0.0,
        "claimed_at": answered_at,
        "answered_at": answered_at,
        "number": connection.execute(newest).scalar_one() + 1,
        "saw_guess": int(bool(label["saw_guess"])),
    }
