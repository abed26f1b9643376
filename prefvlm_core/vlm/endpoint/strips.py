"""What an endpoint sees of a segment: a strip of its frames."""

from __future__ import annotations

import numpy as np

from prefvlm_core.common.arrays import ImageArray, IntArray
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.frame_steps import frame_steps
from prefvlm_core.vlm.encoder import FleetEncoder


class StripMaker:
    """Renders the strips of one run: `vlm.strip_frames` frames of each segment, evenly spaced up to its last one.

    Four frames show where a segment begins, how it moves and where it ends, at a fifth of the tokens of all frames. 224
    pixels are the least side at which the common image encoders work without enlarging.
    """

    def __init__(self, encoder: FleetEncoder, run: int, config: RunConfig) -> None:
        self._encoder, self._run = encoder, run
        self._length, self._stride = config.feedback.segment_length, config.vlm.frame_stride
        self._frames, self._size = config.vlm.strip_frames, config.vlm.strip_pixels

    def make(self, starts: IntArray) -> list[ImageArray]:
        """Strips (height, frames × height, 3) of the segments that begin at `starts` (n,), n of them."""
        steps = frame_steps(starts, self._length, self._stride)
        count = min(self._frames, steps.shape[1])
        # Counted from the end, so that a single frame is the last one.
        shown = steps[:, np.linspace(steps.shape[1] - 1, 0, count).round().astype(int)[::-1]]
        frames = self._encoder.pictures(self._run, shown.ravel(), self._size)
        return [strip(segment) for segment in frames.reshape(len(starts), count, *frames.shape[1:])]


def strip(frames: ImageArray) -> ImageArray:
    """Frames (k, height, width, 3) side by side, (height, k × width, 3)."""
    return np.ascontiguousarray(np.concatenate(list(frames), axis=1))
