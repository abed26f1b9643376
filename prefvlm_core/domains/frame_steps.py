"""Which frame belongs to a step: the one after its action, everywhere.

A step's reward is paid for what its action did, so its frame shows that too: the VLM that labels, the clips that people
see, the sanity check and the recordings that models are judged on all ask here. Of every `stride` steps of an episode
the last one has a frame. The first picture of an episode, before any action, belongs to no step.
"""

from __future__ import annotations

import numpy as np

from prefvlm_core.common.arrays import IntArray


def has_frame(step: int, stride: int) -> bool:
    """Whether a step of an episode, counted from 0, has a frame."""
    return (step + 1) % stride == 0


def frame_steps(starts: IntArray, length: int, stride: int) -> IntArray:
    """The steps that have a frame in segments of `length` steps, a multiple of `stride`, that begin at `starts` (...).

    Steps may be counted from the start of a run whose episodes are multiples of `stride` long. Returns (..., length /
    stride).
    """
    first = (starts // stride + 1) * stride - 1
    return first[..., None] + np.arange(0, length, stride)
