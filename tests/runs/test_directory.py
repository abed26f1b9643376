"""A run is stored where its name says, once, and a second process leaves it alone."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.runs import config_of, contents

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import FINISHED, RUNNING, RunDirectory, lock_runs
from prefvlm_core.runs.files import write_atomically
from prefvlm_core.runs.stored import find_runs, load_metrics
from prefvlm_core.train import train


def test_a_run_is_stored_where_its_name_says(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config_of(3))
    directory.open()
    assert directory.path == tmp_path / "quick" / "drawer-close-v3" / "pebble" / f"3-{config_of(3).hash}"
    assert directory.manifest == {} and directory.read_metrics() == [] and not directory.finished
    directory.write_manifest({"status": RUNNING, "seconds": 1.5})
    assert directory.manifest == {"status": RUNNING, "seconds": 1.5} and not directory.finished
    directory.write_manifest({"status": FINISHED})
    assert not RunDirectory(tmp_path, config_of(3)).finished  # somebody wrote so, but nothing was trained
    directory.write_weights({"actor": torch.zeros(1)})
    assert RunDirectory(tmp_path, config_of(3)).finished
    directory.open()  # again: the same run


def test_metrics_round_trip_exactly(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config_of())
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
    directory = RunDirectory(tmp_path, config_of())
    conflict = b"step,success\n<<<<<<< HEAD\n1,2\n"
    write_atomically(directory.path / "metrics.csv", conflict)
    write_atomically(directory.path / "manifest.json", conflict)
    with pytest.raises(PrefVLMError, match=r"metrics.csv is damaged \(.*\); restore it, or remove its folder"):
        directory.read_metrics()
    with pytest.raises(PrefVLMError, match=r"manifest.json is damaged \(.*\); restore it, or remove its folder"):
        _ = directory.finished


def test_find_runs_and_load_metrics(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "nowhere") == [] and load_metrics([]).empty
    directories = [RunDirectory(tmp_path, config_of(seed, method)) for method in ("pebble", "sac") for seed in (0, 1)]
    for number, directory in enumerate(directories):
        directory.open()
        directory.write_metrics([{"step": 250, "success": 0.25 * number}, {"step": 500, "success": float("nan")}])
    FleetCheckpoint(tmp_path, [config_of().run_id]).save(
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
    assert list(table["budget"]) == [config_of().feedback.budget] * 4 + [0] * 4
    assert list(table["success"].dropna()) == [0, 0.25, 0.5, 0.75]


def test_a_moved_run_is_not_taken_for_another(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config_of())
    directory.open()
    directory.path.rename(directory.path.with_name("moved"))
    with pytest.raises(PrefVLMError, match=r"moved/config.json does not hold the config its folder is named after"):
        find_runs(tmp_path)


def test_finished_runs_are_never_touched(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config_of())
    directory.open()
    directory.write_metrics([{"step": 1.0}])
    directory.write_weights({"actor": torch.zeros(1)})
    directory.write_manifest({"status": FINISHED})
    before = contents(tmp_path)
    (returned,) = train([config_of()], Execution(results=str(tmp_path), progress=False))
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
    directories = [RunDirectory(tmp_path, config_of(seed)) for seed in (0, 1)]
    with lock_runs(directories):
        pass
    lock = directories[1].path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        words = f"{directories[1].path} is being trained by another process; wait for it."
        with pytest.raises(PrefVLMError, match=re.escape(words)):
            train([config_of(0), config_of(1)], Execution(results=str(tmp_path), progress=False))
        with lock_runs(directories[:1]):  # the refused fleet has let go of what it held
            pass
        other.communicate()
    with lock_runs(directories):
        pass
    assert contents(tmp_path) == {}
