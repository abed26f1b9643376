"""Tests of checkpoints read through open_clip against an independent implementation, with random weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

from prefvlm_core import vlm
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm import open_clip as ours


def declare_torchvision_operators():
    """Make torchvision importable with a torch for which it was not built: declare its operators, which go uncalled."""
    library = torch.library.Library("torchvision", "DEF")
    forward = ["roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"]
    for name in ["nms", "qnms", "qroi_align", *forward, *(f"_{name}_backward" for name in forward)]:
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


try:
    import open_clip
except ImportError:
    pytest.skip("open_clip is not installed: pip install 'prefvlm[openclip]'", allow_module_level=True)
except RuntimeError:  # torchvision's compiled operators do not load with this torch
    _operators = declare_torchvision_operators()
    import open_clip


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory):
    """A state dict for a small CLIP with LIV's kind of architecture, which open_clip knows as "tiny"."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    return random_state("tiny")


def random_state(architecture):
    """Random weights of a CLIP, with batch norms other than the identity."""
    torch.manual_seed(0)
    state = open_clip.create_model(architecture).state_dict()
    for key, tensor in state.items():
        if key.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
    return state


def image_tower(state, frames):
    """CLIP's modified ResNet, written from its paper (Radford et al. 2021, §2.4) with torch's functions only."""
    state = {key.removeprefix("visual."): tensor.float() for key, tensor in state.items()}
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    hidden = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    def convolve(hidden, conv, norm, stride=1):
        weight = state[f"{conv}.weight"]
        hidden = functional.conv2d(hidden, weight, stride=stride, padding=weight.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(hidden, *(state[f"{norm}.{name}"] for name in names))

    for index, stride in ((1, 2), (2, 1), (3, 1)):
        hidden = convolve(hidden, f"conv{index}", f"bn{index}", stride).relu()
    hidden = functional.avg_pool2d(hidden, 2)
    for layer in range(1, 5):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            name, before = f"layer{layer}.{block}", hidden
            for index in (1, 2):
                hidden = convolve(hidden, f"{name}.conv{index}", f"{name}.bn{index}").relu()
            if block == 0 and layer > 1:
                hidden, before = functional.avg_pool2d(hidden, 2), functional.avg_pool2d(before, 2)
            if block == 0:
                before = convolve(before, f"{name}.downsample.0", f"{name}.downsample.1")
            hidden = (convolve(hidden, f"{name}.conv3", f"{name}.bn3") + before).relu()
            block += 1
    tokens = hidden.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + state["attnpool.positional_embedding"]

    def project(tokens, name):
        return functional.linear(tokens, state[f"attnpool.{name}.weight"], state[f"attnpool.{name}.bias"])

    query, key, value = (
        project(tokens, name).unflatten(-1, (-1, 64)).transpose(1, 2) for name in ("q_proj", "k_proj", "v_proj")
    )
    weights = torch.softmax(query[:, :, :1] @ key.transpose(2, 3) / 8, dim=-1)
    return project((weights @ value).transpose(1, 2).flatten(2)[:, 0], "c_proj").numpy()


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def frames_of(size, count=3):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_livs_official_checkpoint_gives_the_embeddings_of_its_architecture(tmp_path):
    """The published layout has names with two prefixes and matrices in half precision, under "liv"."""
    state = {
        key: tensor.half() if tensor.ndim > 1 else tensor for key, tensor in random_state("RN50-quickgelu").items()
    }
    torch.save({"liv": {f"module.model.{key}": tensor for key, tensor in state.items()}}, tmp_path / "model.pt")
    model = vlm.load("liv", tmp_path / "model.pt")
    assert model.frame_size == 224 and model.fingerprint.startswith("liv-")
    frames = frames_of(224, 1)
    embedding = model.encode_image(frames)
    assert embedding.shape == (1, 1024) and embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, unit(image_tower(state, frames)), atol=1e-4)
    reference = open_clip.create_model("RN50-quickgelu")
    reference.load_state_dict(state)
    with torch.no_grad():
        text = reference.float().eval().encode_text(open_clip.tokenize(["open a drawer"])).numpy()
    np.testing.assert_allclose(model.encode_text(["open a drawer"]), unit(text), atol=1e-4)


@pytest.fixture
def tiny_papers(monkeypatch):
    """Give "liv" and "decisionnce" the tiny architecture, so that files are small."""
    monkeypatch.setattr(ours, "_LIV", replace(ours._LIV, architecture="tiny"))
    monkeypatch.setattr(ours, "_DECISIONNCE", replace(ours._DECISIONNCE, architecture="tiny"))


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("liv", lambda state: {"liv": {f"module.model.{key}": tensor for key, tensor in state.items()}}),
        ("liv", lambda state: {"model": {f"model.{key}": tensor for key, tensor in state.items()}, "optimizer": {}}),
        ("decisionnce", lambda state: {"model": {f"model.{key}": state[key] for key in state if key != "logit_scale"}}),
        ("decisionnce", lambda state: {f"model.{key}": tensor for key, tensor in state.items()}),
        ("open_clip:tiny", lambda state: state),
        ("open_clip:tiny", lambda state: {"epoch": 3, "state_dict": {f"module.{key}": state[key] for key in state}}),
        ("open_clip:tiny", lambda state: state | {"logit_scale": state["logit_scale"].reshape(1)}),
        ("liv", lambda state: {"liv": {f"module._orig_mod.model.{key}": state[key] for key in state}}),
    ],
)
def test_checkpoints_of_every_layout_give_the_same_embeddings(tiny, tiny_papers, tmp_path, name, wrap):
    torch.save(wrap(tiny), tmp_path / "file.pt")
    model = vlm.load(name, tmp_path / "file.pt")
    frames = frames_of(32)
    np.testing.assert_allclose(model.encode_image(frames), unit(image_tower(tiny, frames)), atol=1e-5)


def test_safetensors_are_read_and_fingerprints_follow_from_the_weights(tiny, tmp_path):
    paths = [tmp_path / f"{index}.safetensors" for index in range(3)]
    for index, path in enumerate(paths):
        safetensors.torch.save_file(tiny | {"logit_scale": torch.tensor(float(index // 2))}, path)
    models = [vlm.load("open_clip:tiny", path) for path in paths]
    assert models[0].fingerprint == models[1].fingerprint != models[2].fingerprint
    frames = frames_of(32)
    np.testing.assert_allclose(models[0].encode_image(frames), unit(image_tower(tiny, frames)), atol=1e-5)


def test_an_embedding_does_not_depend_on_its_batch(tiny, tmp_path):
    torch.save(tiny, tmp_path / "file.pt")
    model = vlm.load("open_clip:tiny", tmp_path / "file.pt")
    frames = frames_of(32, 20)
    together = model.encode_image(frames)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(model.encode_image(frames[order]), together[order])
    np.testing.assert_array_equal(model.encode_image(frames[17:18])[0], together[17])
    texts = ["open a door", "press the button of the coffee machine"]
    np.testing.assert_array_equal(model.encode_text(texts)[1:], model.encode_text(texts[1:]))
    assert model.encode_image(frames[:0]).shape == model.encode_text([]).shape == (0, 16)


def test_larger_batches_as_on_a_gpu_change_embeddings_by_rounding_alone(tiny, tmp_path, monkeypatch):
    torch.save(tiny, tmp_path / "file.pt")
    model = vlm.load("open_clip:tiny", tmp_path / "file.pt")
    frames = frames_of(32, 20)
    small = model.encode_image(frames)
    monkeypatch.setitem(ours._BATCHES, "cpu", ours._BATCHES["cuda"])
    np.testing.assert_allclose(model.encode_image(frames), small, atol=1e-6)


class Attack:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_checkpoints_with_code_are_refused(tiny_papers, tmp_path, capsys):
    torch.save({"liv": Attack()}, tmp_path / "model.pt")
    with pytest.raises(PrefVLMError, match=r"more than tensors \(print\), and .* run code, so it is not opened"):
        vlm.load("liv", tmp_path / "model.pt")
    assert "never be printed" not in capsys.readouterr().out


def test_missing_and_wrong_files_are_named(tiny, tiny_papers, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        PrefVLMError, match=r"\.liv/resnet50/model\.pt does not exist.*jasonyma/LIV; 'tinyliv' needs no"
    ):
        vlm.load("liv")
    with pytest.raises(PrefVLMError, match=r"no file was named.*2toinf/DecisionNCE; 'tinyliv' needs no download"):
        vlm.load("decisionnce")
    with pytest.raises(PrefVLMError, match=r"Unknown open_clip model 'RN50-quickgel'\. Did you mean 'RN50-quickgelu'"):
        vlm.load("open_clip:RN50-quickgel", tmp_path / "x.pt")
    path = tmp_path / "wrong.pt"
    wrong = {"visual.conv9.weight": torch.zeros(1)} | {key: tiny[key] for key in tiny if not key.startswith("ln_final")}
    torch.save(wrong | {"text_projection": torch.zeros(3, 3)}, path)
    with pytest.raises(
        PrefVLMError,
        match=r"wrong.pt does not fit tiny: 2 missing: ln_final.bias, ln_final.weight; "
        r"1 not known: visual.conv9.weight; 1 of another shape: text_projection\.",
    ):
        vlm.load("liv", path)
    torch.save([torch.zeros(3)], path)
    with pytest.raises(PrefVLMError, match=r"wrong.pt holds no tensors with names"):
        vlm.load("liv", path)
    path.write_bytes(b"PK no archive")
    with pytest.raises(PrefVLMError, match=r"wrong.pt is a text that begins with 'PK no archive'"):
        vlm.load("liv", path)
    with pytest.raises(PrefVLMError, match=r"is a folder; name the file of weights in it"):
        vlm.load("liv", tmp_path)


@pytest.mark.parametrize("written", ["ViT-B/32", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B", "ViT-B-32,laion2b_s34b"])
def test_other_ways_to_name_a_model_lead_to_its_architecture(written):
    with pytest.raises(PrefVLMError, match=r"Did you mean '(open_clip:)?ViT-B-32'\?"):
        vlm.load(f"open_clip:{written}", "x.pt")


def test_openais_weights_need_the_variant_with_their_activation(tiny, tmp_path, monkeypatch):
    torch.save(tiny | {"input_resolution": torch.tensor(32)}, tmp_path / "file.pt")
    vlm.load("open_clip:tiny", tmp_path / "file.pt")  # of which there is no other variant
    monkeypatch.setattr(open_clip, "list_models", lambda: ["tiny", "tiny-quickgelu"])
    with pytest.raises(PrefVLMError, match=r"OpenAI's weights, which need QuickGELU: name open_clip:tiny-quickgelu"):
        vlm.load("open_clip:tiny", tmp_path / "file.pt")
    torch.save(tiny, tmp_path / "file.pt")
    vlm.load("open_clip:tiny", tmp_path / "file.pt")


def test_bad_input_is_named(tiny, tmp_path):
    torch.save(tiny, tmp_path / "file.pt")
    model = vlm.load("open_clip:tiny", tmp_path / "file.pt")
    with pytest.raises(PrefVLMError, match=r"shape \(N, 32, 32, 3\), got uint8 and \(3, 64, 64, 3\)"):
        model.encode_image(frames_of(64))
    with pytest.raises(PrefVLMError, match="Text 0 is empty"):
        model.encode_text([""])
    torch.save(tiny | {"visual.bn1.running_mean": tiny["visual.bn1.running_mean"] * float("nan")}, tmp_path / "nan.pt")
    with pytest.raises(PrefVLMError, match=r"does not fit tiny: 1 not finite: visual\.bn1\.running_mean"):
        vlm.load("open_clip:tiny", tmp_path / "nan.pt")
