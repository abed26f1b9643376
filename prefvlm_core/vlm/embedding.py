"""Embedding frames by a torch network, in batches, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.machine import one_thread
from prefvlm_core.common.stopwatch import processor_seconds
from prefvlm_core.vlm import VisionLanguageModel, check_frames, unit_length


def embed_in_batches(
    network: Callable[[Tensor], Tensor], frames: ImageArray, size: int, dimension: int, batch_size: int
) -> FloatArray:
    """Embeddings (N, dimension) of length 1 of frames (N, size, size, 3) uint8.

    `network` maps (batch_size, size, size, 3) uint8 to (batch_size, dimension) float32. It always gets as many, because
    torch may round other batch sizes differently. Raises the errors of `check_frames` and `unit_length`.
    """
    check_frames(frames, size)
    features = np.empty((len(frames), dimension), np.float32)
    batch = torch.zeros(batch_size, size, size, 3, dtype=torch.uint8)
    for start in range(0, len(frames), batch_size):
        part = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch_size]))
        batch[: len(part)] = part
        features[start : start + batch_size] = network(batch)[: len(part)].cpu().numpy()
    return unit_length(features)


@one_thread()
def seconds_per_frame(model: VisionLanguageModel, frames: int) -> float:
    """Seconds of processor time in which a model embeds a frame on one thread, of so many `frames` at once."""
    noise = noise_frames(model, frames)
    return processor_seconds(lambda: model.encode_image(noise)) / frames


def noise_frames(model: VisionLanguageModel, count: int) -> ImageArray:
    """Frames (count, size, size, 3) uint8 of the model's size on which its speed is measured."""
    shape = count, model.frame_size, model.frame_size, 3
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
