"""The label queue: training posts pairs of segments and people answer them, each in a process of their own.

A database holds the queue, so whichever process is killed, an acknowledged answer is on the disk and counts once:

- A pair is identified by (run_id, session, pair). Posting it again changes nothing: a resumed run finds its answers.
- To answer a pair, a person claims it first. A claim belongs to one window of one person and lapses after
  `LEASE_SECONDS` if somebody else wants the pair. An answer is accepted only while its claim is valid.
- A session of training takes all existing answers at once. From then on they are final, and the queue remembers which
  session took them. Pairs without an answer are withdrawn or stay open for a later session.

Uniqueness is guaranteed by unique keys of the tables and order by a counter, so neither a race nor a clock that jumps
can lose or double an answer. Clocks only decide when a forgotten claim lapses.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import delete, func, select, update

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.labelling.database import ANSWERS, IS_LABEL, PAIRS, Conflict, Database

LEASE_SECONDS = 600.0
"""How long a claim without an answer keeps a pair from everybody else."""
CHOICES = ("left", "right", "equal", "skip")
"""The possible answers; "skip" means "can't tell"."""
PURPOSES = ("label", "agreement", "repeat")
"""label: training uses the answer. agreement: a second opinion on a pair that somebody else has answered. repeat: a
person's second answer to the same pair."""
OF_NO_RUN = ("clips/", "imported/")
"""How the `run_id` of pairs begins that no run has posted, but `label_pairs` or an import; their task is any text."""
UnansweredPolicy = Literal["wait", "leave", "withdraw"]
"""What happens to pairs without an answer when training takes a session; see `LabelQueue.take`."""
REPEAT_DISTANCE = 5
"""The number of a person's answers that must lie between an answer and its repeat."""


class AnswerRejected(PrefVLMError):
    """An answer or undo came too late: the claim went to somebody else, or training has taken the session."""


@dataclass(frozen=True)
class Pair:
    """A pair of segments as training posts it; the columns of `database.PAIRS` describe the fields."""

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
    """A claimed pair as one person sees it."""

    answer_id: int
    purpose: str
    swapped: bool
    """Whether the second segment is shown on the left."""
    text: str
    frames: int
    clip: bytes
    vlm_label: float | None
    truth: float | None
    run_id: str
    session: int
    pair: int


@dataclass(frozen=True)
class ClosedPair:
    """A pair that training takes because somebody has answered or skipped it; fields are named as in `Pair`."""

    session: int
    """The session in which the pair was posted."""
    pair: int
    first: int
    second: int
    vlm_label: float | None
    divergence: float | None
    label: float | None
    """P(second preferred); None if skipped."""


def label_of(choice: str, swapped: bool) -> float | None:
    """P(second segment preferred) that a choice expresses; None for "skip".

    `swapped` says whether the second segment is shown on the left. Raises `PrefVLMError` for a choice not in `CHOICES`.
    """
    if choice not in CHOICES:
        raise unknown_name("answer", choice, CHOICES)
    return {"left": float(swapped), "right": float(not swapped), "equal": 0.5, "skip": None}[choice]


class LabelQueue:
    """The queue in the database at `url`; see `Database` for `create` and for the errors of opening it.

    Every method raises `PrefVLMError` if the database is locked for too long, full or gone, and then changes nothing.
    """

    def __init__(self, url: str | sqlalchemy.URL, create: bool = True) -> None:
        self.database = Database(url, create)
        self.transaction = self.database.transaction

    # ---- training

    def posted(self, run_id: str, session: int) -> dict[int, tuple[int, int]]:
        """The pairs of a session in the queue: number of the pair -> first steps of its two segments."""
        query = select(PAIRS.c.pair, PAIRS.c.first, PAIRS.c.second).where(_of_session(run_id, session))
        with self.transaction(reading=True) as connection:
            return {row.pair: (row.first, row.second) for row in connection.execute(query)}

    def post(self, pair: Pair) -> None:
        """Add a pair; nothing happens if (run_id, session, pair) is in the queue already."""
        try:
            with self.transaction() as connection:
                connection.execute(PAIRS.insert().values(**vars(pair), posted_at=time.time()))
        except Conflict:
            pass

    def unanswered(self, run_id: str, session: int) -> int:
        """The number of pairs posted up to a session that still need an answer; 0 once training has taken it."""
        counted = select(func.count()).where(_undecided(run_id, session), ~_has_answer(IS_LABEL))
        with self.transaction(reading=True) as connection:
            return int(connection.execute(counted).scalar_one())

    def take(self, run_id: str, session: int, unanswered: UnansweredPolicy) -> list[ClosedPair] | None:
        """End a session and return its answered pairs, in the order of posting; their answers are final from now on.

        These are all pairs posted up to this session that no earlier session has taken. Taking a session again returns
        the same pairs.

        Args:
            run_id: The run.
            session: The session, counted from 1.
            unanswered: What to do if some pairs have no answer. "wait": change nothing and return None. "leave": keep
                these pairs open for a later session. "withdraw": close them, so that nobody can answer them anymore.
        """
        columns = [PAIRS.c[name] for name in ("session", "pair", "first", "second", "vlm_label", "divergence")]
        taken = PAIRS.c.run_id == run_id, PAIRS.c.last_session == session, PAIRS.c.closed_at.is_not(None)
        answered = select(*columns, ANSWERS.c.label).join(ANSWERS).where(*taken, IS_LABEL)
        with self.transaction() as connection:
            of_session = select(PAIRS.c.id).where(_undecided(run_id, session)).order_by(PAIRS.c.id).with_for_update()
            undecided = connection.execute(of_session).scalars().all()
            with_answer = select(PAIRS.c.id).where(PAIRS.c.id.in_(undecided), _has_answer(IS_LABEL))
            closed = connection.execute(with_answer).scalars().all()
            if len(closed) < len(undecided):
                if unanswered == "wait":
                    return None
                if unanswered == "withdraw":
                    closed = undecided
            claimed = ANSWERS.c.pair_id.in_(closed), ANSWERS.c.purpose == "label", ANSWERS.c.choice.is_(None)
            connection.execute(delete(ANSWERS).where(*claimed))
            connection.execute(update(PAIRS).where(PAIRS.c.id.in_(undecided)).values(last_session=session))
            connection.execute(update(PAIRS).where(PAIRS.c.id.in_(closed)).values(closed_at=time.time()))
            rows = connection.execute(answered.order_by(PAIRS.c.session, PAIRS.c.pair))
            return [ClosedPair(**row._mapping) for row in rows]

    def left_open(self, run_id: str, session: int) -> int:
        """The number of pairs that a session left open for later ones when training took it."""
        decided_later = sqlalchemy.or_(PAIRS.c.closed_at.is_(None), PAIRS.c.last_session > session)
        counted = select(func.count()).where(PAIRS.c.run_id == run_id, PAIRS.c.session <= session, decided_later)
        with self.transaction(reading=True) as connection:
            return int(connection.execute(counted).scalar_one())

    # ---- people

    def claim(self, annotator: str, window: str, purpose: str, held: Sequence[int]) -> Question | None:
        """Claim the oldest pair that is free for this purpose; None if there is none.

        A pair that this window has claimed before and does not list in `held` (ids of answers) comes first.
        """
        for _ in range(20):  # attempts: on PostgreSQL two windows may choose the same pair, and one insert then fails
            try:
                with self.transaction() as connection:
                    _drop_lapsed(connection, window)
                    mine = ANSWERS.c.window == window, ANSWERS.c.choice.is_(None), ANSWERS.c.purpose == purpose
                    oldest = select(ANSWERS.c.id).where(*mine, ANSWERS.c.id.not_in(held)).order_by(ANSWERS.c.id)
                    found = connection.execute(oldest.limit(1)).scalar()
                    found = found or _insert_claim(connection, annotator, window, purpose)
                    return None if found is None else _question(connection, found)
            except Conflict:
                continue
        return None

    def adopt(self, annotator: str, window: str) -> None:
        """Move a person's open claims to a new window, since a crash or a reload may have ended the old one."""
        mine = ANSWERS.c.annotator == annotator, ANSWERS.c.choice.is_(None)
        with self.transaction() as connection:
            connection.execute(update(ANSWERS).where(*mine).values(window=window, claimed_at=time.time()))

    def release(self, window: str) -> None:
        """Give back what a window has claimed but not answered."""
        with self.transaction() as connection:
            connection.execute(delete(ANSWERS).where(ANSWERS.c.window == window, ANSWERS.c.choice.is_(None)))

    def answer(self, question: Question, window: str, choice: str, seconds: float, saw_guess: bool = False) -> None:
        """Store an answer, which is on the disk when this returns. Storing the same answer again has no effect.

        `saw_guess` says whether the person saw the VLM's label of the pair.

        Raises `AnswerRejected` if the claim has lapsed and gone to somebody else, or training has taken the session,
        and `PrefVLMError` if `seconds` is no duration.
        """
        label = label_of(choice, question.swapped)
        if not 0 <= seconds < math.inf:
            raise PrefVLMError(f"seconds must be a finite number of at least 0, got {seconds}.")
        with self.transaction() as connection:
            row, final = _locked(connection, question.answer_id)
            if row is not None and (row.window, row.choice) == (window, choice):
                return
            if final or row is None or row.choice is not None or row.window != window:
                raise AnswerRejected("This pair was withdrawn or went to somebody else; your answer was not used.")
            values = {"choice": choice, "label": label, "seconds": seconds, "answered_at": time.time()}
            values |= {"number": _newest_number(connection, row.annotator) + 1, "saw_guess": int(saw_guess)}
            connection.execute(update(ANSWERS).where(ANSWERS.c.id == question.answer_id).values(**values))

    def undo(self, annotator: str, window: str, answer_id: int | None = None) -> Question | None:
        """Take a person's answer back, by default the last, and return its question; None if there is no such answer.

        Raises `AnswerRejected` if training has used the answer.
        """
        wanted = ANSWERS.c.id == answer_id if answer_id is not None else sqlalchemy.true()
        given = (
            select(ANSWERS.c.id)
            .join(PAIRS, PAIRS.c.id == ANSWERS.c.pair_id)
            .where(ANSWERS.c.annotator == annotator, ANSWERS.c.choice.is_not(None), PAIRS.c.clip.is_not(None), wanted)
        )
        with self.transaction() as connection:
            found = connection.execute(given.order_by(ANSWERS.c.number.desc()).limit(1)).scalar()
            if found is None:
                return None
            row, final = _locked(connection, found)
            if final:
                raise AnswerRejected("Training has used this answer already; it cannot be taken back.")
            empty = dict.fromkeys(("choice", "label", "seconds", "answered_at", "number"))
            values = {"window": window, "claimed_at": time.time(), "undone": row.undone + 1, "saw_guess": 0} | empty
            connection.execute(update(ANSWERS).where(ANSWERS.c.id == found).values(**values))
            return _question(connection, found)


def _of_session(run_id: str, session: int) -> sqlalchemy.ColumnElement[bool]:
    return sqlalchemy.and_(PAIRS.c.run_id == run_id, PAIRS.c.session == session)


def _undecided(run_id: str, session: int) -> sqlalchemy.ColumnElement[bool]:
    """Whether a session has yet to take a pair or to continue without it."""
    posted = sqlalchemy.and_(PAIRS.c.run_id == run_id, PAIRS.c.session <= session)
    return sqlalchemy.and_(posted, PAIRS.c.closed_at.is_(None), PAIRS.c.last_session < session)


def _has_answer(*conditions: sqlalchemy.ColumnElement[bool]) -> sqlalchemy.ColumnElement[bool]:
    """Whether a pair has an answer, or a claim, that meets all conditions."""
    return sqlalchemy.exists().where(ANSWERS.c.pair_id == PAIRS.c.id, *conditions).correlate(PAIRS)


def _drop_lapsed(connection: sqlalchemy.Connection, window: str) -> None:
    """Forget other windows' claims that are too old, or lie in the future because a clock was set back."""
    now = time.time()
    lapsed = sqlalchemy.or_(ANSWERS.c.claimed_at < now - LEASE_SECONDS, ANSWERS.c.claimed_at > now + LEASE_SECONDS)
    connection.execute(delete(ANSWERS).where(ANSWERS.c.choice.is_(None), ANSWERS.c.window != window, lapsed))


def _insert_claim(connection: sqlalchemy.Connection, annotator: str, window: str, purpose: str) -> int | None:
    """Claim the oldest pair that is free for this purpose and return the id of the new answer; None without one."""
    free = PAIRS.c.clip.is_not(None), _is_free(connection, annotator, purpose)
    oldest = select(PAIRS.c.id, PAIRS.c.run_id, PAIRS.c.session, PAIRS.c.pair).where(*free).order_by(PAIRS.c.id)
    pair = connection.execute(oldest.limit(1).with_for_update(skip_locked=True)).first()
    if pair is None:
        return None
    # A hash decides the sides, so that they are balanced, equal in a repeated run, and drawn anew for a repeat.
    swapped = hashlib.sha256(f"{pair.run_id}/{pair.session}/{pair.pair}/{annotator}/{purpose}".encode()).digest()[0] & 1
    claim = {"purpose": purpose, "annotator": annotator, "window": window, "claimed_at": time.time()}
    inserted = connection.execute(ANSWERS.insert().values(pair_id=pair.id, swapped=swapped, **claim))
    assert inserted.inserted_primary_key is not None
    return int(inserted.inserted_primary_key[0])


def _is_free(connection: sqlalchemy.Connection, annotator: str, purpose: str) -> sqlalchemy.ColumnElement[bool]:
    """Whether a person may claim a pair for this purpose."""
    mine = ANSWERS.c.annotator == annotator
    same_purpose = ANSWERS.c.purpose == purpose
    if purpose == "label":
        return PAIRS.c.closed_at.is_(None) & ~_has_answer(same_purpose)
    new_to_me = ~_has_answer(same_purpose, mine)
    if purpose == "agreement":
        return new_to_me & _has_answer(IS_LABEL) & ~_has_answer(IS_LABEL, mine)
    long_ago = ANSWERS.c.number <= _newest_number(connection, annotator) - REPEAT_DISTANCE
    return new_to_me & _has_answer(mine, ANSWERS.c.purpose != "repeat", long_ago)


def _newest_number(connection: sqlalchemy.Connection, annotator: str) -> int:
    """The number of a person's last answer; 0 before the first."""
    newest = select(func.coalesce(func.max(ANSWERS.c.number), 0)).where(ANSWERS.c.annotator == annotator)
    return int(connection.execute(newest).scalar_one())


def _locked(connection: sqlalchemy.Connection, answer_id: int) -> tuple[Any, bool]:
    """The answer, locked against other transactions (None if it is gone), and whether training has taken it."""
    pair_id = select(ANSWERS.c.pair_id).where(ANSWERS.c.id == answer_id).scalar_subquery()
    # The pair is locked first, as in `take`: transactions that lock in different orders can deadlock.
    closed_at = connection.execute(select(PAIRS.c.closed_at).where(PAIRS.c.id == pair_id).with_for_update()).scalar()
    row = connection.execute(select(ANSWERS).where(ANSWERS.c.id == answer_id).with_for_update()).first()
    return row, closed_at is not None and row is not None and row.purpose == "label"


def _question(connection: sqlalchemy.Connection, answer_id: int) -> Question:
    names = ("text", "frames", "clip", "vlm_label", "truth", "run_id", "session", "pair")
    columns = ANSWERS.c.purpose, ANSWERS.c.swapped, *(PAIRS.c[name] for name in names)
    joined = select(*columns).join(PAIRS, PAIRS.c.id == ANSWERS.c.pair_id)
    row = connection.execute(joined.where(ANSWERS.c.id == answer_id)).one()
    return Question(**(dict(row._mapping) | {"answer_id": answer_id, "swapped": bool(row.swapped)}))
