"""Every label of a run with its provenance: who gave it, when, about which segments, and what the filter made of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas

from prefvlm_core.preferences.filters import Partition

COLUMNS = ("step", "session", "teacher", "first", "second", "label", "truth", "divergence", "partition")
TEACHERS = ("human", "vlm")
PARTITIONS = ("", *Partition._fields)


class LabelLog:
    """A table that only grows, one row per label.

    `rows` is (n, 9) float64 with the columns `COLUMNS`, so that a checkpoint is one array: teacher and partition are
    indices into `TEACHERS` and `PARTITIONS`, first and second the steps at which the two segments begin, label and
    truth P(second preferred) as the teacher and as the true reward say, divergence in nats (nan for the human, whose
    labels are not filtered). A VLM's label stands here as it was given, before the filter flips it, and once: in the
    session in which its pair was new.
    """

    def __init__(self) -> None:
        self.rows: npt.NDArray[np.float64] = np.empty((0, len(COLUMNS)))

    def add(
        self,
        step: int,
        session: int,
        teacher: str,
        starts: npt.NDArray[np.int64],
        labels: npt.ArrayLike,
        truth: npt.ArrayLike,
        divergences: npt.ArrayLike = np.nan,
        partition: npt.ArrayLike = 0,
    ) -> None:
        """Append the labels (n,) of pairs (n, 2), given by `teacher` in a session before environment step `step`."""
        columns = (step, session, TEACHERS.index(teacher), *starts.T, labels, truth, divergences, partition)
        new = np.stack([np.broadcast_to(np.asarray(column, np.float64), len(starts)) for column in columns], axis=1)
        self.rows = np.concatenate((self.rows, new))

    def frame(self) -> pandas.DataFrame:
        """The table as people read it, with names for teacher and partition."""
        table = pandas.DataFrame(self.rows, columns=list(COLUMNS))
        whole = ("step", "session", "teacher", "first", "second", "partition")
        table = table.astype({name: int for name in whole})
        table["teacher"] = table["teacher"].map(dict(enumerate(TEACHERS)))
        table["partition"] = table["partition"].map(dict(enumerate(PARTITIONS)))
        return table
