"""TinyLIV: a LIV of 1.6 million parameters that comes with the package, for machines where LIV's RN50 is too slow.

`pretraining/pretrain.py` trains its second generation on films of Meta-World's scripted experts. The cards
`weights/tinyliv.md` and `weights/tinyliv2.md` report the accuracy of the first, which was trained with LIV's objective,
and of the second.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.metaworld_texts import TASK_TEXTS
from prefvlm_core.runs.files import write_atomically
from prefvlm_core.vlm import ImageTextModel, check_texts, unit_length
from prefvlm_core.vlm.embedding import embed_in_batches
from prefvlm_core.vlm.state_dicts import misfit

WEIGHTS = Path(__file__).parent / "weights"
FRAME_SIZE = 64
EMBEDDING_SIZE = 128

_CHANNELS = (32, 64, 128, 256)
_HIDDEN_SIZE = 256
_BATCH = 64  # frames per forward pass
_UNKNOWN_WORD = 0


class TinyLIVNetwork(nn.Module):
    """Encodes images by four strided convolutions and texts by the mean of word embeddings, each with two linear
    layers on top. With `folded`, there are no batch norms.
    """

    def __init__(self, word_count: int, folded: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3
        for index, channels in enumerate(_CHANNELS):
            width = 5 if index == 0 else 3
            layers.append(nn.Conv2d(previous, channels, width, stride=2, padding=width // 2, bias=folded))
            if not folded:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU())
            previous = channels
        flat = previous * (FRAME_SIZE // 2 ** len(_CHANNELS)) ** 2
        self.image = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(flat, _HIDDEN_SIZE), nn.ReLU(), nn.Linear(_HIDDEN_SIZE, EMBEDDING_SIZE)
        )
        self.words = nn.EmbeddingBag(
            word_count + 1, EMBEDDING_SIZE, mode="mean"
        )  # entry 0 stands for every unknown word
        self.text = nn.Sequential(
            nn.Linear(EMBEDDING_SIZE, _HIDDEN_SIZE), nn.ReLU(), nn.Linear(_HIDDEN_SIZE, EMBEDDING_SIZE)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def encode_image(self, frames: Tensor) -> Tensor:
        """Embeddings (N, 128), not normalized, of frames (N, 64, 64, 3) in [0, 255]."""
        # A view of NHWC memory as NCHW is torch's channels_last format, so nothing is copied.
        return self.image(frames.permute(0, 3, 1, 2).float().div(255))

    def encode_text(self, words: Tensor, starts: Tensor) -> Tensor:
        """Embeddings (M, 128), not normalized, of M texts, given as `word_indices` returns them."""
        return self.text(self.words(words, starts))

    def fold(self) -> "TinyLIVNetwork":
        """A copy for inference, whose batch norms are folded into the convolutions."""
        folded = TinyLIVNetwork(self.words.num_embeddings - 1, folded=True)
        layers, target = list(self.image), iter(folded.image)
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if isinstance(layer, nn.BatchNorm2d):
                continue
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                layer = fuse_conv_bn_eval(layer.eval(), following.eval())
            next(target).load_state_dict(layer.state_dict())
        folded.words.load_state_dict(self.words.state_dict())
        folded.text.load_state_dict(self.text.state_dict())
        return folded


class TinyLIV(ImageTextModel):
    """A trained (or random) folded network.

    Args:
        name: The name, which precedes the hash in `fingerprint`.
        network: A folded network in float32.
        vocabulary: The words that the network knows; word i has embedding i + 1.
    """

    frame_size = FRAME_SIZE

    def __init__(self, name: str, network: TinyLIVNetwork, vocabulary: Sequence[str]) -> None:
        self.name = name
        self.vocabulary = tuple(vocabulary)
        self.network = network.eval().requires_grad_(False)
        digest = hashlib.blake2b(" ".join(vocabulary).encode(), digest_size=6)
        for key, tensor in sorted(network.state_dict().items()):
            digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
        self.fingerprint = f"{name}-{digest.hexdigest()}"

    @torch.inference_mode()
    def encode_image(self, frames: ImageArray) -> FloatArray:
        """See `VisionLanguageModel`. Frames are (N, 64, 64, 3)."""
        return embed_in_batches(self.network.encode_image, frames, FRAME_SIZE, EMBEDDING_SIZE, _BATCH)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """See `VisionLanguageModel`. Case, punctuation and the order of the words do not matter."""
        check_texts(texts)
        features = [self.network.encode_text(*word_indices([text], self.vocabulary)) for text in texts]
        return unit_length(torch.cat(features).numpy()) if features else np.empty((0, EMBEDDING_SIZE), np.float32)

    def save(self, path: Path) -> None:
        """Write the weights as float16 safetensors, with the vocabulary in the header."""
        tensors = {key: tensor.half().contiguous() for key, tensor in self.network.state_dict().items()}
        write_atomically(path, safetensors.torch.save(tensors, {"vocabulary": json.dumps(self.vocabulary)}))

    @classmethod
    def load(cls, path: Path) -> "TinyLIV":
        """Read what `save` wrote. Raises PrefVLMError for a file that is missing, damaged or of another network."""
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                vocabulary = json.loads((file.metadata() or {}).get("vocabulary", "null"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except (OSError, safetensors.SafetensorError, ValueError, RecursionError) as error:
            raise PrefVLMError(f"{path} does not hold a TinyLIV network: {' '.join(str(error).split())}.") from error
        if not isinstance(vocabulary, list) or not all(isinstance(word, str) and word for word in vocabulary):
            raise PrefVLMError(f"{path} does not hold a TinyLIV network: its vocabulary is no list of words.")
        network = TinyLIVNetwork(len(vocabulary), folded=True)
        if found := misfit(tensors, network.state_dict()):
            raise PrefVLMError(f"{path} does not hold a TinyLIV network: {found}.")
        network.load_state_dict(tensors)
        return cls(path.stem, network, vocabulary)


def random(seed: int = 0) -> TinyLIV:
    """The same network with random weights, to see what adapters learn from features without any training."""
    vocabulary = words_of(TASK_TEXTS.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TinyLIVNetwork(len(vocabulary), folded=True)
    return TinyLIV("random", network, vocabulary)


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words of `texts`, sorted."""
    return sorted({word for text in texts for word in _split(text)})


def word_indices(texts: Sequence[str], vocabulary: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The concatenated word indices of all texts, and the index at which each text starts in them, both int64."""
    known = {word: index for index, word in enumerate(vocabulary, start=1)}
    sentences = [[known.get(word, _UNKNOWN_WORD) for word in _split(text)] or [_UNKNOWN_WORD] for text in texts]
    starts = np.cumsum([0] + [len(sentence) for sentence in sentences[:-1]])
    return torch.tensor([index for sentence in sentences for index in sentence]), torch.from_numpy(starts)


def _split(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())
