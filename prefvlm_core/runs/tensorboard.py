"""A run's metrics as TensorBoard curves, written while it is trained; nothing ever reads them back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.directory import RunDirectory

FOLDER = "tensorboard"
"""In the run's folder; `tensorboard --logdir results` finds the folders of all runs."""


@contextmanager
def curves_of(runs: Sequence[RunDirectory]) -> Iterator[None]:
    """Let each run write its curves with its metrics. Raises `PrefVLMError` where TensorBoard is not installed."""
    with ExitStack() as opened:
        for run in runs:
            run.curves = LiveCurves(run)
            opened.callback(setattr, run, "curves", None)
            opened.callback(run.curves.close)
        yield


class LiveCurves:
    """One curve for each column of the metrics, over environment steps.

    The first call of a training writes all rows anew, in place of what an earlier training left: a run that goes on
    from a checkpoint repeats the evaluations since then, and would have two points for each of them.
    """

    def __init__(self, run: RunDirectory) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / FOLDER
        for left in folder.glob("events.*"):
            left.unlink()
        self._writer = SummaryWriter(str(folder))
        self._action_repeat, self._written = run.config.action_repeat, 0

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Add those of all rows of the metrics so far that are new; they are on the disk when this returns."""
        for row in rows[self._written :]:
            step = round(row["step"]) * self._action_repeat
            for name, value in row.items():
                if name != "step" and math.isfinite(value):
                    self._writer.add_scalar(name, value, step)
        self._written = len(rows)
        self._writer.flush()

    def close(self) -> None:
        """End the thread that writes."""
        self._writer.close()


def check_tensorboard() -> None:
    """Raise `PrefVLMError` where TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise PrefVLMError(
            f"TensorBoard cannot be imported ({error}); install it with: pip install 'prefvlm[tensorboard]', or train "
            "without tensorboard."
        ) from error
