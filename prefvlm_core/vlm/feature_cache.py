"""A cache of frame embeddings on disk, so that each step of each run is rendered and embedded at most once."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prefvlm_core.common.arrays import FloatArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.files import make_folder

OfFrames = Callable[[IntArray, IntArray], FloatArray]
"""Maps the run (K,) and the step (K,) of each frame to numbers of it (K, ...)."""


class FeatureCache:
    """A ring buffer of the last `capacity` steps of each run, in one memory-mapped file of float16.

    The file is named after the model's fingerprint and the cache's sizes, so a resumed fleet finds it again. Entries
    whose checksum is wrong count as absent: a killed process has half written them, a bit has flipped, or they were
    made of another frame, because a fleet resumed on another processor has gone another way since its checkpoint. They
    are looked at when a process first asks for them. The file takes runs × capacity × (8 + 2 D) bytes.

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
            self._known = np.full((runs, capacity), -1, np.int32)  # the step whose entry was found right, or made
        except OSError as error:
            with suppress(OSError):  # a part of a cache is of no use
                self.path.unlink()
            raise PrefVLMError(
                f"Cannot keep {size / 1e6:.1f} MB of features in {self.path}: {error.strerror}; free some space, or "
                "choose another results folder."
            ) from error

    def get(self, runs: IntArray, steps: IntArray, shown: OfFrames, embed: OfFrames) -> FloatArray:
        """Embeddings (K, D) float32 of the frames of `runs` (K,) at `steps` (K,), counted from a run's first step.

        `shown` gives all that frames show, (K, S) float32, which tells apart those that one step had on two ways.
        `embed` computes the embeddings of absent ones in one call, each once and in the order of run and step. All are
        rounded to float16, whether they were stored before or not. Raises PrefVLMError for runs or steps out of range,
        for steps that do not fit into the ring together, and for embeddings of another shape or that are not finite.
        """
        count, capacity = self._entries.shape
        if runs.shape != steps.shape or runs.ndim != 1:
            raise PrefVLMError(f"Runs and steps must be of one shape (K,), got {runs.shape} and {steps.shape}.")
        if len(runs) and not (0 <= runs.min() and runs.max() < count and 0 <= steps.min()):
            raise PrefVLMError(f"Runs must be 0 to {count - 1} and steps at least 0, got {runs} and {steps}.")
        slots = steps % capacity
        unknown = self._known[runs, slots] != steps
        if unknown.any():
            self._find(runs[unknown], steps[unknown], shown, embed)
            if (self._known[runs, slots] != steps).any():
                raise PrefVLMError(
                    f"Steps of one run lie {capacity} or more apart, but the cache keeps {capacity} per run."
                )
        return torch.from_numpy(self._entries["feature"][runs, slots]).float().numpy()

    def _find(self, runs: IntArray, steps: IntArray, shown: OfFrames, embed: OfFrames) -> None:
        """Check which of the frames the file holds, and embed the others."""
        runs, steps = np.unique(np.stack([runs, steps]), axis=1)
        slots = steps % self._entries.shape[1]
        stored, seen = self._entries[runs, slots], shown(runs, steps)
        absent = stored["checksum"] != _checksums(stored["feature"], steps, seen)
        if absent.any():
            self._keep(runs[absent], steps[absent], seen[absent], embed(runs[absent], steps[absent]))
        self._known[runs, slots] = steps

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
