"""LIV, DecisionNCE and any other CLIP model of open_clip, read from a checkpoint file (extra `prefvlm[openclip]`)."""

import hashlib
import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.vlm import OPEN_CLIP_PREFIX, check_frames, check_texts, unit_length

_BATCH = 16  # images per forward pass, always as many because torch may round other batch sizes differently


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


class OpenClip:
    """A CLIP model of open_clip in float32 as a `VisionLanguageModel`, on the GPU if there is one.

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
        check_frames(frames, self.frame_size)
        features = []
        batch = torch.zeros(_BATCH, self.frame_size, self.frame_size, 3, dtype=torch.uint8)
        for start in range(0, len(frames), _BATCH):
            part = torch.from_numpy(np.ascontiguousarray(frames[start : start + _BATCH]))
            batch[: len(part)] = part
            images = batch.to(self._device).permute(0, 3, 1, 2).float().div(255)
            features.append(self._model.encode_image((images - self._mean) / self._std)[: len(part)].cpu())
        return unit_length(torch.cat(features).numpy()) if features else np.empty((0, self._dimension), np.float32)

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
    "state_dict". All are read here, also as .safetensors. Nothing but tensors is ever read from them.

    Raises PrefVLMError if open_clip is not installed, if it does not know the model, and if the file is missing,
    contains code, or holds other tensors than the model.
    """
    open_clip = _import_open_clip()
    if name.startswith(OPEN_CLIP_PREFIX):
        checkpoint = _Checkpoint(name.removeprefix(OPEN_CLIP_PREFIX), "the model's page, as .pt or .safetensors")
    else:
        checkpoint = {"liv": _LIV, "decisionnce": _DECISIONNCE}[name]
    if checkpoint.architecture not in open_clip.list_models():
        raise unknown_name("open_clip model", checkpoint.architecture, open_clip.list_models())
    path = Path(weights or checkpoint.default or "").expanduser()
    if not path.is_file():
        where = f"the file {path} does not exist" if weights or checkpoint.default else "no file was named"
        raise PrefVLMError(
            f"'{name}' needs its weights, but {where}. Get them from {checkpoint.source}; 'tinyliv' needs no download."
        )
    tensors = _read_tensors(path)
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random; they are replaced below
    try:
        with torch.random.fork_rng():  # so that the caller's random numbers do not change
            model = open_clip.create_model(checkpoint.architecture)
    finally:
        logging.disable(logging.NOTSET)
    wanted = model.state_dict()
    tensors.setdefault("logit_scale", wanted["logit_scale"])  # only training uses it; DecisionNCE leaves it out
    _check_names_and_shapes(tensors, wanted, path, checkpoint.architecture)
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
    return OpenClip(model, open_clip.get_tokenizer(checkpoint.architecture), f"{name}-{digest[:12]}")


def _import_open_clip() -> Any:
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # a RuntimeError means that torchvision does not match torch
        raise PrefVLMError(
            f"This model needs open_clip ({error}): pip install 'prefvlm[openclip]'; 'tinyliv' works without it."
        ) from error
    return open_clip


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors under CLIP's own names."""
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PrefVLMError(
            f"{path} holds more than tensors, and opening it could run code, so it is not opened. If you trust its "
            "source, save its state dict alone with torch.save or safetensors, and load that."
        ) from error
    except (RuntimeError, safetensors.SafetensorError, OSError, EOFError) as error:
        raise PrefVLMError(f"{path} is damaged or not a file of tensors: {str(error).splitlines()[0]}") from error
    for key in ("liv", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise PrefVLMError(f"{path} holds no state dict of tensors, bare or under 'liv', 'model' or 'state_dict'.")
    return {key.removeprefix("module.").removeprefix("model."): tensor for key, tensor in content.items()}


def _check_names_and_shapes(
    tensors: dict[str, Tensor], wanted: dict[str, Tensor], path: Path, architecture: str
) -> None:
    complaints = {
        "missing": wanted.keys() - tensors.keys(),
        "not known": tensors.keys() - wanted.keys(),
        "of another shape": {key for key in tensors.keys() & wanted.keys() if tensors[key].shape != wanted[key].shape},
    }
    found = "; ".join(
        f"{len(keys)} {kind}: {', '.join(sorted(keys)[:3])}{', …' * (len(keys) > 3)}"
        for kind, keys in complaints.items()
        if keys
    )
    if found:
        raise PrefVLMError(f"{path} does not fit {architecture}: {found}.")
