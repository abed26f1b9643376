"""How far a queue's labels agree: people with each other, with themselves, and with the true reward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas
from sqlalchemy import func, select

from prefvlm_core.labelling.database import ANSWERS, PAIRS, Database


class Agreement(NamedTuple):
    """Two opinions on the same pairs, those skipped by either left out."""

    pairs: int
    percent: float
    """Of pairs labelled alike; nan without pairs."""
    kappa: float
    """Cohen's κ (1960): agreement beyond chance, 1 at most; nan without pairs, and where chance alone gives 100 %."""


def agreement(first: Sequence[float | None], second: Sequence[float | None]) -> Agreement:
    """Of labels 0, 1/2, 1 in the same order; None and nan are skipped."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if not (pandas.isna(a) or pandas.isna(b))]
    if not both:
        return Agreement(0, math.nan, math.nan)
    same = sum(a == b for a, b in both) / len(both)
    shares = [[sum(pair[side] == label for pair in both) / len(both) for label in (0, 0.5, 1)] for side in (0, 1)]
    chance = sum(a * b for a, b in zip(*shares, strict=True))
    return Agreement(len(both), 100 * same, math.nan if chance == 1 else (same - chance) / (1 - chance))


def answers_table(database: Database, run_id: str = "") -> pandas.DataFrame:
    """One row per answer that stands: pair_id, run_id, truth, vlm_label, annotator, purpose, label (nan: skipped),
    seconds. Only of `run_id`, where it is given."""
    about_pair = [PAIRS.c[name] for name in ("run_id", "truth", "vlm_label")]
    columns = about_pair + [ANSWERS.c[name] for name in ("pair_id", "annotator", "purpose", "label", "seconds")]
    query = select(*columns).join(PAIRS, PAIRS.c.id == ANSWERS.c.pair_id).where(ANSWERS.c.choice.is_not(None))
    if run_id:
        query = query.where(PAIRS.c.run_id == run_id)
    with database.transaction(reading=True) as connection:
        rows = connection.execute(query.order_by(ANSWERS.c.id)).all()
    return pandas.DataFrame(rows, columns=[column.name for column in columns])


def agreement_table(database: Database, run_id: str = "") -> pandas.DataFrame:
    """Rows of first, second, pairs, percent, kappa. `second` is another person, the same one (repeats), or
    "true reward" or "VLM"."""
    answers = answers_table(database, run_id)
    own = answers[answers["purpose"] != "repeat"]
    rows: list[tuple[str, str, Agreement]] = []
    for name in sorted(own["annotator"].unique()):
        mine = own[own["annotator"] == name]
        rows.append((name, "true reward", agreement(mine["label"].tolist(), mine["truth"].tolist())))
        rows.append((name, "VLM", agreement(mine["label"].tolist(), mine["vlm_label"].tolist())))
        rows.append((name, f"{name} (repeats)", repeats(answers, name)))
    for first, second in itertools.combinations(sorted(own["annotator"].unique()), 2):
        rows.append((first, second, _of_common_pairs(*(own[own["annotator"] == name] for name in (first, second)))))
    shown = [(first, second, *values) for first, second, values in rows if values.pairs]
    return pandas.DataFrame(shown, columns=["first", "second", *Agreement._fields])


def repeats(answers: pandas.DataFrame, annotator: str) -> Agreement:
    """Of a person's repeats with what the same person said before."""
    mine = answers[answers["annotator"] == annotator]
    again = mine["purpose"] == "repeat"
    return _of_common_pairs(mine[~again], mine[again])


def _of_common_pairs(first: pandas.DataFrame, second: pandas.DataFrame) -> Agreement:
    common = first.merge(second, on="pair_id")
    return agreement(common["label_x"].tolist(), common["label_y"].tolist())


class Progress(NamedTuple):
    """Where the labelling of one run stands."""

    answered: int
    """Pairs that people have answered or skipped."""
    budget: int
    """Pairs that the run may ask in all."""
    mine: int
    """Answers of one annotator, with repeats and second opinions."""
    seconds: float | None
    """Median time that this annotator takes to answer; None before the first."""
    repeats: Agreement
    oracle: Agreement


def progress(database: Database, annotator: str, run_id: str) -> Progress:
    """Of one run and one annotator."""
    answers = answers_table(database, run_id)
    with database.transaction(reading=True) as connection:
        budget = connection.execute(select(func.max(PAIRS.c.budget)).where(PAIRS.c.run_id == run_id)).scalar()
    mine = answers[answers["annotator"] == annotator]
    own = mine[mine["purpose"] != "repeat"]
    return Progress(
        answered=int((answers["purpose"] == "label").sum()),
        budget=budget or 0,
        mine=len(mine),
        seconds=float(mine["seconds"].median()) if len(mine) else None,
        repeats=repeats(answers, annotator),
        oracle=agreement(own["label"].tolist(), own["truth"].tolist()),
    )


def status_table(database: Database, run_id: str = "") -> pandas.DataFrame:
    """One row per run and session: pairs asked, answered, skipped, open, withdrawn, and how long people took."""
    used = (ANSWERS.c.pair_id == PAIRS.c.id) & (ANSWERS.c.training == 1) & ANSWERS.c.choice.is_not(None)
    columns = PAIRS.c.run_id, PAIRS.c.session, PAIRS.c.closed_at, ANSWERS.c.choice, ANSWERS.c.label, ANSWERS.c.seconds
    query = select(*columns).select_from(PAIRS).join(ANSWERS, used, isouter=True)
    if run_id:
        query = query.where(PAIRS.c.run_id == run_id)
    with database.transaction(reading=True) as connection:
        rows = connection.execute(query.order_by(PAIRS.c.id)).all()
    table = pandas.DataFrame(rows, columns=[column.name for column in columns])
    table["answered"] = table["choice"].notna() & (table["choice"] != "skip")
    table["skipped"] = table["choice"] == "skip"
    table["open"] = table["choice"].isna() & table["closed_at"].isna()
    table["withdrawn"] = table["choice"].isna() & table["closed_at"].notna()
    grouped = table.groupby(["run_id", "session"], sort=False)
    counts = grouped[["answered", "skipped", "open", "withdrawn"]].sum()
    return counts.assign(seconds=grouped["seconds"].median()).reset_index()
