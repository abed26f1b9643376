"""What the VLM and the people of a run see: the fields of `domains.perturbations.Perturbation` in a config."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from prefvlm_core.config.fields import count, fraction, quantity
from prefvlm_core.domains.perturbations import CLEAN, INTENSITIES, MOST, Perturbation


@dataclass(frozen=True)
class ViewConfig:
    """What the VLM and people see of the scene, from the first action of a run to the last (0: nothing is changed).

    What is drawn differs between runs of different seeds and stays the same within a run.
    """

    light: float = fraction(0.0, zero=True)
    """Spread of the brightness of each light and color channel."""
    light_angle: float = quantity(0.0, zero=True, most=MOST["light_angle"])
    """Angle by which each light turns, degrees."""
    color: float = fraction(0.0, zero=True)
    """Part of the way by which the color of each surface moves to a color drawn uniformly."""
    texture: float = fraction(0.0, zero=True)
    """Weight of a colored pattern in each texture."""
    camera_position: float = fraction(0.0, zero=True)
    """Standard deviation of the camera's position along each axis, meters."""
    camera_angle: float = quantity(0.0, zero=True, most=MOST["camera_angle"])
    """Standard deviation of the camera's rotation about each of its axes, degrees."""
    background: float = fraction(0.0, zero=True)
    """Weight of a film in place of the floor and what is behind it."""
    occluder: float = fraction(0.0, zero=True)
    """Side of a gray square in front of the image, as a fraction of the image's side."""
    noise: float = quantity(0.0, zero=True, most=MOST["noise"])
    """Standard deviation of the sensor noise, gray levels."""
    seed: int = count(0, least=0)
    """Draws the changes, together with the run's seed."""

    def perturbation(self, run_seed: int) -> Perturbation:
        """The changes that a run with this seed sees."""
        if not any(getattr(self, factor) for factor in INTENSITIES):
            return CLEAN  # equal for all runs, which therefore share a renderer
        from prefvlm_core.common.seeding import Stream, generator

        seed = int(generator(run_seed, Stream.VIEW, self.seed).integers(2**31))
        return Perturbation(**dataclasses.asdict(self) | {"seed": seed})
