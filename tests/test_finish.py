"""A run that finishes cannot be harmed: killed, or met by a full disk, at any moment of its end, it ends bit-identical.
What an interrupted fleet left is used whole, or refused in one sentence.

The moments are the changes on disk from the start of the process that trains the last episode until the checkpoint is
gone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.disk import Killed, full_from, killed_before
from builders.runs import quiet, small, weights_hash, without_seconds

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import FINISHED, RunDirectory
from prefvlm_core.runs.files import content_digest, read_tensors, write_tensors
from prefvlm_core.runs.pack import pack
from prefvlm_core.train import Fleet, train

CONFIGS = [small("prefvlm"), small("pebble")]
EACH_EPISODE, AT_THE_END = 0, 3600
"""Seconds between checkpoints: with the first, the last episode ends with a checkpoint of its own."""
EITHER = pytest.mark.parametrize("seconds", [EACH_EPISODE, AT_THE_END])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted."""
    results = tmp_path_factory.mktemp("trained")
    train(CONFIGS, quiet(results))
    return results


@pytest.fixture(scope="module")
def before_the_last_episode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed with only the last episode left."""
    results = tmp_path_factory.mktemp("interrupted")
    episode = Fleet._episode

    def killed(fleet: Fleet, progress: object) -> None:
        if fleet.replay.size == fleet.shared.total_steps - fleet.shared.horizon:
            raise Killed
        episode(fleet, progress)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Fleet, "_episode", killed)
        train(CONFIGS, quiet(results, checkpoint_seconds=EACH_EPISODE))
    return results


def files(directory: RunDirectory) -> dict[str, bytes]:
    """What must not depend on interruptions; metrics are compared without their timings."""
    names = [path.name for path in directory.path.iterdir() if path.name in ("labels.csv", "adapters.safetensors")]
    return {name: (directory.path / name).read_bytes() for name in names}


def assert_ends_bit_identical(results: Path, trained: Path) -> None:
    """Resume what is in `results`."""
    for directory in train(CONFIGS, quiet(results)):
        uninterrupted = RunDirectory(trained, directory.config)
        assert directory.finished
        assert without_seconds(directory) == without_seconds(uninterrupted)
        assert weights_hash(directory) == weights_hash(uninterrupted)
        assert files(directory) == files(uninterrupted)
    assert not list(results.rglob(".*.tmp")) and not list(results.glob("quick/fleets/*"))


def interrupted(results: Path, seconds: float, change: int) -> bool:
    """Train until change number `change`; whether there was one."""

    def kill() -> None:
        raise Killed

    with killed_before(results, change, kill):
        try:
            train(CONFIGS, quiet(results, checkpoint_seconds=seconds))
        except Killed:
            return True
    return False


def met_a_full_disk(results: Path, seconds: float, change: int) -> bool:
    """Train until the disk is full at change number `change`; whether it did get full."""
    with full_from(results, change):
        try:
            train(CONFIGS, quiet(results, checkpoint_seconds=seconds))
        except PrefVLMError as error:
            assert "No space left on device" in str(error) and "\n" not in str(error)
            return True
    return False


Fault = Callable[[Path, float, int], bool]


@pytest.mark.parametrize("fault", [interrupted, met_a_full_disk])
def test_some_moments_of_the_end(fault: Fault, trained: Path, before_the_last_episode: Path, tmp_path: Path) -> None:
    """Twice each, because what is resumed may be interrupted again."""
    for change in (19, 37, 47):
        results = tmp_path / str(change)
        shutil.copytree(before_the_last_episode, results)
        assert fault(results, EACH_EPISODE, change)
        fault(results, EACH_EPISODE, change // 2)
        assert_ends_bit_identical(results, trained)


@pytest.mark.slow
@EITHER
def test_a_full_disk_at_every_moment_of_the_end(
    seconds: float, trained: Path, before_the_last_episode: Path, tmp_path: Path
) -> None:
    change, full = 0, True
    while full:
        results = tmp_path / str(change)
        shutil.copytree(before_the_last_episode, results)
        full = met_a_full_disk(results, seconds, change)
        assert_ends_bit_identical(results, trained)
        shutil.rmtree(results)
        change += 1
    print(f"moments: {change - 1}")
    assert change > 60


KILL = """
import json, os, shutil, sys
from pathlib import Path
from builders.disk import killed_before
from builders.runs import quiet
from prefvlm_core.config.run import RunConfig
from prefvlm_core.train import train

if __name__ == "__main__":
    before, moments, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    configs = [RunConfig.from_json(text) for text in json.loads(sys.argv[4])]
    change, killed = 0, True
    while killed:
        results = moments / f"{change:03d}"
        shutil.copytree(before, results)
        for attempt in range(2):
            child = os.fork()
            if not child:
                with killed_before(results, change, lambda: os._exit(9)):
                    train(configs, quiet(results, checkpoint_seconds=seconds))
                os._exit(0)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert ended in (0, 9), ended
            if attempt == 0:
                killed = ended == 9
        change += 1
"""


@pytest.mark.slow
@EITHER
def test_a_kill_at_every_moment_of_the_end(
    seconds: float, trained: Path, before_the_last_episode: Path, tmp_path: Path
) -> None:
    """Real processes, which end themselves without a word before the n-th change; each is killed and resumed twice."""
    moments = tmp_path / "moments"
    moments.mkdir()
    program = tmp_path / "program.py"
    program.write_text(KILL)
    configs = json.dumps([config.to_json() for config in CONFIGS])
    command = [sys.executable, str(program), str(before_the_last_episode), str(moments), str(seconds), configs]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths})
    killed = sorted(moments.iterdir())[:-1]  # the last one came to its end
    for results in killed:
        assert_ends_bit_identical(results, trained)
    print(f"moments: {len(killed)}")
    assert len(killed) > 40


# ---- damage of what an interrupted fleet left


def loaded(results: Path) -> str:
    """A hash of the fleet's last checkpoint, read anew."""
    checkpoint = FleetCheckpoint(results, [config.run_id for config in CONFIGS]).load()
    assert checkpoint is not None
    pieces = {f"{i} {name}": each for i, piece in enumerate(checkpoint.pieces) for name, each in piece.items()}
    return content_digest(checkpoint.tensors | pieces, {"step": checkpoint.step, "values": checkpoint.values})


def test_a_flipped_bit_is_refused_or_harmless(before_the_last_episode: Path, tmp_path: Path) -> None:
    """200 bits of the checkpoint and the pieces of its replay, every second one in a header."""
    results = tmp_path / "results"
    shutil.copytree(before_the_last_episode, results)
    whole, generator, refused = loaded(results), np.random.default_rng(0), 0
    paths = sorted(results.glob("quick/fleets/*/*.safetensors"))
    assert len(paths) == 8
    for flip in range(200):
        path = paths[generator.integers(len(paths))]
        content = path.read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[generator.integers(header if flip % 2 else len(content))] ^= 1 << generator.integers(8)
        path.write_bytes(damaged.tobytes())
        try:
            assert loaded(results) == whole
        except PrefVLMError as error:
            assert str(error).startswith(f"{path} is damaged (") and "\n" not in str(error)
            refused += 1
        path.write_bytes(content)
    print(f"refused: {refused} of 200")
    assert refused > 190 and loaded(results) == whole


def test_rows_that_were_lost_or_edited_come_back_from_the_checkpoint(
    trained: Path, before_the_last_episode: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(before_the_last_episode, results)
    first, second = (RunDirectory(results, config) for config in CONFIGS)
    (first.path / "metrics.csv").write_text("step,success\n100,1\n200,1\n300,1\n")
    (second.path / "metrics.csv").unlink()
    (first.path / "labels.csv").write_bytes(b"\x00\xff")
    (second.path / "labels.csv").unlink()
    assert_ends_bit_identical(results, trained)


def test_a_manifest_that_claims_too_much_is_not_believed(
    trained: Path, before_the_last_episode: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(before_the_last_episode, results)
    for config in CONFIGS:
        directory = RunDirectory(results, config)
        directory.write_manifest(directory.manifest | {"status": FINISHED})
    assert not any(RunDirectory(results, config).finished for config in CONFIGS)
    assert_ends_bit_identical(results, trained)


@pytest.mark.parametrize(
    ("part", "tensor", "found"),
    [
        ("agent/actor", lambda tensor: tensor[:1], "expected was"),
        ("agent/actor", lambda tensor: tensor.double(), "torch.float64"),
        ("feedback.0/vlm.values", lambda tensor: torch.zeros(1), r"torch.float32 \(1,\), expected was"),
        ("feedback.0/labels.log", lambda tensor: tensor[:, :3], r"expected was torch.float64 \(0, 9\)"),
        ("replay/rewards", lambda tensor: None, "is missing"),
        ("agent/more", lambda tensor: torch.zeros(1), "is not expected"),
    ],
)
def test_tensors_that_would_be_broadcast_or_converted_are_refused(
    before_the_last_episode: Path, tmp_path: Path, part: str, tensor: Callable[[Any], Any], found: str
) -> None:
    results = tmp_path / "results"
    shutil.copytree(before_the_last_episode, results)
    file = FleetCheckpoint(results, [config.run_id for config in CONFIGS]).file
    stored = read_tensors(file)
    tensors = stored.tensors | {part: tensor(stored.tensors.get(part))}
    write_tensors(file, {name: each for name, each in tensors.items() if each is not None}, stored.metadata)
    with pytest.raises(PrefVLMError, match=rf"checkpoint.safetensors is damaged \(The tensor {part}.*{found}"):
        train(CONFIGS, quiet(results))


@pytest.mark.parametrize("change", [{"progress": {}}, {"generators": {}}, {"stopwatch": None}, {"feedback.1": []}])
def test_values_that_no_fleet_has_are_refused(
    before_the_last_episode: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(before_the_last_episode, results)
    file = FleetCheckpoint(results, [config.run_id for config in CONFIGS]).file
    stored = read_tensors(file)
    write_tensors(file, stored.tensors, stored.metadata | {"values": stored.metadata["values"] | change})
    with pytest.raises(PrefVLMError, match=r"checkpoint.safetensors is damaged \((Key|Type)Error.*; restore it"):
        train(CONFIGS, quiet(results))


@pytest.mark.parametrize("name", ["metrics.csv", "labels.csv"])
def test_a_digit_changed_in_a_finished_run_is_noticed(trained: Path, tmp_path: Path, name: str) -> None:
    """By whoever reads it, and by `pack`."""
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    directory = RunDirectory(results, CONFIGS[0])
    content = bytearray((directory.path / name).read_bytes())
    last_digit = max(index for index, byte in enumerate(content) if chr(byte).isdigit())
    content[last_digit] ^= 1
    (directory.path / name).write_bytes(content)
    words = rf"{re.escape(str(directory.path / name))} is damaged \(its rows are not those whose hash manifest.json"
    for read in (lambda: (directory.metrics(), directory.labels()), lambda: pack(results)):
        with pytest.raises(PrefVLMError, match=words):
            read()
    (directory.path / name).unlink()
    with pytest.raises(PrefVLMError, match=words):
        _ = directory.metrics(), directory.labels()


def test_equal_runs_write_equal_files(trained: Path, tmp_path: Path) -> None:
    for directory in train(CONFIGS, quiet(tmp_path)):
        same = sorted(path.name for path in directory.path.glob("*.safetensors"))
        assert same == ["adapters.safetensors", "weights.safetensors"][-len(same) :]
        for name in same:
            assert (directory.path / name).read_bytes() == (trained / directory.run_id / name).read_bytes()


# ---- a results folder that is shared


def test_a_lock_that_is_removed_during_training_is_noticed(
    before_the_last_episode: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    shutil.copytree(before_the_last_episode, results)
    lock, episode = RunDirectory(results, CONFIGS[1]).lock, Fleet._episode

    def removed(fleet: Fleet, progress: object) -> None:
        lock.unlink()
        lock.touch()  # by a second process, which trains the run too
        episode(fleet, progress)

    monkeypatch.setattr(Fleet, "_episode", removed)
    before = loaded(results)
    with pytest.raises(PrefVLMError, match=f"{re.escape(str(lock))} was removed while the run was trained"):
        train(CONFIGS, quiet(results))
    assert loaded(results) == before and not RunDirectory(results, CONFIGS[1]).finished


def test_finished_runs_are_looked_at_where_nobody_can_write(trained: Path) -> None:
    """As root, no folder is read-only: so no folder may change, not even by a lock that comes and goes."""
    before = {path: path.stat().st_mtime_ns for path in (trained, *trained.rglob("*"))}
    with full_from(trained, 0):
        directories = train(CONFIGS, quiet(trained))
    assert all(directory.finished for directory in directories)
    assert {path: path.stat().st_mtime_ns for path in (trained, *trained.rglob("*"))} == before
