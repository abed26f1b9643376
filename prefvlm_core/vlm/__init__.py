"""Interface of vision-language models, and a registry of those available."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.registry import Registry

TINYLIV_NAMES = ("tinyliv", "tinyliv-heldout", "tinyliv-indomain", "random")
OFFICIAL_NAMES = ("liv", "decisionnce")
OPEN_CLIP_PREFIX = "open_clip:"


class VisionLanguageModel(Protocol):
    """Frozen encoders of images and texts into one space. An embedding depends on its input alone, not on its batch.

    A frame's zero-shot reward for a task is the cosine of the two embeddings, here their scalar product (PrefVLM §4.1).
    """

    frame_size: int
    """Height and width of the frames it takes, pixels."""
    fingerprint: str
    """Name and hash of the weights: equal fingerprints mean equal embeddings up to rounding on another machine."""

    def encode_image(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames (N, frame_size, frame_size, 3) uint8 RGB to embeddings (N, D) float32 of length 1.

        Raises PrefVLMError for another shape or dtype, or where an embedding is not finite.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to embeddings (M, D) float32 of length 1. Raises PrefVLMError for an empty text."""
        ...


def load(name: str, weights: str | Path | None = None) -> VisionLanguageModel:
    """The vision-language model called `name`, an entry of `VLMS`.

    Args:
        name: "tinyliv" and its variants come with the package; "liv", "decisionnce" and "open_clip:<model>", such as
            "open_clip:ViT-B-32", read the checkpoint file `weights` and need the extra `prefvlm[openclip]`.
        weights: The checkpoint file.

    Raises PrefVLMError for an unknown name, or a file that is missing or is not this model's.
    """
    return VLMS[name](name, weights)


def _load_tinyliv(name: str, weights: str | Path | None) -> VisionLanguageModel:
    from prefvlm_core.vlm import tinyliv

    if weights is not None:
        raise PrefVLMError(f"'{name}' comes with the package and takes no weights file, but got {weights}.")
    return tinyliv.random() if name == "random" else tinyliv.TinyLIV.load(tinyliv.WEIGHTS / f"{name}.safetensors")


def _load_open_clip(name: str, weights: str | Path | None) -> VisionLanguageModel:
    from prefvlm_core.vlm.open_clip import load as load_open_clip

    return load_open_clip(name, weights)


VLMS: Registry[Callable[[str, str | Path | None], VisionLanguageModel]] = Registry(
    "vision-language model",
    dict.fromkeys(TINYLIV_NAMES, _load_tinyliv) | dict.fromkeys((*OFFICIAL_NAMES, OPEN_CLIP_PREFIX), _load_open_clip),
)
"""`vlm.model` -> what loads the model, from its name and its weights file. A simulated model, `simulated:<p>`, is not
loaded: it sees no frames (`vlm.labeller.SimulatedVLM`)."""


def check_frames(frames: NDArray[np.uint8], size: int) -> None:
    """Raise PrefVLMError unless `frames` are (N, size, size, 3) uint8."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (size, size, 3):
        raise PrefVLMError(
            f"This model takes frames of dtype uint8 and shape (N, {size}, {size}, 3), "
            f"got {frames.dtype} and {frames.shape}."
        )


def check_texts(texts: Sequence[str]) -> None:
    """Raise PrefVLMError for a single string in place of a list of them, and for an empty text."""
    if isinstance(texts, str):
        raise PrefVLMError(f"encode_text takes a list of texts, got the single text '{texts}'.")
    for index, text in enumerate(texts):
        if not text.strip():
            raise PrefVLMError(f"Text {index} is empty, so there is nothing to encode.")


def unit_length(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """`features` (N, D) scaled to length 1. Raises PrefVLMError where a row has NaN, infinity or only zeros."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] > 0)))
    if wrong.size:
        raise PrefVLMError(
            f"{wrong.size} of {len(features)} embeddings are not finite or all zero (the first is number {wrong[0]}): "
            "the model's weights are damaged."
        )
    return features / length
