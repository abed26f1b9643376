"""Embeddings of frames on disk, so that each step of each run is rendered and embedded at most once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError

Embed = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""(run of each frame (K,), step of each frame (K,)) -> embeddings (K, D)."""


class FeatureCache:
    """A ring of the last `capacity` steps of each run, in one memory-mapped file of float16.

    The file is named by the model's fingerprint and its sizes, and found again by a resumed fleet; a process killed
    while writing leaves entries that count as absent. It grows to runs × capacity × (8 + 2 D) bytes at most.

    Args:
        folder: Belongs to one fleet: runs and steps mean the same frames in it for ever. Made where missing.
        fingerprint: `VisionLanguageModel.fingerprint`.
        runs: Runs in the fleet.
        capacity: Steps kept per run; the replay's capacity suffices.
        dimension: D, the length of an embedding.
    """

    def __init__(self, folder: Path, fingerprint: str, runs: int, capacity: int, dimension: int) -> None:
        for name, value in (("runs", runs), ("capacity", capacity), ("dimension", dimension)):
            if value < 1:
                raise PrefVLMError(f"A feature cache needs at least 1 of {name}, got {value}.")
        self.path = folder / f"frames-{fingerprint.replace(':', '-')}-{runs}x{capacity}x{dimension}.bin"
        entry = np.dtype([("feature", "<f2", dimension), ("step_plus_1", "<i8")])  # 0, as in a new file: absent
        size = runs * capacity * entry.itemsize
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(size)
            self._entries = np.memmap(self.path, entry, "r+", shape=(runs, capacity))
        except OSError as error:
            raise PrefVLMError(
                f"Cannot keep {size / 1e6:.0f} MB of features in {self.path}: {error.strerror}."
            ) from error

    def get(self, runs: NDArray[np.int64], steps: NDArray[np.int64], embed: Embed) -> NDArray[np.float32]:
        """Embeddings (K, D) float32 of the frames of `runs` (K,) at `steps` (K,), counted from a run's first step.

        Absent ones are asked of `embed` in one call, each once, ordered by run and step, and kept. All are rounded to
        float16, whether they were kept before or not. Raises PrefVLMError for runs or steps out of range, for steps
        that do not fit the ring together, and for embeddings of another shape or that are not finite.
        """
        count, capacity = self._entries.shape
        if runs.shape != steps.shape or runs.ndim != 1:
            raise PrefVLMError(f"Runs and steps must be of one shape (K,), got {runs.shape} and {steps.shape}.")
        if len(runs) and not (0 <= runs.min() and runs.max() < count and 0 <= steps.min()):
            raise PrefVLMError(f"Runs must be 0 to {count - 1} and steps at least 0, got {runs} and {steps}.")
        wanted = np.unique(np.stack([runs, steps], axis=1), axis=0)
        slots = np.stack([wanted[:, 0], wanted[:, 1] % capacity], axis=1)
        if len(np.unique(slots, axis=0)) < len(wanted):
            raise PrefVLMError(
                f"Steps of one run lie {capacity} or more apart, but the cache keeps {capacity} per run."
            )
        absent = wanted[self._entries["step_plus_1"][slots[:, 0], slots[:, 1]] != wanted[:, 1] + 1]
        if len(absent):
            self._keep(absent[:, 0], absent[:, 1], embed(absent[:, 0], absent[:, 1]))
        return self._entries["feature"][runs, steps % capacity].astype(np.float32)

    def _keep(self, runs: NDArray[np.int64], steps: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        expected = (len(runs), *self._entries.dtype["feature"].shape)
        if features.shape != expected or not np.isfinite(features).all():
            raise PrefVLMError(
                f"Embeddings must be finite and of shape {expected}, got shape {features.shape}, "
                f"{np.count_nonzero(~np.isfinite(features))} values not finite."
            )
        slots = steps % self._entries.shape[1]
        self._entries["step_plus_1"][runs, slots] = 0  # so that a half-written entry counts as absent
        self._entries["feature"][runs, slots] = features
        self._entries["step_plus_1"][runs, slots] = steps + 1
