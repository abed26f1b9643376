"""How a queue stands, in one person's words: what is left to do, and what there is to wait for.

Nothing here tells how right an answer is: whoever sees that while labelling no longer answers freely. The summary that
does is for the time when the budget is spent.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import func, select

from prefvlm_core.labelling.agreement import progress
from prefvlm_core.labelling.database import ANSWERS, IS_LABEL, PAIRS, TRAINERS, Database

SILENT_SECONDS = 30.0
"""A training of which nothing was heard for so long is said to be gone."""
_TYPICAL = 50  # answers of which the median duration is taken
_SIDES = {"left": "left better", "right": "right better", "equal": "equal", "skip": "can't tell"}


class Standing(NamedTuple):
    """What one person may know of the queue while labelling."""

    run_id: str
    """The run that asked last, "" if none has; the following five are about it."""
    answered: int
    """Pairs that people have answered or skipped."""
    budget: int
    asked: bool
    """Whether it has posted pairs."""
    spent: bool
    """Whether its budget is spent and training has taken every answer, or it asks no more."""
    trainer: tuple[float, float | None] | None
    """Seconds since its training was last heard of, and until it asks next (None: unknown); None in old queues."""
    waiting: int
    """Pairs of all runs that need an answer."""
    held: int
    """Those of them that other people are answering."""
    mine: int
    """The person's answers to all runs, repeats and second opinions included."""
    seconds: float | None
    """Median duration of the person's last answers; None before the first."""


def standing(database: Database, annotator: str, run_id: str = "") -> Standing:
    """How the queue stands for a person; about `run_id`, or else about the run that was last heard of."""
    with database.transaction(reading=True) as connection:
        return _standing(connection, annotator, run_id or _latest_run(connection))


def _standing(connection: sqlalchemy.Connection, annotator: str, run_id: str) -> Standing:
    def count(*conditions: Any) -> int:
        return int(connection.execute(select(func.count()).select_from(PAIRS).where(*conditions)).scalar_one())

    of_run = PAIRS.c.run_id == run_id
    labelled = sqlalchemy.exists().where(ANSWERS.c.pair_id == PAIRS.c.id, IS_LABEL).correlate(PAIRS)
    held = sqlalchemy.exists().where(
        ANSWERS.c.pair_id == PAIRS.c.id, ANSWERS.c.purpose == "label", ANSWERS.c.annotator != annotator
    )
    is_open = PAIRS.c.closed_at.is_(None), PAIRS.c.clip.is_not(None), ~labelled
    mine = ANSWERS.c.annotator == annotator, ANSWERS.c.choice.is_not(None)
    last = select(ANSWERS.c.seconds).where(*mine).order_by(ANSWERS.c.number.desc()).limit(_TYPICAL)
    seconds = connection.execute(last).scalars().all()
    trainer = connection.execute(select(TRAINERS).where(TRAINERS.c.run_id == run_id)).first()
    budget = trainer.budget if trainer else connection.execute(select(func.max(PAIRS.c.budget)).where(of_run)).scalar()
    answered, undecided, now = count(of_run, labelled), count(of_run, PAIRS.c.closed_at.is_(None)), time.time()
    return Standing(
        run_id,
        answered,
        budget or 0,
        asked=count(of_run) > 0,
        spent=not undecided and (0 < (budget or 0) <= answered or bool(trainer and trainer.over)),
        trainer=(now - trainer.seen_at, trainer.next_at and trainer.next_at - now) if trainer else None,
        waiting=count(*is_open),
        held=count(*is_open, held.correlate(PAIRS)),
        mine=int(connection.execute(select(func.count()).select_from(ANSWERS).where(*mine)).scalar_one()),
        seconds=statistics.median(seconds) if seconds else None,
    )


def _latest_run(connection: sqlalchemy.Connection) -> str:
    heard = select(TRAINERS.c.run_id).order_by(TRAINERS.c.seen_at.desc()).limit(1)
    posted = select(PAIRS.c.run_id).order_by(PAIRS.c.id.desc()).limit(1)
    return str(connection.execute(heard).scalar() or connection.execute(posted).scalar() or "")


def waiting_in_words(now: Standing) -> str:
    """What a person without a pair waits for, as a sentence or two."""
    if now.spent:
        return f"Done: {now.answered} of {now.budget} labels are given. Thank you!"
    if now.held:
        return f"{_pairs(now.held)} {_verb(now.held)}, but others are answering {_them(now.held)}."
    if now.trainer is None:
        return "No pair waits. The next ones appear here by themselves."
    silent, seconds = now.trainer
    if silent > SILENT_SECONDS:
        return (
            f"No trainer for {_duration(silent)}. Every answer is stored; when the training is started again, its "
            "next pairs appear here."
        )
    doing = "Learning from the answers" if now.asked else "Exploring"
    soon = "" if seconds is None else f"; the next pairs come in about {_duration(max(seconds, 1))}"
    return f"{doing}{soon}. They appear here by themselves." if soon else f"{doing}. The next pairs appear here."


def counts_in_words(now: Standing) -> str:
    """How far the run and the person are, as a line."""
    parts = [f"{now.answered} of {now.budget} labels"] if now.budget else []
    parts += [f"{_pairs(now.waiting)} {_verb(now.waiting)}"] if now.waiting else []
    parts += [f"yours: {now.mine}"] if now.mine else []
    parts += [f"{now.seconds:.1f} s each"] if now.seconds is not None else []
    return " · ".join(parts)


def summary(database: Database, annotator: str, run_id: str) -> list[tuple[str, str]]:
    """What a person reads when the run's budget is spent: (name, value) of each line."""
    found = progress(database, annotator, run_id)
    chosen = select(ANSWERS.c.choice).join(PAIRS).where(PAIRS.c.run_id == run_id, ANSWERS.c.annotator == annotator)
    with database.transaction(reading=True) as connection:
        choices = connection.execute(chosen.where(ANSWERS.c.choice.is_not(None))).scalars().all()
    if not choices:
        return []
    lines = [("Your answers", f"{len(choices)}, {found.seconds:.1f} s each")]
    sides = [f"{choices.count(name)} {words}" for name, words in _SIDES.items() if name in choices]
    lines.append(("You chose", ", ".join(sides)))
    for name, opinion in (("Your repeats agree", found.repeats), ("The true reward agrees", found.oracle)):
        if opinion.pairs:
            lines.append((name, f"on {opinion.percent:.0f} % of {_pairs(opinion.pairs)}"))
    return lines


def recent_answers(database: Database, annotator: str, most: int) -> list[dict[str, Any]]:
    """A person's last answers, newest first: id, number, choice, and whether training has used it, so it is final."""
    final = PAIRS.c.closed_at.is_not(None) & (ANSWERS.c.purpose == "label")
    columns = ANSWERS.c.id, ANSWERS.c.number, ANSWERS.c.choice, final.label("final")
    given = ANSWERS.c.annotator == annotator, ANSWERS.c.choice.is_not(None), PAIRS.c.clip.is_not(None)
    query = select(*columns).join(PAIRS).where(*given).order_by(ANSWERS.c.number.desc()).limit(most)
    with database.transaction(reading=True) as connection:
        return [dict(row._mapping) | {"final": bool(row.final)} for row in connection.execute(query)]


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)}"


def _verb(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _duration(seconds: float) -> str:
    """Seconds in words; rounded, so that a screen reader is not told every second."""
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{max(1, round(seconds)) if seconds < 10 else 10 * round(seconds / 10)} s"
