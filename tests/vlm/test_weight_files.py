"""Tests that files which are no weights are refused for what they are, and that nothing runs or fills memory."""

import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm.weight_files import read_weights

STATE = {"visual.weight": torch.arange(64.0).reshape(8, 8), "visual.bias": torch.ones(8)}


class Attack:
    """An object that leaves a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (os.mkdir, (str(self.witness),))


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused; it never passes on torch's advice to switch the safety off."""
    with pytest.raises(PrefVLMError) as told:
        read_weights(path)
    message = str(told.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message, message
    assert "weights_only" not in message and "torch.load" not in message, message
    return message


def torch_bytes(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    return buffer.getvalue()


def numpy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * b"a" + b"\nsize 409640157\n"
WHOLE = torch_bytes(STATE)
NO_WEIGHTS = {
    "empty": (b"", "is empty; download it again"),
    "blank": (b"\n\n  \n", "is blank"),
    "page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page: .*; download the file itself"),
    "page with a mark": ("\ufeff\n<html>ü</html>".encode(), "is a web page"),
    "pointer": (LFS, "is a Git LFS pointer, .*; fetch them with git lfs pull"),
    "script": (b"#!/bin/sh\nrm -rf /\n", "is a script, which is never run here"),
    "python": (b'"""Weights."""\nimport os\nos.mkdir("x")\n', "is a script, which is never run here"),
    "answer": (b'{"error": "Entry not found"}', "is a JSON text"),
    "text": (b"RN50 weights here\nmore", "is a text that begins with 'RN50 weights here'"),
    "text with PK": (b"PK no archive", "is a text that begins with 'PK no archive'"),
    "gzip": (gzip.compress(WHOLE), r"is compressed \(gzip\); unpack it first"),
    "tar": (tar_bytes(), "is a tar archive; unpack it"),
    "numpy": (numpy_bytes(), "is a NumPy array"),
    "arrays": (zip_bytes({"visual.npy": numpy_bytes()}), r"is a zip archive of something else \(visual\.npy\)"),
    "document": (zip_bytes({f"{n}.xml": b"" for n in "abcd"}), r"something else \(a\.xml, b\.xml, c\.xml, …\); unpack"),
    "model in a zip": (zip_bytes({"model.pt": WHOLE}), r"something else \(model\.pt\); unpack it"),
    "noise": (bytes(range(200, 256)) * 9, "no file of torch or safetensors: it begins with the bytes c8 c9 ca cb"),
    "zeros": (bytes(1000), "no file of torch or safetensors: it begins with the bytes 00 00"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "no file of torch or safetensors: it begins with the bytes 89 50"),
    "half an archive": (WHOLE[: len(WHOLE) // 2], "is damaged or cut off .*; download it again"),
    "half a pickle": (torch_bytes(STATE, _use_new_zipfile_serialization=False)[:-99], "is damaged or was not written"),
    "half safetensors": (safetensors.torch.save(STATE)[:-9], "is damaged or cut off .*; download it again"),
    "header too long": (b"\xff\xff\xff\x7f\0\0\0\0{}", "is damaged or cut off"),
    "plain pickle": (pickle.dumps({"a": 1}), "holds more than tensors|was not written by torch.save"),
    "no names": (torch_bytes([torch.zeros(3)]), "holds no tensors with names"),
    "one tensor": (torch_bytes(torch.zeros(3)), "holds no tensors with names"),
    "no tensors": (torch_bytes({"epoch": 3}), "holds no tensors with names"),
    "no tensors, safe": (safetensors.torch.save({}), "holds no tensors with names"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_what_is_no_weights_is_named_for_what_it_is(kind, name, tmp_path):
    content, words = NO_WEIGHTS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PrefVLMError, match=words):
        read_weights(tmp_path / name)
    refusal(tmp_path / name)


def test_what_is_no_file_is_named(tmp_path):
    assert "is a folder; name the file of weights in it" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is no file that weights could be read from" in refusal(tmp_path / "pipe")
    assert "is no file" in refusal(tmp_path / "missing.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda code: code, lambda code: {"state_dict": STATE, "args": code}])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.bin"])
def test_code_in_a_checkpoint_never_runs(zipped, wrap, name, tmp_path):
    witness, path = tmp_path / "ran", tmp_path / name
    torch.save(wrap(Attack(witness)), path, _use_new_zipfile_serialization=zipped)
    assert "(posix.mkdir), and opening it could run code, so it is not opened" in refusal(path)
    path.write_bytes(pickle.dumps(wrap(Attack(witness))))
    refusal(path)
    assert not witness.exists()


def test_an_archive_that_claims_more_than_it_holds_is_not_opened(tmp_path):
    """Deflated zeros: 64 MB from 64 kB, and torch would allocate whatever is claimed."""
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[next(name for name in members if name.endswith("/data/0"))] = bytes(1 << 26)
    path = tmp_path / "model.pt"
    path.write_bytes(zip_bytes(members, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 1 << 17
    assert "that claims to hold 671" in refusal(path) and "torch.save never compresses" in refusal(path)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # since torch 2.15
def test_the_cure_for_a_torchscript_archive_cures(tmp_path):
    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Linear(2, 3).half()
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, frames):
            return self.visual(frames)

    tower, path = Tower(), tmp_path / "RN50.pt"
    torch.jit.save(torch.jit.script(tower), path)
    message = refusal(path)
    assert "is a TorchScript archive, a program together with its weights, as OpenAI publishes CLIP" in message
    cure = message.partition("in Python, ")[2].partition(", and load")[0]
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"import torch; {cure}"], cwd=tmp_path, check=True)
    tensors = read_weights(tmp_path / "RN50-tensors.pt")
    assert tensors.keys() == tower.state_dict().keys() and tensors["visual.weight"].dtype == torch.float16
    torch.testing.assert_close(tensors["visual.weight"], tower.visual.weight.data, rtol=0, atol=0)


def test_a_dictionary_that_holds_itself_is_read_once(tmp_path):
    around: dict = {"model": STATE}
    around["again"] = around
    torch.save(around, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt").keys() == {f"model.{name}" for name in STATE}


def test_checksums_that_were_left_out_are_not_missed(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    torch.testing.assert_close(read_weights(tmp_path / "model.pt"), STATE, rtol=0, atol=0)


def test_flipped_bits_are_noticed_or_harmless(tmp_path):
    """300 flips: each is refused in a sentence, or all tensors are as they were."""
    generator = np.random.default_rng(0)
    path, refused = tmp_path / "model.pt", 0
    for _ in range(300):
        damaged = bytearray(WHOLE)
        damaged[generator.integers(len(damaged))] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            torch.testing.assert_close(read_weights(path), STATE, rtol=0, atol=0)
        except PrefVLMError:
            refused += 1
            refusal(path)
    assert refused > 100


@pytest.mark.parametrize("layout", ["zip", "pickle", "safetensors"])
def test_a_file_cut_off_anywhere_is_refused(layout, tmp_path):
    contents = {
        "zip": WHOLE,
        "pickle": torch_bytes(STATE, _use_new_zipfile_serialization=False),
        "safetensors": safetensors.torch.save(STATE),
    }
    path, whole = tmp_path / "model.pt", contents[layout]
    for length in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:length])
        refusal(path)
