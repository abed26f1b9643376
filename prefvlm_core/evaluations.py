"""The evaluations of a fleet, and the rows of metrics.csv in which they end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prefvlm_core.agent.evaluation import Evaluator
from prefvlm_core.common.arrays import DoubleArray
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.feedback import Feedback
from prefvlm_core.runs.directory import RunDirectory

Row = dict[str, float]


@dataclass
class Progress:
    """The number of updates of a fleet, and the metrics of each run."""

    updates: int
    """Gradient updates of every run so far."""
    session_metrics: list[Row]
    """For each run, the columns for metrics.csv of its latest feedback session."""
    metrics: list[list[Row]]
    """For each run, the rows of metrics.csv so far."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and values of a checkpoint."""
        return {}, dataclasses.asdict(self)

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.updates, self.session_metrics = values["updates"], values["session_metrics"]
        self.metrics = values["metrics"]


@dataclass(frozen=True)
class _Begun:
    """An evaluation that has begun."""

    step: int
    outcome: Future[dict[str, DoubleArray]]
    """See `Evaluator.begin`."""
    columns: Sequence[Row]
    """For each run, what metrics.csv says of this step besides."""


class Evaluations:
    """Evaluates the agents of a fleet, adds what comes of it to `progress`, and writes the metrics and the labels."""

    def __init__(
        self,
        evaluator: Evaluator,
        progress: Progress,
        directories: Sequence[RunDirectory],
        feedback: Sequence[Feedback],
        stopwatch: Stopwatch,
    ) -> None:
        self.evaluator, self.progress, self.stopwatch = evaluator, progress, stopwatch
        self.directories, self.feedback = directories, feedback
        self._begun: _Begun | None = None

    def begin(self, step: int, episodes: int, columns: Sequence[Row]) -> None:
        """Evaluate the agents as they are now, in so many `episodes` each; `columns` are what the row of each run says
        besides. Where evaluations take place beside training, it goes on when this returns."""
        self.end()
        with self.stopwatch("evaluation"):
            self._begun = _Begun(step, self.evaluator.begin(episodes), columns)
        self.collect()

    def collect(self) -> None:
        """Write the rows of the evaluation that is under way if it has ended meanwhile."""
        if self._begun is not None and self._begun.outcome.done():
            self.end()

    def end(self) -> None:
        """Wait for the evaluation that is under way, if there is one, and write its rows."""
        if self._begun is None:
            return
        with self.stopwatch("evaluation"):
            outcome = self._begun.outcome.result()
        for run, columns in enumerate(self._begun.columns):
            evaluated = {name: float(values[run]) for name, values in outcome.items()}
            row = {"step": self._begun.step} | evaluated | columns | self.stopwatch.columns()
            self.progress.metrics[run].append(row)
        self._begun = None
        self.write()

    def write(self) -> None:
        """Write the metrics and the labels so far, whatever the files hold."""
        for directory, feedback, metrics in zip(self.directories, self.feedback, self.progress.metrics, strict=True):
            if metrics:
                directory.write_metrics(metrics)
            if len(feedback.labels.log.rows):
                directory.write_labels(feedback.labels.log.frame())
