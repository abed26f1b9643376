"""LIV, DecisionNCE and any other CLIP model of open_clip, read from a checkpoint file (extra `prefvlm[openclip]`)."""

import difflib
import hashlib
import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.vlm import OPEN_CLIP_PREFIX, ImageTextModel, check_texts, unit_length
from prefvlm_core.vlm.embedding import embed_in_batches
from prefvlm_core.vlm.state_dicts import fit
from prefvlm_core.vlm.weight_files import read_weights

_BATCHES = {"cpu": 16, "cuda": 256}  # images per forward pass, by device


@dataclass(frozen=True)
class _Checkpoint:
    """What is known about a published model's checkpoint file."""

    architecture: str
    """Name of the architecture in open_clip."""
    source: str
    """Where to get the file, for error messages."""
    default: str | None = None
    """The path that is read if none is given."""


_LIV = _Checkpoint(
    architecture="RN50-quickgelu",
    source="the file model.pt of the Hugging Face repository jasonyma/LIV",
    default="~/.liv/resnet50/model.pt",  # where LIV's own code puts it
)
_DECISIONNCE = _Checkpoint(
    architecture="RN50-quickgelu", source="the links in the README of github.com/2toinf/DecisionNCE"
)


class OpenClip(ImageTextModel):
    """A CLIP model of open_clip in float32, or on the GPU if there is one, its images by torch's autocast to float16.

    Frames must have the model's own size, so nothing is resized or cropped; they are scaled to [0, 1] and normalized
    as the model requires. LIV's code leaves frames unscaled if none of their pixels exceeds 10; this is not reproduced.
    """

    def __init__(self, model: Any, tokenizer: Any, fingerprint: str) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.float().eval().requires_grad_(False).to(self._device)
        self._tokenizer = tokenizer
        visual = model.visual
        self.frame_size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
        self.fingerprint = fingerprint
        self._mean = torch.tensor(visual.image_mean, device=self._device).view(3, 1, 1)
        self._std = torch.tensor(visual.image_std, device=self._device).view(3, 1, 1)

    @torch.inference_mode()
    def encode_image(self, frames: ImageArray) -> FloatArray:
        """See `VisionLanguageModel`."""
        return embed_in_batches(
            self._encode_batch, frames, self.frame_size, self._dimension, _BATCHES[self._device.type]
        )

    def _encode_batch(self, frames: Tensor) -> Tensor:
        images = frames.to(self._device).permute(0, 3, 1, 2).float().div(255)
        with torch.autocast("cuda", torch.float16, enabled=self._device.type == "cuda"):
            features: Tensor = self._model.encode_image((images - self._mean) / self._std)
        return features.float()

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """See `VisionLanguageModel`. open_clip truncates texts to the model's context (77 tokens in CLIP)."""
        check_texts(texts)
        features = [self._model.encode_text(self._tokenizer([text]).to(self._device)).cpu() for text in texts]
        return unit_length(torch.cat(features).numpy()) if features else np.empty((0, self._dimension), np.float32)

    @property
    def _dimension(self) -> int:
        return self._model.visual.output_dim


def load(name: str, weights: str | Path | None) -> OpenClip:
    """Load "liv", "decisionnce" or "open_clip:<model>" from the checkpoint file `weights`.

    LIV's official file holds {"liv": {"module.model.<CLIP's name>": tensor}}. Those of its training script and of
    DecisionNCE hold {"model": {"model.<CLIP's name>": tensor}}, and those of open_clip a state dict, bare or under
    "state_dict". These and other layouts are read, see `weight_files` and `state_dicts`, also as safetensors.

    Raises PrefVLMError if open_clip is not installed, if it does not know the model, and if the file is missing, is
    something else, could run code, or holds other tensors than the model.
    """
    open_clip = import_open_clip()
    checkpoint = _checkpoint(name)
    _check_architecture(checkpoint.architecture, open_clip.list_models())
    path = checkpoint_file(name, weights)
    tensors = read_weights(path)
    _check_activation(tensors, checkpoint.architecture, open_clip.list_models(), path)
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random; they are replaced below
    try:
        with torch.random.fork_rng():  # so that the caller's random numbers do not change
            model = open_clip.create_model(checkpoint.architecture)
    finally:
        logging.disable(logging.NOTSET)
    model.load_state_dict(fit(tensors, model.state_dict(), path, checkpoint.architecture))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
    return OpenClip(model, open_clip.get_tokenizer(checkpoint.architecture), f"{name}-{digest[:12]}")


def checkpoint_file(name: str, weights: str | Path | None) -> Path:
    """The checkpoint file of a model that `load` takes, if `weights` names it or it lies where its own code puts it.

    Raises PrefVLMError if it is missing.
    """
    checkpoint = _checkpoint(name)
    path = Path(weights or checkpoint.default or "").expanduser()
    if not (weights or checkpoint.default) or not path.exists():
        where = f"the file {path} does not exist" if weights or checkpoint.default else "no file was named"
        raise PrefVLMError(
            f"'{name}' needs its weights, but {where}. Get them from {checkpoint.source}; 'tinyliv' needs no download."
        )
    return path


def _checkpoint(name: str) -> _Checkpoint:
    if name.startswith(OPEN_CLIP_PREFIX):
        return _Checkpoint(name.removeprefix(OPEN_CLIP_PREFIX), "the model's page, as .pt or .safetensors")
    return {"liv": _LIV, "decisionnce": _DECISIONNCE}[name]


def import_open_clip() -> Any:
    """open_clip. Raises PrefVLMError, with what helps, where it is missing or cannot be imported."""
    try:
        importlib.import_module("torchvision")  # alone first: what open_clip raises does not tell whose fault it is
    except ModuleNotFoundError as error:
        raise _unavailable(f"({error}): pip install 'prefvlm[openclip]'") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise _unavailable(
            f"and it torchvision, which was built for another torch than {torch.__version__} "
            f"({str(error).splitlines()[0]}): install both anew from one source, "
            "pip install --force-reinstall torch torchvision"
        ) from error
    try:
        return importlib.import_module("open_clip")
    except ModuleNotFoundError as error:
        raise _unavailable(f"({error}): pip install 'prefvlm[openclip]'") from error
    except ImportError as error:
        raise _unavailable(f"({error}): pip install --force-reinstall open_clip_torch timm") from error


def _unavailable(why: str) -> PrefVLMError:
    return PrefVLMError(f"This model needs open_clip {why}; 'tinyliv' works without it.")


def _check_architecture(name: str, known: Sequence[str]) -> None:
    """Raise PrefVLMError for a name that open_clip does not know, suggesting the closest one or the one it contains."""
    if name in known:
        return
    contained = [model for model in known if model.lower() in name.replace("/", "-").lower()]
    if contained and not difflib.get_close_matches(name, known, n=1, cutoff=0.8):
        raise PrefVLMError(
            f"Unknown open_clip model '{name}'. Did you mean '{OPEN_CLIP_PREFIX}{max(contained, key=len)}'? The name "
            "is that of an architecture alone; which weights it has follows from the file."
        )
    raise unknown_name("open_clip model", name, known)


def _check_activation(tensors: Mapping[str, Tensor], architecture: str, known: Sequence[str], path: Path) -> None:
    """Raise PrefVLMError for OpenAI's weights in the variant of the architecture with the usual GELU.

    OpenAI trained with QuickGELU. The tensors fit both variants, but the embeddings would be wrong.
    """
    quick = f"{architecture}-quickgelu"
    if any(name.endswith("input_resolution") for name in tensors) and quick in known:
        raise PrefVLMError(f"{path} holds OpenAI's weights, which need QuickGELU: name {OPEN_CLIP_PREFIX}{quick}.")
