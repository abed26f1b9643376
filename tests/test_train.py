"""Tests of small whole training runs: every part acts, seeds determine the numbers, interruptions change nothing."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from builders.runs import contents, quiet, tiny, train_until_300, weights_hash, without_seconds

from prefvlm_core.agent import evaluation
from prefvlm_core.agent.sac import SAC
from prefvlm_core.methods import run_config
from prefvlm_core.runs.checkpoint import FleetCheckpoint, unfinished
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import write_json
from prefvlm_core.train import Fleet, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[RunDirectory]:
    configs = [tiny("sac"), tiny("pebble"), tiny("pebble", 1), tiny("pebble", **{"feedback.teacher": "skip"})]
    return train(configs, quiet(tmp_path_factory.mktemp("trained")))


def test_every_part_acts(trained: list[RunDirectory]) -> None:
    sac, pebble = trained[:2]
    rows = pebble.read_metrics()
    assert [row["step"] for row in rows] == [100, 200, 300, 400]
    assert [row["human_labels"] for row in rows] == [0, 13, 18, 20]  # 8 at step 120, then 5, 5 and the last 2
    assert rows[-1]["sessions"] == 4 and 0 <= rows[-1]["reward_accuracy"] <= 1
    assert rows[-1]["temperature"] != 0.1
    assert all(row["human_labels"] == 0 for row in sac.read_metrics())
    weights = safetensors.torch.load_file(pebble.path / "weights.safetensors")
    sizes = {"actor": (1, -1), "critic": (2, -1), "reward": (3, -1)}
    assert {name: (len(tensor), -1) for name, tensor in weights.items()} == sizes
    generator = [np.random.default_rng(np.random.SeedSequence([0, 0]))]
    fresh = SAC.create(pebble.config.sac, 39, 4, generator, torch.device("cpu"), [0.1])
    moved = weights["actor"] != fresh.actor.values[0]
    assert moved[0, -8:].all() and moved.float().mean() > 0.3  # weights of observations that are always 0 do not move
    assert pebble.manifest["status"] == "finished" and len(pebble.manifest["fleet"]) == 4


def test_same_seed_same_numbers_and_other_seed_others(trained: list[RunDirectory], tmp_path: Path) -> None:
    configs = [directory.config for directory in trained]
    again = train(configs, quiet(tmp_path))
    for first, second in zip(trained, again, strict=True):
        assert without_seconds(first) == without_seconds(second)
        assert weights_hash(first) == weights_hash(second)
    assert without_seconds(trained[1]) != without_seconds(trained[2])


def test_companions_change_a_run_by_rounding_only(trained: list[RunDirectory], tmp_path: Path) -> None:
    alone = train([trained[1].config], quiet(tmp_path))[0]
    first, second = alone.read_metrics()[0], trained[1].read_metrics()[0]
    assert first["episode_return"] == pytest.approx(second["episode_return"], rel=1e-3)
    assert first["temperature"] == pytest.approx(second["temperature"], rel=1e-4)


def test_evaluations_beside_training_change_no_number(
    trained: list[RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last one end only after the agents have learned on."""
    update, evaluate, updates, evaluated = SAC.update, evaluation.evaluate, [], []

    def counted(agent: SAC, *arguments: Any) -> None:
        update(agent, *arguments)
        updates.append(threading.get_ident())

    def late(*arguments: Any) -> dict[str, np.ndarray]:
        before = len(updates)
        evaluated.append(threading.get_ident())
        while len(evaluated) < 4 and len(updates) == before:
            time.sleep(0.001)
        return evaluate(*arguments)

    monkeypatch.setattr(SAC, "update", counted)
    monkeypatch.setattr(evaluation, "evaluate", late)
    monkeypatch.setattr(sys.modules["prefvlm_core.train"], "usable_cores", lambda: 2)
    beside = train([directory.config for directory in trained], dataclasses.replace(quiet(tmp_path), workers=2))
    assert len(evaluated) == 4 and not set(evaluated) & set(updates)
    for first, second in zip(trained, beside, strict=True):
        assert without_seconds(first) == without_seconds(second)
        assert weights_hash(first) == weights_hash(second)


def test_a_finished_run_is_never_touched(trained: list[RunDirectory]) -> None:
    before = {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in trained[0].path.iterdir() if file.is_file()
    }
    train([trained[0].config], quiet(trained[0].path.parents[3]))
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before}
    assert {k: v for k, v in before.items() if k.name != ".lock"} == {
        k: v for k, v in after.items() if k.name != ".lock"
    }


TRAIN = """
import json, sys
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.train import Fleet, train
if __name__ == "__main__":
    configs = [RunConfig.from_json(text) for text in json.loads(sys.argv[1])]
    train(configs, Execution(results=sys.argv[2], progress=False, workers=int(sys.argv[3]), checkpoint_seconds=0))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_ends_bit_identical(trained: list[RunDirectory], tmp_path: Path, workers: int) -> None:
    """A real training process is killed with SIGKILL again and again until one finishes."""
    configs = json.dumps([directory.config.to_json() for directory in trained])
    program = tmp_path / "program.py"
    program.write_text(TRAIN)
    results = tmp_path / "results"
    patience, kills = np.random.default_rng(int(time.time())), 0
    while True:
        checkpoints_before = sorted(results.glob("quick/fleets/*/replay-*"))
        process = subprocess.Popen(
            [sys.executable, str(program), configs, str(results), str(workers)],
            env=os.environ | {"PYTHONHASHSEED": "random"},
        )
        while process.poll() is None and sorted(results.glob("quick/fleets/*/replay-*")) == checkpoints_before:
            time.sleep(0.01)
        if process.poll() is None and kills < 4:
            time.sleep(patience.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        elif process.wait() == 0:
            break
    assert kills >= 3
    for uninterrupted in trained:
        resumed = RunDirectory(results, uninterrupted.config)
        assert without_seconds(resumed) == without_seconds(uninterrupted)
        assert weights_hash(resumed) == weights_hash(uninterrupted)
    assert not list(results.glob("quick/fleets/*"))


@pytest.mark.parametrize("declared", [0, 1, 4])
def test_killed_while_declaring_its_runs_finished_ends_bit_identical(
    declared: int, trained: list[RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole fleet is resumed, because the remaining runs alone would round differently."""
    configs, finished = [directory.config for directory in trained], []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def killed(directory: RunDirectory, values: dict[str, object], write=RunDirectory.write_manifest) -> None:
        if values["status"] == "finished":
            if len(finished) == declared:
                interrupt()
            finished.append(directory)
        write(directory, values)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunDirectory, "write_manifest", killed)
        patched.setattr(sys.modules["prefvlm_core.train"], "remove_checkpoints", interrupt)
        train(configs, quiet(tmp_path))
    assert [directory.finished for directory in unfinished([RunDirectory(tmp_path, c) for c in configs], tmp_path)] == [
        run < declared for run in range(4)
    ]
    for uninterrupted, resumed in zip(trained, train(configs, quiet(tmp_path)), strict=True):
        assert without_seconds(resumed) == without_seconds(uninterrupted)
        assert weights_hash(resumed) == weights_hash(uninterrupted)
        assert resumed.manifest["fleet"] == uninterrupted.manifest["fleet"]
    assert not list(tmp_path.glob("quick/fleets/*"))


def test_runs_finished_in_another_fleet_are_not_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runs are interrupted, two of them are trained to the end alone, then all four are asked for again."""
    configs = [tiny("pebble", seed) for seed in range(4)]
    train_until_300(configs, quiet(tmp_path, checkpoint_seconds=0), monkeypatch)
    whole = FleetCheckpoint(tmp_path, [config.run_id for config in configs])
    assert whole.file.exists()
    kept = tmp_path / "checkpoint"
    shutil.copytree(whole.path, kept)
    first, second = train(configs[:2], quiet(tmp_path))
    assert not whole.path.exists()  # no training could go on from it
    shutil.copytree(kept, whole.path)  # an earlier release left it
    before = contents(first.path), contents(second.path)
    directories = train(configs, quiet(tmp_path))
    assert (contents(first.path), contents(second.path)) == before
    assert all(directory.finished and directory.read_metrics() for directory in directories)
    assert [len(directory.manifest["fleet"]) for directory in directories] == [2, 2, 2, 2]
    assert not list(tmp_path.glob("quick/fleets/*"))


@pytest.mark.parametrize("ends", [True, False])
def test_training_leaves_torchs_settings_as_they_were(
    ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, seen = lambda: (torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32), []

    def end(fleet: Fleet) -> None:
        seen.append(settings())
        if not ends:
            raise KeyboardInterrupt

    monkeypatch.setattr(Fleet, "train", end)
    torch.set_num_threads(2)
    try:
        before = settings()
        with nullcontext() if ends else pytest.raises(KeyboardInterrupt):
            train([tiny("sac")], quiet(tmp_path, threads=3))
        assert (seen, settings()) == ([(3, True)], before)
    finally:
        torch.set_num_threads(1)


def test_a_stored_run_of_another_config_version_is_refused(tmp_path: Path) -> None:
    config = tiny("sac")
    directory = RunDirectory(tmp_path, config)
    write_json(directory.path / "config.json", json.loads(config.to_json()) | {"version": 0})
    with pytest.raises(ValueError, match="config version 0"):
        train([config], quiet(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sac", "pebble"])
def test_learns_drawer_close_in_the_quick_profile(method: str, tmp_path: Path) -> None:
    configs = [run_config("drawer-close-v3", method, seed, "quick") for seed in (10, 11, 12, 13)]
    final = [directory.read_metrics()[-1]["success"] for directory in train(configs, quiet(tmp_path))]
    assert np.mean(final) >= 0.9, final
