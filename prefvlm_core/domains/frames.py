"""Frames: pictures of a task, rendered from snapshots whenever they are needed."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.domains.domain import Camera
from prefvlm_core.domains.perturbations import CLEAN, INTENSITIES, Perturbation
from prefvlm_core.domains.registry import domain_of
from prefvlm_core.domains.scenery import ImageChanges


class FrameRenderer:
    """Renders snapshots of one task. Frames are upright and not mirrored, however the camera is mounted.

    Render from one thread only.

    Args:
        task: A task, such as "door-open-v3".
        size: Height and width of the frames, pixels.
        camera: One of the cameras of the task's domain, or a `Camera` (None: the view of the VLM and of people).
        perturbation: Visual changes; see `Perturbation`.
        goal_marker: Draw the marks of goals, such as the colored spheres in Meta-World's own rendering.

    Raises:
        PrefVLMError: For an unknown task or camera, a change that the domain's pictures cannot show, a size outside 16
            to 1024, or if no OpenGL library works where one is needed.
    """

    def __init__(
        self,
        task: str,
        size: int = 64,
        camera: str | Camera | None = None,
        perturbation: Perturbation = CLEAN,
        goal_marker: bool = True,
    ) -> None:
        self._domain = domain_of(task)
        if not 16 <= size <= 1024:
            raise PrefVLMError(f"Frames of {size} pixels cannot be rendered, allowed are 16 to 1024.")
        self.task = task
        self.size = size
        self._domain.check_installed()
        self._drawing = self._domain.drawing(task, size, goal_marker)
        self.look(camera, perturbation)

    def look(self, camera: str | Camera | None = None, perturbation: Perturbation = CLEAN) -> None:
        """Change camera and perturbation of the frames rendered from now on, at little cost.

        Raises `PrefVLMError` for an unknown camera, and for a change that the domain's pictures cannot show.
        """
        domain = self._domain
        if isinstance(camera, str) and camera not in domain.cameras:
            raise unknown_name("camera", camera, domain.cameras)
        for factor in INTENSITIES:
            if getattr(perturbation, factor) and factor not in domain.factors:
                raise unknown_name(f"change of {domain.title}'s pictures", factor, domain.factors, "")
        self._drawing.look(domain.cameras[0] if camera is None else camera, perturbation)
        self._changes = ImageChanges(perturbation, self.size)

    def render(self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Render `snapshots` (N, S) and `scenes` (N, C), as `Environment` returns them, as RGB frames.

        Returns frames (N, size, size, 3) uint8. Raises `PrefVLMError` if snapshots and scenes do not fit each other or
        this task, or contain NaN or infinity.
        """
        if snapshots.ndim != 2 or scenes.ndim != 2 or len(snapshots) != len(scenes):
            raise PrefVLMError(
                f"render needs snapshots (N, S) and scenes (N, C), got {snapshots.shape} and {scenes.shape}."
            )
        if not (np.isfinite(snapshots).all() and np.isfinite(scenes).all()):
            raise PrefVLMError(f"Snapshots or scenes of '{self.task}' hold NaN or infinity and cannot be rendered.")
        frames = np.empty((len(snapshots), self.size, self.size, 3), np.uint8)
        drawn = self._drawing.draw(snapshots, scenes)
        for frame, snapshot, (picture, background) in zip(frames, snapshots, drawn, strict=True):
            frame[:] = picture
            self._changes.apply(frame, snapshot[: self._drawing.snapshot_size], background)  # without what pads it
        return frames

    def path(self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Where frames of `snapshots` (N, S) and `scenes` (N, C) show what the domain's `followed` names.

        Returns (N, 2) float64, column and row in pixels from the upper left corner of the frame; (0.5, 0.5) is the
        middle of the first pixel. It may be hidden or beside the frame, but not behind the camera. Raises
        `PrefVLMError` where nothing is followed.
        """
        check_followed(self.task)
        return self._drawing.path(snapshots, scenes)

    def close(self) -> None:
        """Release what drawing needs. The renderer cannot be used afterwards."""
        self._drawing.close()


class View(NamedTuple):
    """What a frame shows beside the pose of the task; see `FrameRenderer`."""

    task: str
    size: int
    perturbation: Perturbation = CLEAN


class FrameSource(Protocol):
    """Draws frames of any view: here (`Renderers`) or in other processes (`domains.fleet.EnvironmentFleet`)."""

    def render(
        self, view: View, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]
    ) -> Iterator[NDArray[np.uint8]]:
        """What `FrameRenderer.render` returns, in parts that come as they are drawn."""


class Renderers:
    """Draws frames in this process, by a renderer for each view that it is asked for."""

    def __init__(self) -> None:
        self._renderers: dict[View, FrameRenderer] = {}

    def render(
        self, view: View, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]
    ) -> Iterator[NDArray[np.uint8]]:
        """See `FrameSource`."""
        if view not in self._renderers:
            self._renderers[view] = FrameRenderer(view.task, view.size, perturbation=view.perturbation)
        yield self._renderers[view].render(snapshots, scenes)

    def close(self) -> None:
        """Release what drawing needs."""
        for renderer in self._renderers.values():
            renderer.close()


def difference(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How frames `after` differ from those `before` (equal shapes, uint8): mid-gray, 128, and half the change, rounded
    down, so that a change of -255 is 0 and one of 255 is 255."""
    return ((after.astype(np.int16) - before) // 2 + 128).astype(np.uint8)


def check_followed(task: str) -> None:
    """Raise `PrefVLMError` unless there is something in a task's pictures whose path could be drawn."""
    domain = domain_of(task)
    if not domain.followed:
        raise PrefVLMError(f"{domain.title} shows nothing whose path could be drawn; train without --clip-trace.")
