"""Visual changes of a scene, one factor at a time: lights, surfaces, the camera's pose, and what is put into the image.

Each factor draws from a generator of its own, so that what one factor draws does not depend on the others. Light to
import: what the changes do to a model and its frames is in `domains.scenery`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefvlm_core.common.errors import PrefVLMError, unknown_name

if TYPE_CHECKING:
    import numpy as np

STRENGTHS = ("mild", "strong", "extreme")
INTENSITIES: Mapping[str, tuple[float, float, float]] = {
    "light": (0.25, 0.6, 1.0),
    "light_angle": (30.0, 60.0, 120.0),
    "color": (0.15, 0.4, 0.8),
    "texture": (0.25, 0.6, 1.0),
    "camera_position": (0.02, 0.06, 0.15),
    "camera_angle": (1.0, 3.0, 6.0),
    "background": (0.3, 0.6, 1.0),
    "occluder": (0.15, 0.3, 0.5),
    "noise": (10.0, 30.0, 80.0),
}
"""Factor of `Perturbation` -> its intensity at each of `STRENGTHS`."""
EVERYTHING = "everything"
"""Name of all factors together."""


@dataclass(frozen=True)
class Perturbation:
    """Visual changes of the scene. The default changes nothing; what is drawn with `seed` is the same in all frames.

    Raises `PrefVLMError` for a value that is not allowed.
    """

    light: float = 0.0
    """Spread of the brightness of each light, the camera's own included, and color channel, 0 to 1 (each factor uniform
    in 1 ± light)."""
    light_angle: float = 0.0
    """Angle by which each light turns about an axis of its own, degrees, 0 to 180."""
    color: float = 0.0
    """Part of the way, 0 to 1, by which the mean color of each surface moves to a color drawn uniformly."""
    texture: float = 0.0
    """Weight, 0 to 1, of a colored pattern in each texture (of table, floor, walls and some objects)."""
    camera_position: float = 0.0
    """Standard deviation of the camera's position along each axis, meters, 0 to 1."""
    camera_angle: float = 0.0
    """Standard deviation of the camera's rotation about each of its axes, degrees, 0 to 90."""
    background: float = 0.0
    """Weight, 0 to 1, of a film in place of the floor and what is behind it. Each frame shows it at another time."""
    occluder: float = 0.0
    """Side of a gray square in front of the image, as a fraction of the image's side, 0 to 1."""
    noise: float = 0.0
    """Standard deviation of the sensor noise of each pixel and channel, gray levels, 0 to 255; new in every frame."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise PrefVLMError(f"Perturbation.{name} is {getattr(self, name)}, allowed are 0 to {most}.")

    def generator(self, factor: str, *path: int) -> np.random.Generator:
        """A fresh generator of one factor; `path` names a stream within it."""
        import numpy as np

        return np.random.default_rng([self.seed, list(INTENSITIES).index(factor), *path])


MOST: Mapping[str, float] = dict.fromkeys(INTENSITIES, 1) | {
    "light_angle": 180,
    "camera_angle": 90,
    "noise": 255,
    "seed": 2**63 - 1,
}
"""Field of `Perturbation` -> its largest value."""
CLEAN = Perturbation()
"""Nothing is changed."""


def perturbation_of(factor: str, strength: str, seed: int = 0) -> Perturbation:
    """One factor, or `EVERYTHING`, at one of `STRENGTHS`. Raises `PrefVLMError` for unknown names."""
    if factor not in (*INTENSITIES, EVERYTHING):
        raise unknown_name("factor", factor, (*INTENSITIES, EVERYTHING))
    if strength not in STRENGTHS:
        raise unknown_name("strength", strength, STRENGTHS)
    chosen = INTENSITIES if factor == EVERYTHING else [factor]
    intensities: dict[str, Any] = {name: INTENSITIES[name][STRENGTHS.index(strength)] for name in chosen}
    return Perturbation(**intensities, seed=seed)
