"""Clips for people: both segments of a pair in one image, a sprite sheet that a browser plays without a codec.

Frames are stacked vertically, the first segment in the left column and the second in the right one. A single still
image keeps both segments synchronized and can be scrubbed. An animated WebP would be a third smaller, but browsers
cannot seek to one of its frames.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import CLEAN, Perturbation
from prefvlm_core.domains.registry import check_task

CLIP_SIZE = 480
"""Side length of a frame, pixels: sharp where the labeller draws it about 400 CSS pixels wide."""
MOST_FRAMES = 20
"""Largest number of frames of a segment: longer segments play faster, not longer."""
QUALITY = 70
"""WebP quality. A pair of 20 frames takes about 540 kB, one of 10 frames half of that; JPEG takes twice as much for the
same visual quality, PNG eight times."""


class ClipMaker:
    """Renders clips of any task, from one thread only, like every renderer."""

    def __init__(self) -> None:
        self._renderers: dict[tuple[str, Perturbation], FrameRenderer] = {}

    def make(
        self,
        task: str,
        snapshots: NDArray[np.float32],
        scenes: NDArray[np.float32],
        perturbation: Perturbation = CLEAN,
    ) -> tuple[int, bytes]:
        """Render a pair of segments.

        Args:
            task: The task of both segments.
            snapshots: (2, length, S) float32, as the replay stores them.
            scenes: (2, C) float32, as the replay stores them.
            perturbation: What the people of this run see, as its VLM does.

        Returns:
            The number of frames F ≤ `MOST_FRAMES`, evenly spaced from the first step to the last, and the sprite sheet.

        Raises:
            PrefVLMError: For an unknown task, or if frames cannot be rendered.
        """
        check_task(task)
        if (task, perturbation) not in self._renderers:
            self._renderers[task, perturbation] = FrameRenderer(task, CLIP_SIZE, perturbation=perturbation)
        renderer = self._renderers[task, perturbation]
        length = snapshots.shape[1]
        shown = np.linspace(0, length - 1, min(length, MOST_FRAMES)).round().astype(int)
        repeated = (np.repeat(scene[None], len(shown), axis=0) for scene in scenes)
        sides = [renderer.render(side[shown], scene) for side, scene in zip(snapshots, repeated, strict=True)]
        return len(shown), encode(np.stack(sides, axis=1))


def encode(frames: NDArray[np.uint8]) -> bytes:
    """Encode frames (F, 2, height, width, 3) uint8 RGB as a sprite sheet in WebP format."""
    count, sides, height, width, _ = frames.shape
    sheet = frames.transpose(0, 2, 1, 3, 4).reshape(count * height, sides * width, 3)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()
