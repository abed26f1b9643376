"""Independent random streams of a run, all derived from its seed."""

from __future__ import annotations

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What a stream of random numbers is for; the number is part of every stored run, never reuse one."""

    INITIALISATION = 0
    POLICY = 1
    LEARNING = 2
    FEEDBACK = 3
    HELD_OUT = 4
    EPISODE = 5
    SIMULATED_VLM = 6


def generator(seed: int, stream: Stream, *path: int) -> np.random.Generator:
    """The generator of one stream of one run."""
    return np.random.default_rng(np.random.SeedSequence([seed, int(stream), *path]))


def episode_seed(seed: int, episode: int, evaluation: bool = False) -> int:
    """Seed of an environment's episode: even in training, odd in evaluation, so that the two can never meet."""
    drawn = int(generator(seed, Stream.EPISODE, episode, int(evaluation)).integers(2**30))
    return 2 * drawn + evaluation
