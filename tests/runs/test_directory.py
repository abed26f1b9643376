"""A run is stored where its name says, once, and a second process leaves it alone."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.runs import config_of, contents, finish, quiet

from prefvlm_core.checks.names import check_names
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution, replace
from prefvlm_core.methods import run_config
from prefvlm_core.preferences.log import LabelLog
from prefvlm_core.runs.checkpoint import FleetCheckpoint, lock_runs
from prefvlm_core.runs.directory import FINISHED, RUNNING, RunDirectory, read_config
from prefvlm_core.runs.files import write_atomically, write_tensors
from prefvlm_core.runs.locks import file_lock
from prefvlm_core.runs.pack import pack
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


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        (
            "manifest.json",
            ["[]", "null", '{"status": []}', '{"fleet": 3}', '{"fleet": [[1]]}', "[" * 100_000, "\xff"],
        ),
        ("metrics.csv", ["success\n1\n", "step\n100,1\n", "step,success\n100\n", "step,success\n100,x\n", "\x00"]),
        ("metrics.csv", ["step,seed\n1,2\n", "step,step\n1,1\n", "step,\n1,2\n", "step\ninf\n", "step\n2\n1\n"]),
        ("labels.csv", ["", "\x00\xff", "step,label\n1,2\n", "a\n1,2\n1\n", "step,label\n1,2,3\n", '"']),
    ],
)
def test_what_a_run_folder_may_not_hold_is_named(tmp_path: Path, name: str, contents: list[str]) -> None:
    directory = RunDirectory(tmp_path, config_of())
    for content in contents:
        write_atomically(directory.path / name, content.encode("latin-1"))
        with pytest.raises(PrefVLMError) as raised:
            _ = directory.manifest, directory.metrics(), directory.labels()
        assert str(raised.value).startswith(f"{directory.path / name} is damaged (") and "\n" not in str(raised.value)


def test_a_label_log_with_a_missing_or_further_column_is_damaged(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config_of())
    log = LabelLog()
    log.add(100, 1, "human", np.array([[1, 2], [3, 4]]), labels=[0, 1], truth=[0, 1])
    directory.write_labels(log.frame())
    read = directory.labels()
    assert read is not None and list(read.columns) == list(log.frame().columns) and len(read) == 2
    for damaged in (log.frame().drop(columns="truth"), log.frame().assign(run_id="x")):
        directory.write_labels(damaged)
        with pytest.raises(PrefVLMError, match=r"labels.csv is damaged \(.*divergence"):
            directory.labels()


@pytest.mark.parametrize("content", ["[1]", "null", "[" * 100_000, "", "\xff", '{"version": 1}'])
def test_a_config_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(PrefVLMError) as raised:
        read_config(path)
    named, _, reason = str(raised.value).partition(" cannot be read: ")
    assert named == str(path) and reason and "\n" not in reason and "pop" not in reason


def test_session_rewards_come_back_or_are_named(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config_of())
    values = {session: torch.full((3, 4), float(session)) for session in (1, 2, 1000)}
    for session, value in values.items():
        directory.write_session_reward(session, value)
    read = directory.read_session_rewards()
    assert read.keys() == values.keys() and all(torch.equal(read[session], values[session]) for session in values)
    for name, tensors in (("reward-x", {"reward": torch.ones(1)}), ("reward-003", {"other": torch.ones(1)})):
        path = directory.path / f"{name}.safetensors"
        write_tensors(path, tensors, {})
        with pytest.raises(PrefVLMError, match=rf"{name}.safetensors is damaged \(it is not the reward ensemble"):
            directory.read_session_rewards()
        path.unlink()


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


def test_a_run_whose_task_nobody_registered_is_read_but_not_trained(tmp_path: Path) -> None:
    changes = {"task": "my-task", "horizon": 125, "action_repeat": 5}  # more than Meta-World allows
    own = replace(run_config("drawer-close-v3", "pebble", 0, "quick"), changes)
    configs = [own, run_config("drawer-close-v3", "pebble", 1, "quick")]
    for config in configs:
        finish(tmp_path, config)
    assert [run.config for run in find_runs(tmp_path)] == sorted(configs, key=lambda config: config.run_id)
    assert set(load_metrics(find_runs(tmp_path))["task"]) == {"my-task", "drawer-close-v3"}
    pack(tmp_path)
    assert {run.run_id for run in find_runs(tmp_path)} == {config.run_id for config in configs}
    for misspelled in (own, replace(configs[1], {"task": "drawer-closed-v3"})):
        with pytest.raises(PrefVLMError, match=f"^Unknown task '{misspelled.task}'"):
            check_names(misspelled)
        with pytest.raises(PrefVLMError, match=f"^Unknown task '{misspelled.task}'"):
            train([misspelled], quiet(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


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
    with lock_runs(directories, tmp_path):
        pass
    lock = directories[1].path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        words = f"{directories[1].path} is being trained by another process; wait for it."
        with pytest.raises(PrefVLMError, match=re.escape(words)):
            train([config_of(0), config_of(1)], Execution(results=str(tmp_path), progress=False))
        with lock_runs(directories[:1], tmp_path):  # the refused fleet has let go of what it held
            pass
        other.communicate()
    with lock_runs(directories, tmp_path):
        pass
    assert contents(tmp_path) == {}


def test_what_a_killed_process_left_half_written_goes_when_the_run_is_locked(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, config_of())
    directory.open()
    for name in (".metrics.csv.0a1b2c3d.tmp", ".weights.safetensors.00000000.tmp"):
        (directory.path / name).write_bytes(b"half")
    with lock_runs([directory], tmp_path):
        assert contents(tmp_path).keys() == {f"{directory.run_id}/config.json"}


@pytest.mark.skipif(os.name == "nt", reason="locks are others on Windows")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def without(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", without)
    directory = RunDirectory(tmp_path, config_of())
    words = f"The folder {directory.path} cannot be locked ({os.strerror(number)}), so two processes could write to it"
    with pytest.raises(PrefVLMError, match=re.escape(words)), lock_runs([directory], tmp_path):
        pass


OTHER_USER = """
import os, sys
from pathlib import Path
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.locks import file_lock
os.setgid(65534)
os.setuid(65534)
try:
    with file_lock(Path(sys.argv[1]), 0):
        print("taken")
except PrefVLMError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root may act as another user")
def test_a_lock_of_another_user_may_be_taken_or_is_named() -> None:
    with tempfile.TemporaryDirectory() as shared:  # that of pytest is closed to others
        lock = Path(shared, ".lock")
        os.chmod(shared, 0o777)

        def taken() -> str:
            return subprocess.check_output([sys.executable, "-c", OTHER_USER, str(lock)], text=True)

        with file_lock(lock, 0):
            assert lock.stat().st_mode & 0o777 == 0o666
        lock.touch()
        lock.chmod(0o666)
        assert taken() == "taken\n"
        lock.touch()
        lock.chmod(0o600)
        assert taken().startswith(f"{lock} belongs to another user; ask them for permission")
