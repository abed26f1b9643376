"""Damaged and hostile files of weights: refused in one line, or read as tensors that fit or are refused in turn."""

import io
import zipfile

import pytest
import safetensors.torch
import torch
from builders.damage import DAMAGES, Damage
from builders.refusals import is_one_line
from hypothesis import example, given
from hypothesis import strategies as st

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm.state_dicts import fit
from prefvlm_core.vlm.tinyliv import WEIGHTS, TinyLIV
from prefvlm_core.vlm.weight_files import read_weights

STATE = {"visual.weight": torch.arange(6.0).reshape(2, 3), "visual.bias": torch.ones(2), "logit_scale": torch.ones(())}


def torch_bytes(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"epoch": 3, "state_dict": STATE}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def with_its_pickle(damage: Damage) -> bytes:
    """An archive whose pickle is damaged and whose checksums are right, as someone with intent would write it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_bytes(True))) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, damage(content) if name.endswith("/data.pkl") else content)
    return buffer.getvalue()


KINDS = {
    "zip": lambda damage: damage(torch_bytes(True)),
    "zip, checksums right": with_its_pickle,
    "pickle": lambda damage: damage(torch_bytes(False)),
    "safetensors": lambda damage: damage(safetensors.torch.save(STATE)),
}


def check(path) -> None:
    """Read a file and fit it, as a model would be loaded."""
    try:
        tensors = read_weights(path)
        fitted = fit(tensors, STATE, path, "tiny")
    except PrefVLMError as error:
        assert is_one_line(error) and str(path) in str(error), str(error)
        assert "weights_only" not in str(error), str(error)
    else:
        assert {name: tensor.shape for name, tensor in fitted.items()} == {n: t.shape for n, t in STATE.items()}
        assert all(tensor.isfinite().all() for tensor in fitted.values())


@pytest.mark.parametrize("kind", KINDS)
@given(damage=DAMAGES)
def test_damaged_weights_are_refused_in_one_line_or_fit(tmp_path, kind, damage):
    path = tmp_path / "weights"
    path.write_bytes(KINDS[kind](damage))
    check(path)


STARTS = st.sampled_from(
    (b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x05", b"<", b"{", b"\x40\0\0\0\0\0\0\0{", b"\x1f\x8b")
)


@given(st.builds(bytes.__add__, STARTS, st.binary(max_size=80)))
@example(b"\x02\0\0\0\0\0\0\0{}")
def test_any_bytes_in_place_of_weights_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(PrefVLMError) as told:
        read_weights(path)
    assert is_one_line(told.value) and str(path) in str(told.value)


@given(damage=DAMAGES)
def test_a_damaged_tinyliv_is_refused_in_one_line_or_finite(tmp_path, damage):
    path = tmp_path / "tinyliv.safetensors"
    path.write_bytes(damage((WEIGHTS / "tinyliv.safetensors").read_bytes()))
    try:
        model = TinyLIV.load(path)
    except PrefVLMError as error:
        assert is_one_line(error) and str(path) in str(error), str(error)
    else:
        assert all(parameter.isfinite().all() for parameter in model.network.parameters())
