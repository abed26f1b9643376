"""A task known by pictures of its goal in place of a text, which makes a label source of any image encoder.

Such a model sees a photograph of the finished task, as its user could take it. Unless pictures of the user's own are
registered, they show where the task's scripted expert ends, in the evaluation view. Each of its episodes has another
goal, as those of a run have, and nothing but the simulator's success flag says when it has ended well.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.registry import check_task, domain_of, task_number
from prefvlm_core.vlm import VisionLanguageModel, unit_length

PICTURES = 8
"""Pictures of each task's goal."""

_RECIPE = 1  # to be raised by whoever changes which pictures are made
_SEED = 20260401  # no other part of the package draws with it
_NOISE = 0.1  # standard deviation of the noise on the expert's actions
_LONGEST_EPISODE = 300  # steps; an expert that needs more has failed

_registered: dict[str, list[ImageArray]] = {}


class ImageEncoder(Protocol):
    """What `GoalPictures` needs of a model; the members are those of `VisionLanguageModel`."""

    frame_size: int
    fingerprint: str

    def encode_image(self, frames: ImageArray) -> FloatArray:
        """See `VisionLanguageModel`."""


class GoalPictures(VisionLanguageModel):
    """An image encoder for which a task is the mean of the embeddings of its goal pictures.

    The fingerprint names the encoder's weights and the pictures: how they are made, and those registered so far.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        self.encoder = encoder
        self.frame_size = encoder.frame_size
        self.fingerprint = f"{encoder.fingerprint}-goals-{_fingerprint()}"

    def encode_image(self, frames: ImageArray) -> FloatArray:
        """See `VisionLanguageModel`."""
        return self.encoder.encode_image(frames)

    def encode_task(self, task: str) -> FloatArray:
        """Mean embedding (D,) of the task's goal pictures, scaled to length 1."""
        pictures = self.encoder.encode_image(goal_pictures(task, self.frame_size))
        return unit_length(pictures.mean(0, keepdims=True))[0]


def goal_pictures(task: str, size: int) -> ImageArray:
    """Pictures (N, size, size, 3) uint8 RGB of a task's goal: those registered in this process, else 8 of the expert's.

    The same at every call. Raises PrefVLMError for an unknown task, and if the expert fails too often.
    """
    check_task(task)
    if own := _registered.get(task):
        return np.stack([np.asarray(Image.fromarray(picture).resize((size, size))) for picture in own])
    finished = _finished(task)
    with closing(FrameRenderer(task, size)) as renderer:
        return renderer.render(finished.snapshots, finished.scenes)


def register_goal_pictures(task: str, pictures: Sequence[str | Path | ImageArray]) -> None:
    """Use pictures of one's own for a task in the rest of this process, by models that are loaded afterwards.

    Args:
        task: The name of a task.
        pictures: At least one picture of the finished task in the view of the frames, square: files of images, or
            arrays (side, side, 3) uint8 RGB of any side. A model sees them in the size of its frames.

    The pictures are not part of a run's name, but of the fingerprint in its manifest: give such runs a results folder
    of their own. Raises PrefVLMError for an unknown task, without pictures, and for one that cannot be read.
    """
    check_task(task)
    read = [_read(task, picture) for picture in pictures]
    if not read:
        raise PrefVLMError(f"No pictures of the goal of '{task}' were given; at least one is needed.")
    _registered[task] = read


def _read(task: str, picture: str | Path | ImageArray) -> ImageArray:
    name = "an array" if isinstance(picture, np.ndarray) else str(picture)
    try:
        pixels = picture if isinstance(picture, np.ndarray) else np.asarray(Image.open(picture).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise PrefVLMError(f"The picture {name} of the goal of '{task}' cannot be read: {error}.") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape != (len(pixels), len(pixels), 3) or not len(pixels):
        raise PrefVLMError(
            f"A picture of the goal of '{task}' must be square, (side, side, 3) uint8, but {name} is {pixels.shape} "
            f"{pixels.dtype}."
        )
    return pixels.copy()


class _Finished(NamedTuple):
    """N successful episodes of the expert in the step of their first success, see `Environment`."""

    snapshots: FloatArray
    """(N, S)."""
    scenes: FloatArray
    """(N, C)."""


@functools.cache
def _finished(task: str) -> _Finished:
    generator = np.random.default_rng((_SEED, task_number(task)))
    horizon = min(_LONGEST_EPISODE, domain_of(task).longest_episode)
    environment = Environment(task, horizon, goal_visible=True)
    snapshots, scenes = [], []
    for _ in range(10 * PICTURES):
        expert = Expert(task, _NOISE, generator)
        observation = environment.reset(int(generator.integers(2**31)))
        success = False
        for step in range(horizon):
            observation, _, success = environment.step(expert(observation, step))
            if success:
                break
        if success:
            snapshots.append(environment.snapshot())
            scenes.append(environment.scene())
        if len(snapshots) == PICTURES:
            return _Finished(np.stack(snapshots), np.stack(scenes))
    raise PrefVLMError(
        f"The scripted expert of '{task}' succeeded in only {len(snapshots)} of {10 * PICTURES} episodes; register "
        "goal pictures of your own."
    )


def _fingerprint() -> str:
    """Hash of how pictures are made, and of all that are registered."""
    digest = hashlib.blake2b(f"{_RECIPE} {PICTURES} {_SEED} {_NOISE}".encode(), digest_size=4)
    for task, pictures in sorted(_registered.items()):
        for picture in pictures:
            digest.update(f"{task} {len(picture)}".encode() + picture.tobytes())
    return digest.hexdigest()
