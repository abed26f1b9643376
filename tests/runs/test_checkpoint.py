"""Checkpoints come back whole, or are refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from builders.runs import config_of
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.files import read_tensors, write_tensors


def piece(first: int, last: int) -> dict[str, Tensor]:
    return {"observations": torch.arange(first, last, dtype=torch.float64)}


def saved(checkpoint: FleetCheckpoint, *steps: int) -> None:
    for first, last in zip([0, *steps], steps, strict=False):
        checkpoint.save(last, {"actor": torch.full((2,), float(last))}, piece(first, last), {"updates": last})


def replayed(checkpoint: FleetCheckpoint) -> list[float]:
    loaded = checkpoint.load()
    assert loaded is not None
    return [value for stored in loaded.pieces for value in stored["observations"].tolist()]


def pieces(checkpoint: FleetCheckpoint) -> list[Path]:
    return sorted(checkpoint.path.glob("replay-*.safetensors"))


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    fleet = [config_of(0).run_id, config_of(1).run_id]
    assert FleetCheckpoint(tmp_path, fleet).load() is None
    state = {"updates": 3, "generators": np.random.default_rng(0).bit_generator.state, "list": [1.5, "a", None]}
    tensors = {"actor": torch.randn(2, 3).T, "steps": torch.tensor([2**40, -1]), "flags": torch.tensor([True, False])}
    checkpoint = FleetCheckpoint(tmp_path, fleet)
    saved(checkpoint, 250, 500)
    checkpoint.save(500, tensors, {}, state)  # nothing gained since: no further piece
    loaded = FleetCheckpoint(tmp_path, fleet).load()
    assert loaded is not None
    read = loaded.tensors
    assert loaded.step == 500 and loaded.values == state and read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert [len(stored["observations"]) for stored in loaded.pieces] == [250, 250]
    assert FleetCheckpoint(tmp_path, fleet[:1]).load() is None  # another fleet has another folder
    checkpoint.remove()
    assert FleetCheckpoint(tmp_path, fleet).load() is None and not checkpoint.path.exists()
    checkpoint.remove()  # of nothing: nothing


def test_killed_between_replay_piece_and_checkpoint(tmp_path: Path) -> None:
    """The piece of a checkpoint that was never committed counts neither at once nor after later checkpoints."""
    fleet = [config_of().run_id]
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
    checkpoint = FleetCheckpoint(tmp_path, [config_of().run_id])
    saved(checkpoint, 250)
    (checkpoint.path / ".checkpoint.safetensors.0a1b2c3d.tmp").write_bytes(b"half")
    checkpoint.remove()
    assert not checkpoint.path.exists()


@pytest.mark.parametrize("name", ["checkpoint", "replay-000000250"])
@pytest.mark.parametrize("damage", ["truncated", "random bytes", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config_of().run_id])
    saved(checkpoint, 250, 500)
    (path,) = checkpoint.path.glob(f"{name}*.safetensors")
    random = np.random.default_rng(0).bytes(1000)
    path.write_bytes({"truncated": path.read_bytes()[:-1], "random bytes": random, "empty": b""}[damage])
    words = rf"{re.escape(str(path))} is damaged .*; restore it, or remove its folder to train its runs again"
    with pytest.raises(PrefVLMError, match=words):
        FleetCheckpoint(tmp_path, [config_of().run_id]).load()


def test_a_missing_replay_piece_is_named(tmp_path: Path) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config_of().run_id])
    saved(checkpoint, 250, 500)
    pieces(checkpoint)[0].unlink()
    with pytest.raises(PrefVLMError, match=r"replay-000000250-.*.safetensors is damaged .*No such file"):
        FleetCheckpoint(tmp_path, [config_of().run_id]).load()


def test_a_whole_piece_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    mine, other = FleetCheckpoint(tmp_path / "a", ["p/t/m/0"]), FleetCheckpoint(tmp_path / "b", ["p/t/m/0"])
    saved(mine, 250)
    other.save(250, {}, piece(1, 251), {})
    pieces(mine)[0].write_bytes(pieces(other)[0].read_bytes())
    with pytest.raises(PrefVLMError, match=r"it is not the piece that checkpoint.safetensors names"):
        mine.load()


def test_no_piece_is_written_where_nothing_is_new_and_no_name_stands_for_two_contents(tmp_path: Path) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config_of().run_id])
    saved(checkpoint, 250)
    checkpoint.save(250, {}, {}, {})
    assert len(pieces(checkpoint)) == 1
    checkpoint.save(250, {}, piece(250, 251), {})
    checkpoint.save(250, {}, {"observations": torch.empty(0)}, {})
    assert len(pieces(checkpoint)) == 3 and replayed(checkpoint) == list(range(251))


def test_equal_checkpoints_have_equal_bytes(tmp_path: Path) -> None:
    written = []
    for folder in ("a", "b", "c", "d"):
        checkpoint = FleetCheckpoint(tmp_path / folder, [config_of().run_id])
        saved(checkpoint, 250, 500)
        written.append({path.name: path.read_bytes() for path in checkpoint.path.iterdir()})
    assert len(written[0]) == 3 and all(each == written[0] for each in written)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config_of().run_id])
    with monkeypatch.context() as patched:
        patched.setattr("prefvlm_core.runs.checkpoint.FORMAT", 99)
        saved(checkpoint, 250)
    with pytest.raises(PrefVLMError, match=r"checkpoint.safetensors has format 99, but this release reads format 2; "):
        checkpoint.load()


@pytest.mark.parametrize(
    "changes",
    [{"step": "x"}, {"step": None}, {"values": 3}, {"values": None}, {"pieces": 1}, {"pieces": {"gone": "0"}}],
)
def test_a_checkpoint_with_values_of_the_wrong_kind_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    """Its checksum is right: something else than an accident wrote it."""
    checkpoint = FleetCheckpoint(tmp_path, [config_of().run_id])
    saved(checkpoint, 250)
    stored = read_tensors(checkpoint.file)
    for values in (stored.metadata | changes, {k: v for k, v in stored.metadata.items() if k not in changes}):
        write_tensors(checkpoint.file, stored.tensors, values)
        with pytest.raises(PrefVLMError, match=rf"^{re.escape(str(checkpoint.path))}/.* is damaged \(.*\); restore it"):
            checkpoint.load()


def test_temporary_files_of_a_killed_process_go_when_a_checkpoint_is_read(tmp_path: Path) -> None:
    checkpoint = FleetCheckpoint(tmp_path, [config_of().run_id])
    saved(checkpoint, 250)
    (checkpoint.path / ".checkpoint.safetensors.0a1b2c3d.tmp").write_bytes(b"half")
    assert replayed(checkpoint) == list(range(250))
    assert not list(checkpoint.path.glob("*.tmp")) and not list(checkpoint.path.glob(".*.tmp"))


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    mine, other = (
        FleetCheckpoint(tmp_path, [config_of(0).run_id]),
        FleetCheckpoint(tmp_path, [config_of(1).run_id]),
    )
    assert mine.path != other.path
    assert (
        FleetCheckpoint(tmp_path, [config_of(0).run_id, config_of(1).run_id]).path
        != FleetCheckpoint(tmp_path, [config_of(1).run_id, config_of(0).run_id]).path
    )
    saved(other, 250)
    other.path.rename(mine.path)
    words = (
        rf"{re.escape(str(mine.path))}/checkpoint.safetensors is not a checkpoint of these runs \({mine.run_ids[0]}\)"
    )
    with pytest.raises(PrefVLMError, match=words):
        mine.load()
    safetensors.torch.save_file({"a": torch.ones(1)}, mine.path / "checkpoint.safetensors")  # valid, but none of ours
    with pytest.raises(PrefVLMError, match="another program or an earlier release wrote it"):
        mine.load()
