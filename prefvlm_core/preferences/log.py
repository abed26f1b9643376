"""The label log: every label of a run with its teacher, its session, its segments and the filter's decision."""

from __future__ import annotations

import numpy as np
import pandas
from numpy.typing import ArrayLike

from prefvlm_core.common.arrays import DoubleArray, IntArray
from prefvlm_core.preferences.filters import Partition

COLUMNS = ("step", "session", "teacher", "first", "second", "label", "truth", "divergence", "partition")
LABELED_BY = ("human", "vlm")
PARTITIONS = ("", *Partition._fields)


class LabelLog:
    """A table with one row per label, to which rows are only ever appended.

    `rows` is (n, 9) float64 with the columns `COLUMNS`, so that a checkpoint holds it as one array:
        step, session: When the label was given.
        teacher, partition: Indices into `LABELED_BY` and `PARTITIONS`.
        first, second: The steps at which the two segments begin.
        label, truth: P(second preferred) according to the teacher and to the true reward.
        divergence: In nats; nan for the human, whose labels are not filtered.

    A label of the VLM is logged as it was given, before the filter may flip it, and only once: in the session in which
    its pair was new.
    """

    def __init__(self) -> None:
        self.rows: DoubleArray = np.empty((0, len(COLUMNS)))

    def add(
        self,
        step: int,
        session: int,
        teacher: str,
        starts: IntArray,
        labels: ArrayLike,
        truth: ArrayLike,
        divergences: ArrayLike = np.nan,
        partition: ArrayLike = 0,
    ) -> None:
        """Append labels (n,) of pairs `starts` (n, 2), which `teacher` gave in a session before step `step`."""
        columns = (step, session, LABELED_BY.index(teacher), *starts.T, labels, truth, divergences, partition)
        new = np.stack([np.broadcast_to(np.asarray(column, np.float64), len(starts)) for column in columns], axis=1)
        self.rows = np.concatenate((self.rows, new))

    def frame(self) -> pandas.DataFrame:
        """The log as a table, with names in place of the indices of teacher and partition."""
        table = pandas.DataFrame(self.rows, columns=list(COLUMNS))
        whole = ("step", "session", "teacher", "first", "second", "partition")
        table = table.astype({name: int for name in whole})
        table["teacher"] = table["teacher"].map(dict(enumerate(LABELED_BY)))
        table["partition"] = table["partition"].map(dict(enumerate(PARTITIONS)))
        return table
