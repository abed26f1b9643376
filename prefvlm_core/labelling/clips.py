"""Clips for people: both segments of a pair in one picture, a sprite sheet that a browser plays without a codec.

Frames stand below each other, the first segment in the left column, the second in the right. One still picture keeps
both sides in step and can be scrubbed. An animated WebP would be a third smaller, but no browser can set it to a frame.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.tasks import check_task

CLIP_SIZE = 240
"""Side of a frame, pixels."""
MOST_FRAMES = 20
"""Frames of a segment, at most: longer ones are shown faster, not longer."""
QUALITY = 75
"""Of WebP: a pair takes about 180 kB; JPEG takes twice as much for the same look, PNG eight times."""


class ClipMaker:
    """Renders clips of any tasks; from one thread only, as every renderer."""

    def __init__(self) -> None:
        self._renderers: dict[str, FrameRenderer] = {}

    def make(self, task: str, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> tuple[int, bytes]:
        """Number of frames F and the sprite sheet of a pair: snapshots (2, length, S), scenes (2, C) as `replay` holds
        them.

        The F <= MOST_FRAMES steps are spread evenly from the first to the last. Raises `PrefVLMError` for an unknown
        task and where nothing can be rendered.
        """
        check_task(task)
        if task not in self._renderers:
            self._renderers[task] = FrameRenderer(task, CLIP_SIZE)
        length = snapshots.shape[1]
        shown = np.linspace(0, length - 1, min(length, MOST_FRAMES)).round().astype(int)
        repeated = (np.repeat(scene[None], len(shown), axis=0) for scene in scenes)
        sides = [
            self._renderers[task].render(side[shown], scene) for side, scene in zip(snapshots, repeated, strict=True)
        ]
        return len(shown), encode(np.stack(sides, axis=1))


def encode(frames: NDArray[np.uint8]) -> bytes:
    """Sprite sheet, WebP, of frames (F, 2, height, width, 3)."""
    count, sides, height, width, _ = frames.shape
    sheet = frames.transpose(0, 2, 1, 3, 4).reshape(count * height, sides * width, 3)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()
