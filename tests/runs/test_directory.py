"""The store: what is written is what is read, and neither a full disk, a kill nor a second process harms it."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.methods import run_config
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import FINISHED, RUNNING, RunDirectory, lock_runs
from prefvlm_core.runs.files import read_tensors, write_atomically, write_json, write_tensors
from prefvlm_core.runs.stored import find_runs, load_metrics
from prefvlm_core.train import train


def config(seed: int = 0, method: str = "pebble") -> RunConfig:
    return run_config("drawer-close-v3", method, seed, "quick")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `folder` but the locks: time of change and content."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# ---- writing


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    directory = RunDirectory(tmp_path, config())
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
    assert seen == [("on disk", b"old"), (b"new", b"old")]
    assert contents(tmp_path).keys() == {"a"} and path.read_bytes() == b"new"


@pytest.mark.parametrize("results", ["file", "file/below", "file/far/below"])
def test_a_results_folder_that_cannot_be_written(tmp_path: Path, results: str) -> None:
    """A regular file stands where a folder is needed: not even root can write there."""
    (tmp_path / "file").write_text("mine")
    place = tmp_path / results
    with pytest.raises(PrefVLMError, match=re.escape(f"Cannot write {place / 'a'}: ")):
        write_atomically(place / "a", b"")
    with pytest.raises(PrefVLMError, match=re.escape(f"Cannot write to the results folder {place}")):
        train([config()], Execution(results=str(place), progress=False))
    assert (tmp_path / "file").read_text() == "mine" and contents(tmp_path).keys() == {"file"}


# ---- run directories


def test_a_run_is_stored_where_its_name_says(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config(3))
    directory.open()
    assert directory.path == tmp_path / "quick" / "drawer-close-v3" / "pebble" / f"3-{config(3).hash}"
    assert directory.manifest == {} and directory.read_metrics() == [] and not directory.finished
    directory.write_manifest({"status": RUNNING, "seconds": 1.5})
    assert directory.manifest == {"status": RUNNING, "seconds": 1.5} and not directory.finished
    directory.write_manifest({"status": FINISHED})
    assert RunDirectory(tmp_path, config(3)).finished
    directory.open()  # again: the same run


def test_metrics_round_trip_exactly(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config())
    rows: list[Mapping[str, float]] = [
        {"step": 250, "success": 0.1 + 0.2, "tiny": 5e-324, "large": 1.7976931348623157e308, "accuracy": float("nan")},
        {"step": 500, "success": 1.0, "tiny": -1e-7, "large": float("-inf"), "accuracy": 1 / 3, "later": 2**53 + 2},
    ]
    directory.write_metrics(rows)
    lines = (directory.path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,success,tiny,large,accuracy,later"
    assert lines[1] == "250,0.30000000000000004,5e-324,1.7976931348623157e+308,,"
    read = directory.read_metrics()
    assert read[1] == rows[1]
    assert {name: value for name, value in read[0].items() if value == value} == {
        name: value for name, value in rows[0].items() if value == value
    }
    assert np.isnan([read[0]["accuracy"], read[0]["later"]]).all()
    before = (directory.path / "metrics.csv").read_bytes()
    directory.write_metrics(read)
    assert (directory.path / "metrics.csv").read_bytes() == before


def test_damaged_metrics_and_manifest_are_named(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config())
    conflict = b"step,success\n<<<<<<< HEAD\n1,2\n"
    write_atomically(directory.path / "metrics.csv", conflict)
    write_atomically(directory.path / "manifest.json", conflict)
    with pytest.raises(PrefVLMError, match=r"metrics.csv is damaged \(.*\); restore it, or remove its folder"):
        directory.read_metrics()
    with pytest.raises(PrefVLMError, match=r"manifest.json is damaged \(.*\); restore it, or remove its folder"):
        _ = directory.finished


def test_find_runs_and_load_metrics(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "nowhere") == [] and load_metrics([]).empty
    directories = [RunDirectory(tmp_path, config(seed, method)) for method in ("pebble", "sac") for seed in (0, 1)]
    for number, directory in enumerate(directories):
        directory.open()
        directory.write_metrics([{"step": 250, "success": 0.25 * number}, {"step": 500, "success": float("nan")}])
    FleetCheckpoint(tmp_path, [config().run_id]).save(
        250, {"a": torch.ones(1)}, {}, {}
    )  # lies beside the runs, is none
    found = find_runs(tmp_path)
    assert [directory.config for directory in found] == [directory.config for directory in directories]
    assert len(find_runs(tmp_path, "quick")) == 4 and find_runs(tmp_path, "laptop") == []
    table = load_metrics(found)
    assert list(table.columns) == [
        "profile",
        "task",
        "method",
        "seed",
        "budget",
        "run_id",
        "retired",
        "step",
        "success",
    ]
    assert list(table["method"]) == ["pebble"] * 4 + ["sac"] * 4 and list(table["seed"]) == [0, 0, 1, 1] * 2
    assert list(table["budget"]) == [config().feedback.budget] * 4 + [0] * 4
    assert list(table["success"].dropna()) == [0, 0.25, 0.5, 0.75]


def test_a_moved_run_is_not_taken_for_another(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config())
    directory.open()
    directory.path.rename(directory.path.with_name("moved"))
    with pytest.raises(PrefVLMError, match=r"moved/config.json does not hold the config its folder is named after"):
        find_runs(tmp_path)


def test_finished_runs_are_never_touched(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config())
    directory.open()
    directory.write_metrics([{"step": 1.0}])
    directory.write_manifest({"status": FINISHED})
    before = contents(tmp_path)
    (returned,) = train([config()], Execution(results=str(tmp_path), progress=False))
    assert returned.path == directory.path and contents(tmp_path) == before


# ---- locks

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    directories = [RunDirectory(tmp_path, config(seed)) for seed in (0, 1)]
    with lock_runs(directories):
        pass
    lock = directories[1].path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        words = f"{directories[1].path} is being trained by another process; wait for it."
        with pytest.raises(PrefVLMError, match=re.escape(words)):
            train([config(0), config(1)], Execution(results=str(tmp_path), progress=False))
        with lock_runs(directories[:1]):  # the refused fleet has let go of what it held
            pass
        other.communicate()
    with lock_runs(directories):
        pass
    assert contents(tmp_path) == {}


# ---- checkpoints


def piece(first: int, last: int) -> dict[str, Tensor]:
    return {"observations": torch.arange(first, last, dtype=torch.float64)}


def saved(checkpoint: FleetCheckpoint, *steps: int) -> None:
    for first, last in zip([0, *steps], steps, strict=False):
        checkpoint.save(last, {"actor": torch.full((2,), float(last))}, piece(first, last), {"updates": last})


def replayed(checkpoint: FleetCheckpoint) -> list[float]:
    loaded = checkpoint.load()
    assert loaded is not None
    return [value for stored in loaded[2] for value in stored["observations"].tolist()]


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    fleet = [config(0).run_id, config(1).run_id]
    assert FleetCheckpoint(tmp_path, fleet).load() is None
    state = {"updates": 3, "generators": np.random.default_rng(0).bit_generator.state, "list": [1.5, "a", None]}
    tensors = {"actor": torch.randn(2, 3).T, "steps": torch.tensor([2**40, -1]), "flags": torch.tensor([True, False])}
    checkpoint = FleetCheckpoint(tmp_path, fleet)
    saved(checkpoint, 250, 500)
    checkpoint.save(500, tensors, {}, state)  # nothing gained since: no further piece
    loaded = FleetCheckpoint(tmp_path, fleet).load()
    assert loaded is not None
    step, read, pieces, read_state = loaded
    assert step == 500 and read_state == state and read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert [len(stored["observations"]) for stored in pieces] == [250, 250]
    assert FleetCheckpoint(tmp_path, fleet[:1]).load() is None  # another fleet has another folder
    checkpoint.remove()
    assert FleetCheckpoint(tmp_path, fleet).load() is None and not checkpoint.path.exists()
    checkpoint.remove()  # of nothing: nothing


def test_killed_between_replay_piece_and_checkpoint(tmp_path: Path) -> None:
    """The piece of a checkpoint that was never committed counts neither at once nor after later checkpoints."""
    fleet = [config().run_id]
    saved(FleetCheckpoint(tmp_path, fleet), 250, 500)
    orphan = FleetCheckpoint(tmp_path, fleet).path / "replay-000000750.safetensors"
    write_tensors(orphan, {"observations": torch.full((250,), -1.0)}, {})
    resumed = FleetCheckpoint(tmp_path, fleet)
    assert replayed(resumed) == list(range(500))
    resumed.save(1000, {}, piece(500, 1000), {})  # resumed, the next checkpoint may come at another step
    again = FleetCheckpoint(tmp_path, fleet)
    assert replayed(again) == list(range(1000))
    again.save(1250, {}, piece(1000, 1250), {})
    assert replayed(FleetCheckpoint(tmp_path, fleet)) == list(range(1250))


def test_removal_takes_what_a_kill_left_behind(tmp_path: Path) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config().run_id])
    saved(checkpoint, 250)
    (checkpoint.path / ".checkpoint.safetensors.0a1b2c3d.tmp").write_bytes(b"half")
    checkpoint.remove()
    assert not checkpoint.path.exists()


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "replay-000000250.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "random bytes", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config().run_id])
    saved(checkpoint, 250, 500)
    path = checkpoint.path / name
    random = np.random.default_rng(0).bytes(1000)
    path.write_bytes({"truncated": path.read_bytes()[:-1], "random bytes": random, "empty": b""}[damage])
    with pytest.raises(PrefVLMError, match=rf"{re.escape(str(path))} is damaged .*; remove it to start its runs again"):
        FleetCheckpoint(tmp_path, [config().run_id]).load()


def test_a_missing_replay_piece_is_named(tmp_path: Path) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config().run_id])
    saved(checkpoint, 250, 500)
    (checkpoint.path / "replay-000000250.safetensors").unlink()
    with pytest.raises(PrefVLMError, match=r"replay-000000250.safetensors is damaged .*No such file"):
        FleetCheckpoint(tmp_path, [config().run_id]).load()


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    mine, other = FleetCheckpoint(tmp_path, [config(0).run_id]), FleetCheckpoint(tmp_path, [config(1).run_id])
    assert mine.path != other.path
    assert (
        FleetCheckpoint(tmp_path, [config(0).run_id, config(1).run_id]).path
        != FleetCheckpoint(tmp_path, [config(1).run_id, config(0).run_id]).path
    )
    saved(other, 250)
    other.path.rename(mine.path)
    words = (
        rf"{re.escape(str(mine.path))}/checkpoint.safetensors is not a checkpoint of these runs \({config(0).run_id}\)"
    )
    with pytest.raises(PrefVLMError, match=words):
        mine.load()
    safetensors.torch.save_file({"a": torch.ones(1)}, mine.path / "checkpoint.safetensors")  # valid, but none of ours
    with pytest.raises(PrefVLMError, match=words):
        mine.load()


def test_tensor_files_hold_no_pickle(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(PrefVLMError, match=r"weights.pt is damaged or not a safetensors file"):
        read_tensors(tmp_path / "weights.pt")
    write_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(1)}, {"run_id": "x"})
    assert safetensors.torch.load_file(tmp_path / "weights.safetensors")["a"].tolist() == [1.0]
    assert read_tensors(tmp_path / "weights.safetensors")[1] == {"run_id": "x"}


def test_json_is_readable_and_stable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1], "a": 0.1})
    assert (tmp_path / "a.json").read_text() == '{\n "a": 0.1,\n "b": [\n  1\n ]\n}\n'
