"""Films: the frames of one clip, read from animated pictures, and written as strips of frames."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from prefvlm_core.common.errors import PrefVLMError, shown

QUALITY = 90
"""WebP quality of a strip. Lossless, a film of the label queue, which keeps clips at quality 70, would take eight times
as much."""


def read_film(file: Path | BinaryIO, name: str = "") -> NDArray[np.uint8]:
    """The frames (F, H, W, 3) uint8 RGB of an animated WebP, GIF or PNG, which messages call `name`.

    Raises `PrefVLMError` for a file that is missing or of another kind.
    """
    try:
        with Image.open(file) as image:
            frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise PrefVLMError(
            f"{name or file} cannot be read as an animated WebP, GIF or PNG; read a video such as MP4 yourself, and "
            "give its frames (F, H, W, 3) uint8."
        ) from error
    return np.stack(frames)


def strip(frames: NDArray[np.uint8]) -> bytes:
    """Frames (F, H, W, 3) uint8 RGB below each other, the first on top, as one still WebP.

    An animated WebP would be smaller, but its encoder drops a frame that equals the one before it, as of a robot that
    stands still.
    """
    count, height, width, _ = frames.shape
    file = io.BytesIO()
    Image.fromarray(frames.reshape(count * height, width, 3)).save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


def frames_of(strip: bytes, count: int, name: str) -> NDArray[np.uint8]:
    """Inverse of `strip`, as exactly as WebP keeps it. Raises `PrefVLMError`, calling the strip `name`, if it does not
    hold `count` frames."""
    (picture,) = read_film(io.BytesIO(strip), name)[:1]
    if count < 1 or len(picture) % count:
        raise PrefVLMError(f"{name} is {len(picture)} pixels high, which are not {count} frames of one height.")
    return picture.reshape(count, len(picture) // count, *picture.shape[1:])


def check_frames(frames: object, name: str) -> NDArray[np.uint8]:
    """Return `frames`. Raises `PrefVLMError`, calling them `name`, unless they are (F, H, W, 3) uint8 and not empty."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        kind = f"{frames.dtype} of shape {frames.shape}" if isinstance(frames, np.ndarray) else shown(frames)
        raise PrefVLMError(f"{name} is {kind}; allowed are frames (F, H, W, 3) uint8 and files.")
    if 0 in frames.shape:
        raise PrefVLMError(f"{name} has the shape {frames.shape}, so it holds no picture.")
    return frames
