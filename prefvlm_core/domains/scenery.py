"""What perturbations do to the lights, surfaces and cameras of a model, and to the frames drawn from it."""

import hashlib

import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.domains.perturbations import Perturbation

_DEFAULT_COLOR = np.array((0.5, 0.5, 0.5, 1.0), np.float32)  # of a geom in MuJoCo, red, green, blue and opacity
_GRAY = 128
_PATTERN_SIZE = 64  # of a pattern on a surface, pixels
_WAVES = 4  # in a pattern and in a film
_MOST_PERIODS = 6  # of a wave from one side of the image to the other


class Scenery:
    """The lights, surfaces and cameras of a model for rendering, and how they are when nothing is perturbed."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model, self._headlight = model, model.vis.headlight
        self._original = [
            (values, values.copy())
            for values in (
                model.light_diffuse,
                self._headlight.ambient,
                self._headlight.diffuse,
                model.geom_rgba,
                model.mat_rgba,
                model.cam_pos,
                model.cam_quat,
            )
        ]
        self._textures = model.tex_data.copy()
        self._painted = False
        self._light_turns = np.empty((0, 4))

    def restore(self) -> None:
        """Take back what `perturb` has changed in the model, but for its textures."""
        for values, original in self._original:
            values[:] = original

    def perturb(self, perturbation: Perturbation, camera: int) -> list[int]:
        """Change the restored model, its camera number `camera` included.

        Returns the textures whose pixels are no longer those of the last call, which the renderer must upload.
        """
        model = self._model
        generator = perturbation.generator("light")
        low, high = 1 - perturbation.light, 1 + perturbation.light
        model.light_diffuse *= generator.uniform(low, high, model.light_diffuse.shape)
        headlight = generator.uniform(low, high, 3)
        self._headlight.ambient *= headlight
        self._headlight.diffuse *= headlight
        self._light_turns = _turns(perturbation, model.nlight + 1)
        model.cam_pos[camera] += perturbation.generator("camera_position").normal(0, perturbation.camera_position, 3)
        turn = perturbation.generator("camera_angle").normal(0, np.radians(perturbation.camera_angle), 3)
        mujoco.mju_quatIntegrate(model.cam_quat[camera], turn, 1.0)
        return self._paint(perturbation)

    def turn_lights(self, visible: mujoco.MjvScene) -> None:
        """Turn the lights of a scene that MuJoCo has just updated, which sets its first light to shine as the camera
        looks."""
        for light, turn in zip(visible.lights, self._light_turns, strict=False):
            turned = np.empty(3)
            mujoco.mju_rotVecQuat(turned, light.dir.astype(np.float64), turn)
            light.dir[:] = turned

    def _paint(self, perturbation: Perturbation) -> list[int]:
        model, generator = self._model, perturbation.generator("color")
        textured = (model.mat_texid >= 0).any(axis=1)
        for colors, painted in ((model.geom_rgba, _has_own_color(model)), (model.mat_rgba, ~textured)):
            targets = generator.uniform(0, 1, (len(colors), 3))
            colors[painted, :3] += perturbation.color * (targets - colors[:, :3])[painted]
        targets = generator.uniform(0, 255, (model.ntex, 3))
        paints = perturbation.color > 0 or perturbation.texture > 0
        if not (paints or self._painted):
            return []
        self._painted = paints
        model.tex_data[:] = self._textures
        textures = [int(index) for index in np.flatnonzero(model.tex_type != mujoco.mjtTexture.mjTEXTURE_SKYBOX.value)]
        for texture in textures if paints else []:
            self._repaint(texture, perturbation, targets[texture])
        return textures

    def _repaint(self, texture: int, perturbation: Perturbation, target: NDArray[np.float64]) -> None:
        model = self._model
        shape = model.tex_height[texture], model.tex_width[texture], model.tex_nchannel[texture]
        first = model.tex_adr[texture]
        stored = model.tex_data[first : first + np.prod(shape)].reshape(shape)
        pixels = stored.astype(np.float32)
        if perturbation.texture:
            phases = _phases(perturbation.generator("texture", texture), _PATTERN_SIZE)
            rows, columns = (np.arange(length) * _PATTERN_SIZE // length for length in shape[:2])
            pixels += np.float32(perturbation.texture) * (_picture(phases)[rows[:, None], columns] - pixels)
        if perturbation.color:
            pixels += (perturbation.color * (target - pixels.mean((0, 1)))).astype(np.float32)
        stored[:] = np.clip(pixels, 0, 255).round()


class ImageChanges:
    """What is put into frames of `size` pixels after they are drawn: film, occluder and sensor noise."""

    def __init__(self, perturbation: Perturbation, size: int) -> None:
        self._perturbation = perturbation
        side = round(perturbation.occluder * size)
        top, left = perturbation.generator("occluder").integers(0, size - side + 1, 2)
        self._occluded = np.s_[top : top + side, left : left + side]
        film = perturbation.generator("background")
        self._phases = _phases(film, size)
        self._speeds = film.integers(1, 10, (_WAVES, 1, 1, 1))

    def apply(
        self, frame: NDArray[np.uint8], snapshot: NDArray[np.float32], background: NDArray[np.bool_] | None
    ) -> None:
        """Change a frame (size, size, 3) in place; `background` (size, size) is where the film is seen.

        The film's time and the noise depend only on seed and `snapshot` (S,), so that a frame is the same in every
        batch.
        """
        perturbation = self._perturbation
        digest = int.from_bytes(hashlib.blake2b(snapshot.tobytes(), digest_size=8).digest(), "little")
        if background is not None:
            time = perturbation.generator("background", digest).uniform(0, 2 * np.pi)
            film = _picture(self._phases + self._speeds * time)[background]
            frame[background] = (frame[background] + perturbation.background * (film - frame[background])).round()
        frame[self._occluded] = _GRAY
        if perturbation.noise:
            noise = perturbation.generator("noise", digest).normal(0, perturbation.noise, frame.shape)
            frame[:] = np.clip(frame + noise, 0, 255).round()


def _turns(perturbation: Perturbation, lights: int) -> NDArray[np.float64]:
    """Quaternions (lights, 4) that turn each light; none if no light turns."""
    if not perturbation.light_angle:
        return np.empty((0, 4))
    quaternions = np.empty((lights, 4))
    for quaternion, axis in zip(
        quaternions, perturbation.generator("light_angle").normal(size=(lights, 3)), strict=True
    ):
        angle = float(np.radians(perturbation.light_angle))
        mujoco.mju_axisAngle2Quat(quaternion, axis / np.linalg.norm(axis), angle)
    return quaternions


def _phases(generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Phases (waves, size, size, 3) in radians of plane waves with whole periods, so that the picture can be tiled."""
    periods = generator.integers(-_MOST_PERIODS, _MOST_PERIODS + 1, (2, _WAVES, 1, 1, 3))
    down, right = np.mgrid[:size, :size][..., None] / size
    return 2 * np.pi * (down * periods[0] + right * periods[1] + generator.uniform(0, 1, (_WAVES, 1, 1, 3)))


def _picture(phases: NDArray[np.float64]) -> NDArray[np.float32]:
    """A picture (size, size, 3), 0 to 255, of the sum of waves; half of its values are within 50 of black or white."""
    return (127.5 * (1 + np.tanh(np.sin(phases, dtype=np.float64).sum(axis=0)))).astype(np.float32)


def _has_own_color(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Which geoms (G,) MuJoCo draws in their own color: those without a material, or whose color is not the default.

    A geom that gets its color from its material must keep the default, or the material would no longer be seen.
    """
    return (model.geom_matid < 0) | (model.geom_rgba != _DEFAULT_COLOR).any(axis=1)
