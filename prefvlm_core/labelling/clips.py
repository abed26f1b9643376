"""Clips for people: both segments of a pair in one image, a sprite sheet that a browser plays without a codec.

Frames are stacked vertically, the first segment in the left column and the second in the right one. A single still
image keeps both segments synchronized and can be scrubbed. An animated WebP would be a third smaller, but browsers
cannot seek to one of its frames.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

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
TRACE_COLOR = "#ffd400"
"""Of the path of the gripper, on a black border, so that it stands out from light and dark surfaces."""
_SHARPER = 3  # the path is drawn so many times as large, for smooth edges


class ClipMaker:
    """Renders clips of any task, from one thread only, like every renderer.

    Args:
        size: Height and width of frames, pixels.
        trace: Whether every frame shows the path of the gripper in the whole segment.
    """

    def __init__(self, size: int = CLIP_SIZE, trace: bool = False) -> None:
        self.size, self.trace = size, trace
        self._renderers: dict[tuple[str, Perturbation], FrameRenderer] = {}

    def make(
        self,
        task: str,
        snapshots: NDArray[np.float32],
        scenes: NDArray[np.float32],
        perturbation: Perturbation = CLEAN,
    ) -> tuple[int, bytes]:
        """The number of frames of a pair of segments, and its sprite sheet; see `frames`."""
        frames = self.frames(task, snapshots, scenes, perturbation)
        return len(frames), encode(frames)

    def frames(
        self,
        task: str,
        snapshots: NDArray[np.float32],
        scenes: NDArray[np.float32],
        perturbation: Perturbation = CLEAN,
    ) -> NDArray[np.uint8]:
        """Render a pair of segments.

        Args:
            task: The task of both segments.
            snapshots: (2, length, S) float32, as the replay stores them.
            scenes: (2, C) float32, as the replay stores them.
            perturbation: What the people of this run see, as its VLM does.

        Returns:
            Frames (F, 2, size, size, 3) uint8 RGB of the steps that `shown_steps` names.

        Raises:
            PrefVLMError: For an unknown task, or if frames cannot be rendered.
        """
        check_task(task)
        if (task, perturbation) not in self._renderers:
            self._renderers[task, perturbation] = FrameRenderer(task, self.size, perturbation=perturbation)
        renderer = self._renderers[task, perturbation]
        length = snapshots.shape[1]
        shown = shown_steps(length, min(length, MOST_FRAMES))
        sides = []
        for side, scene in zip(snapshots, np.repeat(scenes[:, None], length, axis=1), strict=True):
            frames = renderer.render(side[shown], scene[shown])
            sides.append(with_trace(frames, renderer.path(side, scene)) if self.trace else frames)
        return np.stack(sides, axis=1)


def shown_steps(length: int, count: int) -> NDArray[np.int64]:
    """The steps (count,) of a segment of `length` steps that are shown, evenly spaced from the first to the last."""
    return np.linspace(0, length - 1, count).round().astype(np.int64)


def with_trace(frames: NDArray[np.uint8], path: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Frames (F, size, size, 3) with a line along a path (N, 2) of columns and rows, from a white dot to one of the
    line's color."""
    size = frames.shape[1]
    picture = Image.new("RGBA", (_SHARPER * size, _SHARPER * size))
    draw, points = ImageDraw.Draw(picture), [(_SHARPER * x, _SHARPER * y) for x, y in path]
    thin = _SHARPER * max(1.0, size / 240)
    draw.line(points, "black", round(2 * thin), joint="curve")
    draw.line(points, TRACE_COLOR, round(thin), joint="curve")
    for (x, y), color in ((points[0], "white"), (points[-1], TRACE_COLOR)):
        radius = 4 * thin
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), color, "black", round(thin))
    layer = np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32)
    opacity = layer[..., 3:] / 255
    return (frames * (1 - opacity) + layer[..., :3] * opacity).round().astype(np.uint8)


def encode(frames: NDArray[np.uint8]) -> bytes:
    """Encode frames (F, 2, height, width, 3) uint8 RGB as a sprite sheet in WebP format."""
    count, sides, height, width, _ = frames.shape
    sheet = frames.transpose(0, 2, 1, 3, 4).reshape(count * height, sides * width, 3)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()


def decode(sheet: bytes, count: int) -> NDArray[np.uint8]:
    """Frames (count, 2, height, width, 3) uint8 RGB of a sprite sheet, as exactly as WebP keeps them."""
    with Image.open(io.BytesIO(sheet)) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[0] // count, pixels.shape[1] // 2
    return pixels.reshape(count, height, 2, width, 3).transpose(0, 2, 1, 3, 4)


def side_by_side(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two films (F, H, W, 3) of any lengths and sizes as the frames of a pair, (F', 2, S, S, 3).

    F' is the longer one's number of frames but at most `MOST_FRAMES`, S the longest side but at most `CLIP_SIZE`;
    frames are centered in their square.
    """
    sides = (first, second)
    count = min(max(map(len, sides)), MOST_FRAMES)
    size = min(CLIP_SIZE, max(max(side.shape[1:3]) for side in sides))
    return np.stack([fitted(side[shown_steps(len(side), count)], size) for side in sides], axis=1)


def fitted(frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Frames, each centered in a square of `size` pixels, (F, size, size, 3)."""
    return np.stack([np.asarray(ImageOps.pad(Image.fromarray(frame), (size, size))) for frame in frames])
