"""Files are written whole or not at all, and neither a full disk nor a kill harms what was there."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from builders.runs import config_of, contents

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution
from prefvlm_core.runs.directory import FINISHED, RUNNING, RunDirectory
from prefvlm_core.runs.files import read_tensors, write_atomically, write_json, write_tensors
from prefvlm_core.train import train


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    directory = RunDirectory(tmp_path, config_of())
    directory.open()
    directory.write_metrics([{"step": 1.0}])
    directory.write_manifest({"status": RUNNING})
    directory.write_weights({"actor": torch.ones(3)})
    before = contents(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    writes = {
        "metrics.csv": lambda: directory.write_metrics([{"step": 2.0}]),
        "manifest.json": lambda: directory.write_manifest({"status": FINISHED}),
        "weights.safetensors": lambda: directory.write_weights({"actor": torch.zeros(3)}),
        "new.txt": lambda: write_atomically(directory.path / "new.txt", b"new"),
    }
    for name, write in writes.items():
        words = f"Cannot write {directory.path / name}: No space left on device. What was stored before is untouched"
        with pytest.raises(PrefVLMError, match=re.escape(words)):
            write()
    assert contents(tmp_path) == before


def test_a_reader_sees_the_old_content_until_the_new_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a", []
    write_atomically(path, b"old")
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(("on disk", path.read_bytes()))

    def noted_replace(source: Path, target: Path) -> None:
        seen.append((Path(source).read_bytes(), path.read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_atomically(path, b"new")
    assert seen == [("on disk", b"old"), (b"new", b"old"), ("on disk", b"new")]  # at last the folder's entry
    assert contents(tmp_path).keys() == {"a"} and path.read_bytes() == b"new"


@pytest.mark.parametrize("results", ["file", "file/below", "file/far/below"])
def test_a_results_folder_that_cannot_be_written(tmp_path: Path, results: str) -> None:
    """A regular file stands where a folder is needed: not even root can write there."""
    (tmp_path / "file").write_text("mine")
    place = tmp_path / results
    with pytest.raises(PrefVLMError, match=re.escape(f"Cannot write {place / 'a'}: ")):
        write_atomically(place / "a", b"")
    words = f"results is '{place}', but {tmp_path / 'file'} is a file, not a folder."
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        train([config_of()], Execution(results=str(place), progress=False))
    assert (tmp_path / "file").read_text() == "mine" and contents(tmp_path).keys() == {"file"}


def test_tensor_files_hold_no_pickle(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(PrefVLMError, match=r"weights.pt is damaged \(no safetensors file"):
        read_tensors(tmp_path / "weights.pt")
    write_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(1)}, {"run_id": "x"})
    assert safetensors.torch.load_file(tmp_path / "weights.safetensors")["a"].tolist() == [1.0]
    assert read_tensors(tmp_path / "weights.safetensors")[1] == {"run_id": "x"}


def test_json_is_readable_and_stable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1], "a": 0.1})
    assert (tmp_path / "a.json").read_text() == '{\n "a": 0.1,\n "b": [\n  1\n ]\n}\n'
