"""The label queue: training posts pairs of segments, people answer them, each in a process of their own.

A database holds the queue, so whatever is killed, an answer that was acknowledged is on the disk and counts once:

- A pair is named by (run_id, session, pair). Posting it again changes nothing: a resumed run finds its answers.
- Who wants to answer claims the pair first. A claim belongs to one window of one person and lapses after
  `LEASE_SECONDS` when somebody else wants the pair; only an answer under a claim that still stands is taken.
- A session of training takes all answers there are at once. From then on they are final, and the queue remembers which
  session took them. Pairs without an answer are withdrawn, or stay open to a later session.

What has to be unique is a unique key of the tables and order is a counter, so neither a race nor a clock that jumps can
lose or double an answer. Clocks only decide when a forgotten claim lapses.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.labelling.database import ANSWERS, LONGEST_NAME, PAIRS, Database

LEASE_SECONDS = 600.0
"""After that long without an answer, a claimed pair may go to somebody else."""
CHOICES = ("left", "right", "equal", "skip")
"""What a person can say; skip is "can't tell"."""
PURPOSES = ("label", "agreement", "repeat")
"""label: training uses the answer. agreement: a second opinion on somebody else's pair. repeat: the same person again,
on a pair answered before."""
Missing = Literal["wait", "leave", "withdraw"]
"""What becomes of pairs without an answer when training takes a session, see `LabelQueue.take`."""
REPEAT_DISTANCE = 5
"""Answers that must lie between a person's answer and its repeat."""


class Refused(PrefVLMError):
    """An answer or undo that came too late: the claim went to somebody else, or training has taken the session."""


@dataclass(frozen=True)
class Pair:
    """A pair as it is posted. `first` and `second`: environment steps at which the segments of `length` begin."""

    run_id: str
    session: int
    pair: int
    budget: int
    task: str
    text: str
    first: int
    second: int
    length: int
    frames: int
    clip: bytes | None
    vlm_label: float | None = None
    divergence: float | None = None
    partition: str = ""
    truth: float | None = None


@dataclass(frozen=True)
class Question:
    """A claimed pair, as one person sees it."""

    answer_id: int
    purpose: str
    swapped: bool
    """Whether the second segment stands left."""
    text: str
    frames: int
    clip: bytes
    vlm_label: float | None
    truth: float | None
    run_id: str
    session: int
    pair: int


@dataclass(frozen=True)
class Taken:
    """A pair that training takes, since somebody has answered or skipped it; names as in `Pair`."""

    session: int
    """In which it was posted."""
    pair: int
    first: int
    second: int
    vlm_label: float | None
    divergence: float | None
    label: float | None
    """P(second preferred); None for skipped."""


def label_of(choice: str, swapped: bool) -> float | None:
    """P(second segment preferred) that a choice means; None for skip. Raises `PrefVLMError` for no choice of ours."""
    if choice not in CHOICES:
        raise unknown_name("answer", choice, CHOICES)
    return {"left": float(swapped), "right": float(not swapped), "equal": 0.5, "skip": None}[choice]


class LabelQueue:
    """The queue in the database at `url`. Every method raises `PrefVLMError` when the database is locked for too long,
    full or gone, and then has changed nothing."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.transaction = self.database.transaction

    # ---- training

    def posted(self, run_id: str, session: int) -> dict[int, tuple[int, int]]:
        """Pairs of a session that are in the queue: their number -> where their two segments begin."""
        query = select(PAIRS.c.pair, PAIRS.c.first, PAIRS.c.second).where(_of_session(run_id, session))
        with self.transaction(reading=True) as connection:
            return {row.pair: (row.first, row.second) for row in connection.execute(query)}

    def post(self, pair: Pair) -> None:
        """Ask a pair; nothing happens where (run_id, session, pair) is in the queue already."""
        try:
            with self.transaction() as connection:
                connection.execute(PAIRS.insert().values(**vars(pair), posted_at=time.time()))
        except IntegrityError:
            pass

    def unanswered(self, run_id: str, session: int) -> int:
        """Pairs, posted by then, that people still have to answer for a session; 0 once training has taken it."""
        counted = select(func.count()).where(_undecided(run_id, session), ~_answered())
        with self.transaction(reading=True) as connection:
            return int(connection.execute(counted).scalar_one())

    def take(self, run_id: str, session: int, missing: Missing) -> list[Taken] | None:
        """End a session: the answers, final from now on, to pairs posted by then that no earlier session has taken; in
        the order of posting.

        missing: what to do where answers are. "wait": nothing changes, and the result is None. "leave": their pairs
        stay open to a later session. "withdraw": nobody can answer them any more. A session taken before gives the
        same again.
        """
        names = "session", "pair", "first", "second", "vlm_label", "divergence"
        given = select(*(PAIRS.c[name] for name in names), ANSWERS.c.label).join(ANSWERS)
        given = given.where(PAIRS.c.run_id == run_id, PAIRS.c.last_session == session, PAIRS.c.closed_at.is_not(None))
        given = given.where(ANSWERS.c.training == 1, ANSWERS.c.choice.is_not(None))
        with self.transaction() as connection:
            locked = select(PAIRS.c.id).where(_undecided(run_id, session)).order_by(PAIRS.c.id).with_for_update()
            undecided = connection.execute(locked).scalars().all()
            answered = connection.execute(select(PAIRS.c.id).where(PAIRS.c.id.in_(undecided), _answered()))
            closed = answered.scalars().all()
            if len(closed) < len(undecided):
                if missing == "wait":
                    return None
                if missing == "withdraw":
                    closed = undecided
            claimed = ANSWERS.c.pair_id.in_(closed), ANSWERS.c.training == 1, ANSWERS.c.choice.is_(None)
            connection.execute(delete(ANSWERS).where(*claimed))
            connection.execute(update(PAIRS).where(PAIRS.c.id.in_(undecided)).values(last_session=session))
            connection.execute(update(PAIRS).where(PAIRS.c.id.in_(closed)).values(closed_at=time.time()))
            return [Taken(*row) for row in connection.execute(given.order_by(PAIRS.c.session, PAIRS.c.pair))]

    def left_open(self, run_id: str, session: int) -> int:
        """Pairs that a session, when training took it, has left to later ones."""
        decided_later = sqlalchemy.or_(PAIRS.c.closed_at.is_(None), PAIRS.c.last_session > session)
        counted = select(func.count()).where(PAIRS.c.run_id == run_id, PAIRS.c.session <= session, decided_later)
        with self.transaction(reading=True) as connection:
            return int(connection.execute(counted).scalar_one())

    # ---- people

    def claim(self, annotator: str, window: str, purpose: str, held: Sequence[int]) -> Question | None:
        """The oldest pair that nobody else has for this purpose; None where there is none.

        A pair this window has claimed before and does not name among `held` (ids of answers) comes first.
        """
        for _ in range(20):  # attempts: on PostgreSQL two windows may choose the same pair, and one insert fails
            try:
                with self.transaction() as connection:
                    _drop_lapsed(connection, window)
                    mine = select(ANSWERS.c.id).where(
                        ANSWERS.c.window == window, ANSWERS.c.choice.is_(None), ANSWERS.c.purpose == purpose
                    )
                    found = connection.execute(
                        mine.where(ANSWERS.c.id.not_in(held)).order_by(ANSWERS.c.id).limit(1)
                    ).scalar()
                    found = found or _insert_claim(connection, annotator, window, purpose)
                    return None if found is None else _question(connection, found)
            except IntegrityError:
                continue
        return None

    def adopt(self, annotator: str, window: str) -> None:
        """Move a person's open claims to a new window: the old one is gone after a crash or reload, or has to wait."""
        mine = ANSWERS.c.annotator == annotator, ANSWERS.c.choice.is_(None)
        with self.transaction() as connection:
            connection.execute(update(ANSWERS).where(*mine).values(window=window, claimed_at=time.time()))

    def release(self, window: str) -> None:
        """Give back what a window has claimed and not answered."""
        with self.transaction() as connection:
            connection.execute(delete(ANSWERS).where(ANSWERS.c.window == window, ANSWERS.c.choice.is_(None)))

    def answer(self, question: Question, window: str, choice: str, seconds: float) -> None:
        """Store an answer; when this returns it is on the disk. Said twice, it counts once.

        Raises `Refused` where the claim has lapsed and gone, or training has taken the session.
        """
        label = label_of(choice, question.swapped)
        with self.transaction() as connection:
            row, final = _locked(connection, question.answer_id)
            if row is not None and (row.window, row.choice) == (window, choice):
                return
            if final or row is None or row.choice is not None or row.window != window:
                raise Refused("This pair was withdrawn or went to somebody else; your answer to it was not used.")
            number = select(func.coalesce(func.max(ANSWERS.c.number), 0) + 1).where(
                ANSWERS.c.annotator == row.annotator
            )
            values = {"choice": choice, "label": label, "seconds": seconds, "answered_at": time.time()}
            one = update(ANSWERS).where(ANSWERS.c.id == question.answer_id)
            connection.execute(one.values(number=connection.execute(number).scalar_one(), **values))

    def undo(self, annotator: str, window: str) -> Question | None:
        """Take the last answer that a person gave here back and ask it again; None where there is none. Raises
        `Refused` where training has used it."""
        last = (
            select(ANSWERS.c.id)
            .join(PAIRS, PAIRS.c.id == ANSWERS.c.pair_id)
            .where(ANSWERS.c.annotator == annotator, ANSWERS.c.choice.is_not(None), PAIRS.c.clip.is_not(None))
            .order_by(ANSWERS.c.number.desc())
            .limit(1)
        )
        with self.transaction() as connection:
            found = connection.execute(last).scalar()
            if found is None:
                return None
            row, final = _locked(connection, found)
            if final:
                raise Refused("Training has used your last answer already; it cannot be taken back.")
            empty = dict.fromkeys(("choice", "label", "seconds", "answered_at", "number"))
            values = empty | {"window": window, "claimed_at": time.time(), "undone": row.undone + 1}
            connection.execute(update(ANSWERS).where(ANSWERS.c.id == found).values(**values))
            return _question(connection, found)


class Annotator:
    """One person at one window: claims pairs, answers them, takes answers back.

    Every `repeat_every`-th question is one this person has answered before (0: none): it measures how constant a
    person is, and training does not use it. With `agreement` all questions are pairs that others have answered. A new
    window takes over the claims of the same person's other windows.
    """

    def __init__(self, queue: LabelQueue, name: str, repeat_every: int = 0, agreement: bool = False) -> None:
        if not 1 <= len(name.strip()) <= LONGEST_NAME:
            raise PrefVLMError(f"An annotator needs a name of 1 to {LONGEST_NAME} characters, got '{name}'.")
        self.queue, self.name, self.window = queue, name.strip(), secrets.token_hex(16)
        self.repeat_every, self.purpose = repeat_every, "agreement" if agreement else "label"
        self._claimed = 0
        queue.adopt(self.name, self.window)

    def claim(self, held: Sequence[Question] = ()) -> Question | None:
        """The next question, other than those `held` already; None where there is nothing to do now."""
        ids = [question.answer_id for question in held]
        self._claimed += 1
        question = None
        if self.repeat_every and self._claimed % self.repeat_every == 0:
            question = self.queue.claim(self.name, self.window, "repeat", ids)
        return question or self.queue.claim(self.name, self.window, self.purpose, ids)

    def answer(self, question: Question, choice: str, seconds: float) -> None:
        """See `LabelQueue.answer`."""
        self.queue.answer(question, self.window, choice, seconds)

    def undo(self) -> Question | None:
        """See `LabelQueue.undo`."""
        return self.queue.undo(self.name, self.window)

    def close(self) -> None:
        """Give back what is claimed."""
        self.queue.release(self.window)


def _of_session(run_id: str, session: int) -> sqlalchemy.ColumnElement[bool]:
    return sqlalchemy.and_(PAIRS.c.run_id == run_id, PAIRS.c.session == session)


def _undecided(run_id: str, session: int) -> sqlalchemy.ColumnElement[bool]:
    """Whether a session has still to take a pair or to go on without it."""
    posted = sqlalchemy.and_(PAIRS.c.run_id == run_id, PAIRS.c.session <= session)
    return sqlalchemy.and_(posted, PAIRS.c.closed_at.is_(None), PAIRS.c.last_session < session)


def _answered(**also: Any) -> sqlalchemy.ColumnElement[bool]:
    """Whether a pair has the answer that training uses."""
    by = [ANSWERS.c[name] == value for name, value in also.items()]
    conditions = ANSWERS.c.pair_id == PAIRS.c.id, ANSWERS.c.training == 1, ANSWERS.c.choice.is_not(None), *by
    return sqlalchemy.exists().where(*conditions).correlate(PAIRS)


def _drop_lapsed(connection: sqlalchemy.Connection, window: str) -> None:
    """Forget other windows' claims that are too old, or from a future that a corrected clock has undone."""
    now = time.time()
    lapsed = sqlalchemy.or_(ANSWERS.c.claimed_at < now - LEASE_SECONDS, ANSWERS.c.claimed_at > now + LEASE_SECONDS)
    connection.execute(delete(ANSWERS).where(ANSWERS.c.choice.is_(None), ANSWERS.c.window != window, lapsed))


def _insert_claim(connection: sqlalchemy.Connection, annotator: str, window: str, purpose: str) -> int | None:
    """Claim the oldest pair that is free for this purpose; returns the id of the new answer."""
    taken = sqlalchemy.exists().where(ANSWERS.c.pair_id == PAIRS.c.id, ANSWERS.c.purpose == purpose)
    chosen = select(PAIRS.c.id, PAIRS.c.run_id, PAIRS.c.session, PAIRS.c.pair).where(PAIRS.c.clip.is_not(None))
    if purpose == "label":
        chosen = chosen.where(PAIRS.c.closed_at.is_(None), ~taken.correlate(PAIRS))
    else:
        chosen = chosen.where(~taken.where(ANSWERS.c.annotator == annotator).correlate(PAIRS))
        if purpose == "agreement":
            chosen = chosen.where(_answered(), ~_answered(annotator=annotator))
        else:
            newest = select(func.max(ANSWERS.c.number)).where(ANSWERS.c.annotator == annotator)
            last = connection.execute(newest).scalar() or 0
            chosen = chosen.where(
                sqlalchemy.exists()
                .where(ANSWERS.c.pair_id == PAIRS.c.id, ANSWERS.c.annotator == annotator)
                .where(ANSWERS.c.purpose != "repeat", ANSWERS.c.number <= last - REPEAT_DISTANCE)
                .correlate(PAIRS)
            )
    pair = connection.execute(chosen.order_by(PAIRS.c.id).limit(1).with_for_update(skip_locked=True)).first()
    if pair is None:
        return None
    # Sides are drawn by a hash, so that they are balanced, the same in a repeated run, and new for a repeat.
    drawn = hashlib.sha256(f"{pair.run_id}/{pair.session}/{pair.pair}/{annotator}/{purpose}".encode()).digest()[0] & 1
    claim: Mapping[str, Any] = {
        "pair_id": pair.id,
        "training": 1 if purpose == "label" else None,
        "purpose": purpose,
        "annotator": annotator,
        "window": window,
        "claimed_at": time.time(),
        "swapped": drawn,
    }
    inserted = connection.execute(ANSWERS.insert().values(**claim)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def _locked(connection: sqlalchemy.Connection, answer_id: int) -> tuple[Any, bool]:
    """The answer, locked against other transactions (None where it is gone), and whether training has taken it."""
    pair_id = select(ANSWERS.c.pair_id).where(ANSWERS.c.id == answer_id).scalar_subquery()
    # The pair first, as in `take`: two transactions that lock in different order can wait for each other.
    closed_at = connection.execute(select(PAIRS.c.closed_at).where(PAIRS.c.id == pair_id).with_for_update()).scalar()
    row = connection.execute(select(ANSWERS).where(ANSWERS.c.id == answer_id).with_for_update()).first()
    return row, closed_at is not None and row is not None and row.training == 1


def _question(connection: sqlalchemy.Connection, answer_id: int) -> Question:
    names = ("text", "frames", "clip", "vlm_label", "truth", "run_id", "session", "pair")
    columns = ANSWERS.c.purpose, ANSWERS.c.swapped, *(PAIRS.c[name] for name in names)
    joined = select(*columns).join(PAIRS, PAIRS.c.id == ANSWERS.c.pair_id)
    row = connection.execute(joined.where(ANSWERS.c.id == answer_id)).one()
    return Question(answer_id, row.purpose, bool(row.swapped), *(row._mapping[name] for name in names))
