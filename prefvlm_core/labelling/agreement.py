"""Agreement of the labels in a queue: of people with each other, with themselves, with the VLM and the true reward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas
from sqlalchemy import func, select

from prefvlm_core.labelling.database import ANSWERS, IS_LABEL, PAIRS, Database


class Agreement(NamedTuple):
    """Agreement of two opinions on the same pairs, without those that either skipped."""

    pairs: int
    """Number of pairs that both labelled."""
    percent: float
    """Percentage of these pairs with equal labels; nan without pairs."""
    kappa: float
    """Cohen's κ (1960): agreement beyond chance, at most 1; nan without pairs, or if chance alone gives 100 %."""


def agreement(first: Sequence[float | None], second: Sequence[float | None]) -> Agreement:
    """Compare two lists of labels 0, 1/2 or 1 of the same pairs; a pair with None or nan in either is skipped."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if not (pandas.isna(a) or pandas.isna(b))]
    if not both:
        return Agreement(0, math.nan, math.nan)
    same = sum(a == b for a, b in both) / len(both)
    shares = [[sum(pair[side] == label for pair in both) / len(both) for label in (0, 0.5, 1)] for side in (0, 1)]
    chance = sum(a * b for a, b in zip(*shares, strict=True))
    return Agreement(len(both), 100 * same, math.nan if chance == 1 else (same - chance) / (1 - chance))


def answers_table(database: Database, run_id: str = "") -> pandas.DataFrame:
    """One row per answer (of one run, if `run_id` is given).

    Columns: run_id, truth, vlm_label, pair_id, annotator, purpose, label (nan if skipped), seconds.
    """
    about_pair = [PAIRS.c[name] for name in ("run_id", "truth", "vlm_label")]
    columns = about_pair + [ANSWERS.c[name] for name in ("pair_id", "annotator", "purpose", "label", "seconds")]
    query = select(*columns).join(PAIRS, PAIRS.c.id == ANSWERS.c.pair_id).where(ANSWERS.c.choice.is_not(None))
    if run_id:
        query = query.where(PAIRS.c.run_id == run_id)
    with database.transaction(reading=True) as connection:
        rows = connection.execute(query.order_by(ANSWERS.c.id)).all()
    return pandas.DataFrame(rows, columns=[column.name for column in columns])


def agreement_table(database: Database, run_id: str = "") -> pandas.DataFrame:
    """Agreement of each annotator with everybody else, one row per comparison that has pairs.

    Columns: first, second, pairs, percent, kappa. `second` is another annotator, the same one ("… (repeats)"), "true
    reward" or "VLM".
    """
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
    """Agreement of a person's repeats with the same person's earlier answers."""
    mine = answers[answers["annotator"] == annotator]
    again = mine["purpose"] == "repeat"
    return _of_common_pairs(mine[~again], mine[again])


def _of_common_pairs(first: pandas.DataFrame, second: pandas.DataFrame) -> Agreement:
    common = first.merge(second, on="pair_id")
    return agreement(common["label_x"].tolist(), common["label_y"].tolist())


class Progress(NamedTuple):
    """The state of the labeling of one run."""

    answered: int
    """Number of pairs that people have answered or skipped."""
    budget: int
    """Number of pairs that the run may ask in total."""
    mine: int
    """Number of answers of one annotator, including repeats and second opinions."""
    seconds: float | None
    """Median time that this annotator takes to answer; None before the first answer."""
    repeats: Agreement
    """Of this annotator's repeats with the first answers."""
    oracle: Agreement
    """Of this annotator with the true reward."""


def progress(database: Database, annotator: str, run_id: str) -> Progress:
    """The progress of one annotator in one run."""
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
    """One row per run and session (of one run, if `run_id` is given).

    Columns: run_id, session, the number of pairs answered, skipped, open and withdrawn, and the median seconds that an
    answer took.
    """
    used = (ANSWERS.c.pair_id == PAIRS.c.id) & IS_LABEL
    columns = PAIRS.c.run_id, PAIRS.c.session, PAIRS.c.closed_at, ANSWERS.c.choice, ANSWERS.c.label, ANSWERS.c.seconds
    query = select(*columns).select_from(PAIRS).join(ANSWERS, used, isouter=True)
    if run_id:
        query = query.where(PAIRS.c.run_id == run_id)
    with database.transaction(reading=True) as connection:
        rows = connection.execute(query.order_by(PAIRS.c.id)).all()
    table = pandas.DataFrame(rows, columns=[column.name for column in columns]).astype({"seconds": float})
    table["answered"] = table["choice"].notna() & (table["choice"] != "skip")
    table["skipped"] = table["choice"] == "skip"
    table["open"] = table["choice"].isna() & table["closed_at"].isna()
    table["withdrawn"] = table["choice"].isna() & table["closed_at"].notna()
    grouped = table.groupby(["run_id", "session"], sort=False)
    counts = grouped[["answered", "skipped", "open", "withdrawn"]].sum()
    return counts.assign(seconds=grouped["seconds"].median()).reset_index()
