"""A training that is refused once it has begun leaves what was there before, and nothing else."""

import importlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders.runs import tiny

from prefvlm_core import Execution, train
from prefvlm_core.agent import evaluation
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.locks import file_lock

LOOP = importlib.import_module("prefvlm_core.train")  # `import prefvlm_core.train as` would give the function


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file with its content, and every folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


MOMENTS = {
    "locks": ("prefvlm_core.runs.checkpoint", "file_lock", PrefVLMError("It cannot be locked.")),
    "config": ("prefvlm_core.runs.directory", "write_atomically", PrefVLMError("The disk is full.")),
    "environments": ("prefvlm_core.train", "EnvironmentFleet.__init__", PrefVLMError("A worker failed.")),
    "replay": ("prefvlm_core.train", "make_replay", MemoryError()),
    "networks": ("prefvlm_core.train", "SAC.create", RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")),
    "teacher": ("prefvlm_core.feedback", "make_teachers", PrefVLMError("The queue cannot be reached.")),
    "first step": ("prefvlm_core.train", "exploring_actions", MemoryError()),
    "first checkpoint": ("prefvlm_core.runs.checkpoint", "write_tensors", PrefVLMError("The disk is full.")),
}


@pytest.mark.parametrize("before", ["no folder", "another run"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_refusal_leaves_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, before: str
) -> None:
    results = tmp_path / "some" / "results"
    if before == "another run":
        RunDirectory(results, tiny("sac", seed=7)).open()
    was = tree(tmp_path)
    module, name, error = MOMENTS[moment]
    where: Any = importlib.import_module(module)
    *outer, name = name.split(".")
    monkeypatch.setattr(getattr(where, outer[0]) if outer else where, name, raising(error))
    with pytest.raises(PrefVLMError):
        train(
            [tiny("prefvlm"), tiny("pebble")], Execution(str(results), workers=1, checkpoint_seconds=0, progress=False)
        )
    assert tree(tmp_path) == was


def test_a_fleet_with_a_run_that_is_held_leaves_no_others(tmp_path: Path) -> None:
    held = RunDirectory(tmp_path, tiny("sac", seed=1))
    held.open()
    with file_lock(held.lock):
        was = tree(tmp_path)
        with pytest.raises(PrefVLMError, match="is being trained by another process; wait for it"):
            train([tiny("sac"), tiny("sac", seed=1), tiny("sac", seed=2)], Execution(str(tmp_path), progress=False))
        assert tree(tmp_path) == was


def test_what_a_checkpoint_holds_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, execution = (
        [tiny("sac", total_steps=200)],
        Execution(str(tmp_path), workers=1, checkpoint_seconds=0, progress=False),
    )
    evaluate, calls = evaluation.evaluate, itertools.count()

    def refused_later(*arguments: Any) -> Any:
        if next(calls):
            raise PrefVLMError("The disk is full.")
        return evaluate(*arguments)

    monkeypatch.setattr(evaluation, "evaluate", refused_later)
    with pytest.raises(PrefVLMError, match="disk is full"):
        train(configs, execution)
    assert FleetCheckpoint(tmp_path, [configs[0].run_id]).file.exists()
    monkeypatch.setattr(LOOP, "make_replay", raising(MemoryError()))  # and so it is when it cannot go on
    with pytest.raises(PrefVLMError, match="memory ran out"):
        train(configs, execution)
    monkeypatch.undo()
    (directory,) = train(configs, execution)
    assert directory.finished and [row["step"] for row in directory.read_metrics()] == [100, 200]


def another_programs(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE pairs (id INTEGER PRIMARY KEY)")
    connection.close()


BAD_QUEUES: list[Callable[[Path], object]] = [
    lambda file: file.write_bytes(b"no database" * 1000),
    lambda file: file.mkdir(),
    another_programs,
]


@pytest.fixture
def human() -> Iterator[Any]:
    yield tiny("pebble", **{"feedback.teacher": "human"})


@pytest.mark.parametrize("harm", BAD_QUEUES)
@pytest.mark.parametrize("named", [True, False])
def test_a_bad_queue_is_found_before_anything_is_written(
    tmp_path: Path, human: Any, harm: Callable[[Path], object], named: bool
) -> None:
    harm(tmp_path / "labels.sqlite")
    was = tree(tmp_path)
    labels = f"sqlite:///{tmp_path}/labels.sqlite" if named else ""
    with pytest.raises(PrefVLMError, match=r"label"):
        train([human], Execution(str(tmp_path), labels=labels, progress=False))
    assert tree(tmp_path) == was
