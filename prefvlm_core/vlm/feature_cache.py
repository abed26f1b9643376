"""A cache of frame embeddings on disk, so that each step of each run is rendered and embedded at most once."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.arrays import FloatArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.files import make_folder

Embed = Callable[[IntArray, IntArray], FloatArray]
"""Maps the run (K,) and the step (K,) of each frame to its embedding (K, D)."""


class FeatureCache:
    """A ring buffer of the last `capacity` steps of each run, in one memory-mapped file of float16.

    The file is named after the model's fingerprint and the cache's sizes, so a resumed fleet finds it again. Entries
    whose checksum is wrong count as absent: a killed process has half written them, a bit has flipped, or they were
    made of another frame, because a fleet resumed on another processor has gone another way since its checkpoint. The
    file takes runs × capacity × (8 + 2 D) bytes.

    Args:
        folder: Folder of one fleet; created if missing.
        fingerprint: `VisionLanguageModel.fingerprint`.
        runs: Number of runs in the fleet.
        capacity: Number of steps kept per run; the replay's capacity suffices.
        dimension: D, the length of an embedding.

    Raises:
        PrefVLMError: Where the file does not fit on the disk.
    """

    def __init__(self, folder: Path, fingerprint: str, runs: int, capacity: int, dimension: int) -> None:
        for name, value in (("runs", runs), ("capacity", capacity), ("dimension", dimension)):
            if value < 1:
                raise PrefVLMError(f"A feature cache needs {name} of at least 1, got {value}.")
        self.path = folder / f"frames-{fingerprint.replace(':', '-')}-{runs}x{capacity}x{dimension}.bin"
        entry = np.dtype([("feature", "<f2", dimension), ("checksum", "<u8")])
        size = runs * capacity * entry.itemsize
        try:
            make_folder(folder)
            with self.path.open("ab") as file:
                file.truncate(size)
                _reserve(file.fileno(), size)
            self._entries = np.memmap(self.path, entry, "r+", shape=(runs, capacity))
        except OSError as error:
            with suppress(OSError):  # a part of a cache is of no use
                self.path.unlink()
            raise PrefVLMError(
                f"Cannot keep {size / 1e6:.1f} MB of features in {self.path}: {error.strerror}; free some space, or "
                "choose another results folder."
            ) from error

    def get(self, runs: IntArray, steps: IntArray, shown: FloatArray, embed: Embed) -> FloatArray:
        """Embeddings (K, D) float32 of the frames of `runs` (K,) at `steps` (K,), counted from a run's first step.

        `shown` (K, S) float32 is all that the frames show, and tells apart those that one step had on two ways. Absent
        ones are computed in one call of `embed`, each once and in the order of run and step, and stored. All are
        rounded to float16, whether they were stored before or not. Raises PrefVLMError for runs or steps out of range,
        for steps that do not fit into the ring together, and for embeddings of another shape or that are not finite.
        """
        count, capacity = self._entries.shape
        if runs.shape != steps.shape or runs.ndim != 1:
            raise PrefVLMError(f"Runs and steps must be of one shape (K,), got {runs.shape} and {steps.shape}.")
        if len(runs) and not (0 <= runs.min() and runs.max() < count and 0 <= steps.min()):
            raise PrefVLMError(f"Runs must be 0 to {count - 1} and steps at least 0, got {runs} and {steps}.")
        wanted, first = np.unique(np.stack([runs, steps], axis=1), axis=0, return_index=True)
        slots = np.stack([wanted[:, 0], wanted[:, 1] % capacity], axis=1)
        if len(np.unique(slots, axis=0)) < len(wanted):
            raise PrefVLMError(
                f"Steps of one run lie {capacity} or more apart, but the cache keeps {capacity} per run."
            )
        stored = self._entries[slots[:, 0], slots[:, 1]]
        absent = first[stored["checksum"] != _checksums(stored["feature"], wanted[:, 1], shown[first])]
        if len(absent):
            self._keep(runs[absent], steps[absent], shown[absent], embed(runs[absent], steps[absent]))
        return self._entries["feature"][runs, steps % capacity].astype(np.float32)

    def _keep(self, runs: IntArray, steps: IntArray, shown: FloatArray, features: FloatArray) -> None:
        expected = (len(runs), *self._entries.dtype["feature"].shape)
        if features.shape != expected or not np.isfinite(features).all():
            raise PrefVLMError(
                f"Embeddings must be finite and of shape {expected}, got shape {features.shape}, "
                f"{np.count_nonzero(~np.isfinite(features))} values not finite."
            )
        slots = steps % self._entries.shape[1]
        rounded = features.astype("<f2")
        self._entries["feature"][runs, slots] = rounded
        self._entries["checksum"][runs, slots] = _checksums(rounded, steps, shown)


def _checksums(features: NDArray[np.float16], steps: IntArray, shown: FloatArray) -> NDArray[np.uint64]:
    """Checksums (K,) of embeddings (K, D) at `steps` (K,), of frames that show `shown` (K, S): sums of all their bits
    with random odd weights, modulo 2^64.

    Every single flipped bit changes the sum. The zeros of a new file fit one checksum in 2^64.
    """
    words = np.hstack([np.ascontiguousarray(each).view("<u2") for each in (features, shown)])
    weights = np.random.default_rng(0).integers(2**63, size=words.shape[1] + 1, dtype=np.uint64) * 2 + 1
    return np.einsum("kd,d->k", words, weights[1:]) + (steps + 1).astype(np.uint64) * weights[0]


def _reserve(descriptor: int, size: int) -> None:
    """Take the blocks of a file now, where the system can: writing to mapped memory without them kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
