"""The independent random streams of a run, all derived from its seed."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Stream(enum.IntEnum):
    """The purpose of a random stream. Its number determines the draws of every stored run, so never reuse one."""

    INITIALISATION = 0
    POLICY = 1
    LEARNING = 2
    FEEDBACK = 3
    HELD_OUT = 4
    EPISODE = 5
    SIMULATED_VLM = 6
    FIRST_PAIRS = 7
    ADAPTERS = 8
    VIEW = 9


def generator(seed: int, stream: Stream, *path: int) -> np.random.Generator:
    """A fresh generator of one stream of the run with this seed; `path` names a stream within it."""
    return np.random.default_rng(_sequence(seed, stream, *path))


def key(seed: int, stream: Stream, *path: int) -> int:
    """A number from 0 to 2^63 - 1 from which draws by counters start, of the stream that `generator` names."""
    return int(_sequence(seed, stream, *path).generate_state(1, np.uint64)[0]) >> 1


def _sequence(seed: int, stream: Stream, *path: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, int(stream), *path])


class Generators:
    """The generators of a fleet, one per stream and run: `generators[stream][run]`."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = {stream: [generator(seed, stream) for seed in seeds] for stream in Stream}

    def __getitem__(self, stream: Stream) -> list[np.random.Generator]:
        return self._streams[stream]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state of every generator, as the tensors and values of a checkpoint."""
        return {}, {stream.name: [run.bit_generator.state for run in runs] for stream, runs in self._streams.items()}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        for stream, runs in self._streams.items():
            for run, stored in zip(runs, values[stream.name], strict=True):
                run.bit_generator.state = stored


def episode_seed(seed: int, episode: int, evaluation: bool = False) -> int:
    """The seed of an episode: even in training and odd in evaluation, so that the two never share one."""
    drawn = int(generator(seed, Stream.EPISODE, episode, int(evaluation)).integers(2**30))
    return 2 * drawn + evaluation
