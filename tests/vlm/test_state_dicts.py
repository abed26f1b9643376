"""Tests that every published layout of a checkpoint gives the tensors of the model, on a tiny stand-in for CLIP."""

import argparse
import itertools
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm.state_dicts import fit
from prefvlm_core.vlm.weight_files import read_weights


def clip() -> dict[str, torch.Tensor]:
    """A state dict with CLIP's names, two of which end alike, as far as the layouts can tell models apart."""
    torch.manual_seed(0)
    shapes = {
        "positional_embedding": (4, 8),
        "text_projection": (8, 8),
        "logit_scale": (),
        "visual.conv1.weight": (8, 3, 2, 2),
        "visual.bn1.running_mean": (8,),
        "visual.transformer.resblocks.0.ln_1.weight": (8,),
        "transformer.resblocks.0.ln_1.weight": (8,),
        "token_embedding.weight": (16, 8),
    }
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    return state | {"visual.bn1.num_batches_tracked": torch.tensor(7)}


CLIP = clip()
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(4.0)}}, "param_groups": [{"lr": 1e-3}]}


def named(prefix: str, state: dict = CLIP) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def halved() -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in CLIP.items()}


OPENAI = {
    **{name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in CLIP.items()},
    "input_resolution": torch.tensor(224),
    "context_length": torch.tensor(77),
    "vocab_size": torch.tensor(49408),
}
LAYOUTS = {
    "bare": CLIP,
    "ordered": OrderedDict(CLIP),
    "parameters": {name: torch.nn.Parameter(CLIP[name], requires_grad=False) for name in CLIP},
    "openai": OPENAI,
    "half precision, all": halved(),
    "double": {name: tensor.double() for name, tensor in CLIP.items()},
    "logit_scale of shape [1]": CLIP | {"logit_scale": CLIP["logit_scale"].reshape(1)},
    "open_clip": {"epoch": 3, "name": "run", "state_dict": named("module."), "optimizer": OPTIMIZER, "scaler": {}},
    "open_clip, NumPy": {"epoch": np.int64(3), "loss": np.float32(0.5), "acc": np.bool_(True), "state_dict": CLIP},
    "Lightning": {"state_dict": named("model."), "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 1e-3}},
    "Lightning, CLIP": {"state_dict": named("clip_model.model."), "callbacks": {}},
    "LIV": {"liv": named("module.model.")},
    "LIV, with another head": {"liv": named("module.model.") | {"module.lang_proj.weight": torch.zeros(3)}},
    "LIV, training": {"model": named("model."), "optimizer": OPTIMIZER, "global_step": 5},
    "DecisionNCE": {"model": named("model.", {name: CLIP[name] for name in CLIP if name != "logit_scale"})},
    "DataParallel": named("module."),
    "DataParallel twice": named("module.module."),
    "compiled": named("_orig_mod."),
    "compiled, parallel": named("module._orig_mod."),
    "parallel, compiled": named("_orig_mod.module."),
    "one tower compiled": {name.replace("visual.", "visual._orig_mod."): tensor for name, tensor in CLIP.items()},
    "FSDP": named("_fsdp_wrapped_module."),
    "a student's": named("clip."),
    "backbone": {"state_dict": named("backbone.clip.")},
    "model_state_dict": {"model_state_dict": CLIP, "optimizer_state_dict": OPTIMIZER, "epoch": 1},
    "nested": {"checkpoint": {"network": {"model": named("module.clip.")}}},
    "one dictionary twice": {"model": CLIP, "liv": CLIP},
    "old positions": CLIP | {"transformer.embeddings.position_ids": torch.arange(4)},
}


def equal(found: dict[str, torch.Tensor], layout: str) -> bool:
    tolerance = 2e-3 if "half" in layout or layout == "openai" else 0
    names = found.keys() - ({"logit_scale"} if layout == "DecisionNCE" else set())
    return found.keys() == CLIP.keys() and all(
        found[name].dtype == CLIP[name].dtype and torch.allclose(found[name], CLIP[name], atol=tolerance, rtol=1e-3)
        for name in names
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_layout_of_torch_gives_the_same_tensors(layout, zipped, tmp_path):
    path = tmp_path / "weights.bin"
    torch.save(LAYOUTS[layout], path, _use_new_zipfile_serialization=zipped)
    wanted = {name: torch.zeros_like(tensor) for name, tensor in CLIP.items()}
    assert equal(fit(read_weights(path), wanted, path, "tiny"), layout)


@pytest.mark.parametrize("name", ["model.safetensors", "open_clip_pytorch_model.bin", "model.pt", "weights"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "state_dict.model._orig_mod."])
def test_safetensors_are_read_under_any_name(name, prefix, tmp_path):
    path = tmp_path / name
    safetensors.torch.save_file(named(prefix), path, {"format": "pt"})
    assert equal(fit(read_weights(path), CLIP, path, "tiny"), "")


def test_what_lies_beside_the_model_is_named(tmp_path, caplog):
    fit(read_weights_of(LAYOUTS["LIV, with another head"], tmp_path), CLIP, tmp_path / "model.pt", "tiny")
    fit(read_weights_of(LAYOUTS["LIV, training"], tmp_path), CLIP, tmp_path / "model.pt", "tiny")
    fit(read_weights_of(OPENAI, tmp_path), CLIP, tmp_path / "model.pt", "tiny")
    fit(read_weights_of(CLIP, tmp_path), CLIP, tmp_path / "model.pt", "tiny")
    assert [record.getMessage().partition(" holds ")[2] for record in caplog.records] == [
        "1 tensors beside tiny, which are ignored: liv.lang_proj.",
        "2 tensors beside tiny, which are ignored: optimizer.state.",
        "3 tensors beside tiny, which are ignored: context_length, input_resolution, vocab_size.",
    ]


def read_weights_of(content, folder):
    torch.save(content, folder / "model.pt")
    return read_weights(folder / "model.pt")


def without(*names):
    return {name: tensor for name, tensor in CLIP.items() if name not in names}


REFUSED = {
    "one tower": ({n: t for n, t in CLIP.items() if n.startswith("visual.")}, "4 missing: positional_embedding, "),
    "one missing": (without("text_projection"), r"does not fit tiny: 1 missing: text_projection\.$"),
    "more layers": (
        CLIP | {"visual.transformer.resblocks.1.ln_1.weight": torch.zeros(8)},
        r"1 not known: visual\.transformer\.resblocks\.1\.ln_1\.weight",
    ),
    "another shape": (CLIP | {"text_projection": torch.zeros(8, 4)}, "1 of another shape: text_projection"),
    "NaN": (CLIP | {"text_projection": torch.full((8, 8), torch.nan)}, "1 not finite: text_projection"),
    "infinite, half": (CLIP | {"text_projection": torch.full((8, 8), torch.inf).half()}, "1 not finite: text_proj"),
    "integers": (CLIP | {"text_projection": torch.ones(8, 8).int()}, "1 of another type: text_projection"),
    "complex": (CLIP | {"text_projection": torch.ones(8, 8).cfloat()}, "1 of another type: text_projection"),
    "sparse": (CLIP | {"text_projection": torch.eye(8).to_sparse()}, "1 of another type: text_projection"),
    "teacher and student": (named("student.") | named("teacher."), r"more than once, under student\., teacher\."),
    "weights and their mean": ({"model": CLIP, "ema": clip()}, r"more than once, under ema\., model\."),
    "wrapped and not": (CLIP | named("module."), "with and without a wrapper's"),
    "a policy": ({"actor.weight": torch.zeros(3)}, "8 missing: positional_embedding, "),
    "transformers": (
        {"vision_model.embeddings.patch_embedding.weight": torch.zeros(3), "logit_scale": torch.zeros(())},
        "names are those of Hugging Face's transformers; take the model's file for open_clip",
    ),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")  # of torch 2.15
@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_that_do_not_fit_are_named(kind, tmp_path):
    content, words = REFUSED[kind]
    tensors = read_weights_of(content, tmp_path)
    with pytest.raises(PrefVLMError, match=words):
        fit(tensors, CLIP, tmp_path / "model.pt", "tiny")


@pytest.mark.parametrize(
    "extra",
    [
        {"args": argparse.Namespace(lr=1)},
        {"model": torch.nn.Linear(2, 2)},
        {"path": __import__("pathlib").PurePosixPath("x")},
        {"array": np.zeros(3)},
        {"when": __import__("datetime").date(2024, 1, 1)},
        {"count": itertools.count()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Pickle, copy:DeprecationWarning")  # of itertools
def test_other_objects_beside_the_tensors_are_refused_by_name(extra, zipped, tmp_path):
    torch.save({"state_dict": CLIP} | extra, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        PrefVLMError, match=r"holds more than tensors \([\w.]+\), and opening it could run code"
    ) as told:
        read_weights(tmp_path / "model.pt")
    assert "weights_only" not in str(told.value)
