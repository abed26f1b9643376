"""Builders that several tests use."""

from typing import Any

from sqlalchemy import select

from prefvlm_core.labelling.database import ANSWERS, PAIRS
from prefvlm_core.labelling.queue import LabelQueue, Pair


def pair(number: int, session: int = 1, run_id: str = "run", **known: Any) -> Pair:
    known = {"vlm_label": 1.0, "divergence": 0.25, "partition": "uncertain", "truth": float(number % 2)} | known
    known = {"text": "open", "clip": b"clip"} | known
    where = {"first": number, "second": 500 + number, "length": 20, "frames": 5}
    return Pair(run_id=run_id, session=session, pair=number, budget=100, task="door-open-v3", **where, **known)


def post(queue: LabelQueue, count: int, **known: Any) -> None:
    for number in range(count):
        queue.post(pair(number, **known))


def stored(queue: LabelQueue) -> list[tuple[int, str, str]]:
    """(pair, annotator, choice) of the answers that training uses."""
    query = select(PAIRS.c.pair, ANSWERS.c.annotator, ANSWERS.c.choice).join(ANSWERS).order_by(PAIRS.c.id)
    with queue.transaction(reading=True) as connection:
        rows = connection.execute(query.where(ANSWERS.c.training == 1, ANSWERS.c.choice.is_not(None)))
        return [tuple(row) for row in rows]
