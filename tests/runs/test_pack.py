"""Published tables hold what the run folders held, whatever the order, and nothing is lost on the way."""

import dataclasses
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import CONFIG_VERSION, Execution, RunConfig
from prefvlm_core.methods import run_config
from prefvlm_core.runs import pack as packing
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import FINISHED, RUNNING, RunDirectory
from prefvlm_core.runs.pack import pack
from prefvlm_core.runs.published import published_runs
from prefvlm_core.runs.stored import find_runs, load_labels, load_metrics
from prefvlm_core.train import train
from prefvlm_core.vlm.labeller import make_label_source

TASKS = ("drawer-close-v3", "button-press-v3")


def finish(results: Path, config: RunConfig, number: int = 0) -> RunDirectory:
    """Store a run as if it had been trained: metrics that are hard to write, and labels, where the method has some."""
    directory = RunDirectory(results, config)
    directory.open()
    generator = np.random.default_rng(number)
    rows: list[dict[str, float]] = [
        {"step": 500, "success": 0.1 + 0.2, "tiny": 5e-324, "seconds": generator.random()},
        {"step": 1000, "success": 1 / 3, "tiny": -1e-7, "seconds": generator.random(), "late": 2.0**53, "none": np.nan},
    ]
    directory.write_metrics([row | {f"of_{config.method}": float("-inf")} for row in rows])
    if config.method != "sac":
        count = 3 + number
        labels = pandas.DataFrame({"step": 500, "session": 1, "teacher": ["human", *["vlm"] * (count - 1)]})
        labels["first"], labels["second"] = generator.integers(0, 400, (2, count))
        labels["label"], labels["truth"] = generator.choice((0, 0.5, 1), (2, count))
        labels["divergence"] = [np.nan, *generator.random(count - 1)]
        labels["partition"] = ["", *["clean"] * (count - 1)]
        directory.write_labels(labels)
    directory.write_weights({"actor": torch.zeros(1)})
    directory.write_manifest({"status": FINISHED, "seconds": 1.5, "fleet": [config.run_id], "versions": {"torch": "2"}})
    return directory


def configs() -> list[RunConfig]:
    methods = [(task, method) for task in TASKS for method in ("sac", "pebble")]
    return [run_config(task, method, seed, "quick") for task, method in methods for seed in (0, 1)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for number, config in enumerate(configs()):
        finish(folder, config, number)
    return folder


def tables(results: Path) -> dict[str, bytes]:
    """Content of every published table."""
    folder = results / "quick"
    paths = [folder / "runs.csv", *folder.glob("metrics/*/*.csv"), *folder.glob("labels/*/*.parquet")]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


def assert_same_rows(first: pandas.DataFrame, second: pandas.DataFrame) -> None:
    """Bit by bit, whatever the order of the columns."""
    pandas.testing.assert_frame_equal(first[sorted(first)], second[sorted(second)], check_exact=True)


# ---- what is published is what was stored


def test_published_rows_are_those_of_the_folders_bit_by_bit(results: Path) -> None:
    metrics, labels = load_metrics(find_runs(results)), load_labels(find_runs(results))
    (packed,) = pack(results)
    assert (packed.profile, packed.runs, packed.added, packed.removed) == ("quick", 8, 8, 0)
    for path in results.glob("quick/*/*/*/*.csv"):
        path.write_text("not read any more")
    assert len(metrics) == 16 and len(labels) == sum(3 + number for number in (2, 3, 6, 7))
    assert_same_rows(load_metrics(find_runs(results)), metrics)
    assert_same_rows(load_labels(find_runs(results)), labels)


def test_the_tables_can_be_read_without_this_package(results: Path) -> None:
    pack(results)
    runs = pandas.read_csv(results / "quick" / "runs.csv")
    assert list(runs["run_id"]) == sorted(config.run_id for config in configs())
    assert set(runs["status"]) == {FINISHED} and set(runs["success"]) == {1 / 3} and set(runs["versions.torch"]) == {2}
    metrics = pandas.read_csv(results / "quick" / "metrics" / TASKS[0] / "pebble.csv")
    assert list(metrics.columns[:4]) == ["seed", "hash", "step", "success"] and list(metrics["seed"]) == [0, 0, 1, 1]
    for seed in (0, 1):
        labels = pandas.read_parquet(results / "quick" / "labels" / TASKS[0] / f"pebble-{seed}.parquet")
        assert list(labels.columns[:3]) == ["seed", "hash", "step"] and set(labels["seed"]) == {seed}


def test_runs_that_name_the_versions_of_more_are_packed_beside_those_that_do_not(results: Path) -> None:
    later = RunDirectory(results, configs()[0])
    later.write_manifest(later.manifest | {"versions": {"torch": "2", "gymnasium": "1.2.3"}})
    pack(results)
    runs = published_runs(results / "quick")
    versions = {run_id: run.manifest.get("versions.gymnasium") for run_id, run in runs.items()}
    assert versions.pop(later.run_id) == "1.2.3" and set(versions.values()) == {None}
    before = tables(results)
    pack(results, remove_folders=True)
    assert tables(results) == before


def test_the_config_of_a_row_restores_the_run(tmp_path: Path) -> None:
    config = run_config(TASKS[0], "pebble", 3, "quick", {"feedback.budget": 90, "sac.discount": 0.9})
    finish(tmp_path, config)
    pack(tmp_path, remove_folders=True)
    (run,) = published_runs(tmp_path / "quick").values()
    assert run.config == config and run.retired == {} and run.run_id == config.run_id
    assert RunConfig.from_json(run.row["config"]) == config
    assert run.manifest["seconds"] == "1.5" and re.fullmatch(r"[0-9a-f]{12}", run.manifest["fleet_hash"])


def test_the_column_changes_of_earlier_releases_is_read_over_and_dropped(tmp_path: Path) -> None:
    for number, config in enumerate(configs()):
        finish(tmp_path, config, number)
    pack(tmp_path, remove_folders=True)
    path = tmp_path / "quick" / "runs.csv"
    today = path.read_bytes()
    table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    table.insert(5, "changes", "feedback.budget=90")
    table.to_csv(path, index=False, lineterminator="\n")
    assert all("changes" not in run.manifest for run in published_runs(tmp_path / "quick").values())
    pack(tmp_path)
    assert path.read_bytes() == today


# ---- order, merging, repetition


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
@pytest.mark.parametrize("at_a_time", [1, 3])
def test_the_order_of_packing_does_not_matter(results: Path, tmp_path: Path, order: slice, at_a_time: int) -> None:
    pack(results)
    stepwise = tmp_path / "stepwise"
    for number, config in list(enumerate(configs()))[order]:
        finish(stepwise, config, number)
        if number % at_a_time == 0:
            pack(stepwise, remove_folders=number % 2 == 0)
    pack(stepwise)
    assert tables(stepwise) == tables(results)


def test_packing_again_changes_no_byte_and_writes_no_file(results: Path) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        found = {path: path.stat() for path in results.rglob("*") if path.is_file()}
        # filelock 3.32 truncates the lock file that it takes, which changes its time
        return {path: (stat.st_mtime_ns, stat.st_ino) for path, stat in found.items() if path.name != ".lock"}

    pack(results)
    before = files()
    (packed,) = pack(results)
    assert (packed.runs, packed.added) == (8, 0)
    assert files() == before


@pytest.mark.parametrize("packed_there", [False, True])
def test_the_results_of_two_machines_are_joined(results: Path, tmp_path: Path, packed_there: bool) -> None:
    pack(results)
    here, there = tmp_path / "here", tmp_path / "there"
    for number, config in enumerate(configs()):
        for machine in (here, there):
            if number == 4 or (number % 3 == 0) == (machine == here):  # run 4 was copied from one to the other
                finish(machine, config, number)
    pack(here)
    if packed_there:
        pack(there, remove_folders=True)
    (packed,) = pack(here, merge=[there])
    assert (packed.runs, packed.added) == (8, 4)
    assert tables(here) == tables(results)


def test_a_run_with_two_contents_is_refused_and_nothing_is_changed(results: Path, tmp_path: Path) -> None:
    pack(results)
    before = tables(results)
    finish(tmp_path / "there", configs()[0], number=99)
    finish(tmp_path / "there", run_config("door-open-v3", "sac", 0, "quick"))
    words = f"{configs()[0].run_id} is stored twice with different content, the second time below {tmp_path / 'there'};"
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        pack(results, merge=[tmp_path / "there"])
    assert tables(results) == before
    finish(results, configs()[0], number=99)  # or trained again by an older release
    with pytest.raises(PrefVLMError, match=re.escape(f"{configs()[0].run_id} is stored twice")):
        pack(results, remove_folders=True)
    assert RunDirectory(results, configs()[0]).path.joinpath("metrics.csv").exists()


def test_a_results_folder_that_is_not_there_is_named(results: Path, tmp_path: Path) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(f"There is no results folder {tmp_path / 'nowhere'}.")):
        pack(results, merge=[tmp_path / "nowhere"])
    with pytest.raises(
        PrefVLMError, match=re.escape(f"There is no finished run to publish below {results / 'laptop'}.")
    ):
        pack(results, "laptop")
    assert not (results / "laptop").exists()


# ---- what is not packed


def test_unfinished_runs_are_not_packed(results: Path) -> None:
    running = RunDirectory(results, configs()[0])
    running.write_manifest({"status": RUNNING})
    fleet = [config.run_id for config in configs()[1:3]]
    for config in configs()[1:3]:  # a fleet killed while it declared its runs finished will come back whole
        RunDirectory(results, config).write_manifest({"status": FINISHED, "fleet": fleet})
    FleetCheckpoint(results, fleet).save(1000, {}, {}, {})
    pack(results, remove_folders=True)
    assert set(published_runs(results / "quick")) == {config.run_id for config in configs()[3:]}
    assert all(RunDirectory(results, config).path.joinpath("metrics.csv").exists() for config in configs()[:3])


# ---- damage


@pytest.mark.parametrize("table", ["metrics", "labels"])
def test_a_row_that_was_changed_is_refused(results: Path, table: str) -> None:
    pack(results)
    run_id, other = configs()[2].run_id, configs()[3].run_id
    if table == "metrics":
        path = results / "quick" / "metrics" / TASKS[0] / "pebble.csv"
        path.write_text(path.read_text().replace("0.30000000000000004", "0.3", 1))
    else:
        path = results / "quick" / "labels" / TASKS[0] / f"pebble-{configs()[2].seed}.parquet"
        rows = pandas.read_parquet(path)
        rows.loc[0, "first"] += 1
        rows.to_parquet(path)
    load = load_metrics if table == "metrics" else load_labels
    runs = published_runs(results / "quick")
    words = f"{path} does not hold the {table} of {run_id} whose hash {results / 'quick' / 'runs.csv'} names; restore"
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        load([runs[run_id]])
    assert len(load([runs[other]]))
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        pack(results)


@pytest.mark.parametrize("name", ["runs.csv", f"metrics/{TASKS[0]}/pebble.csv", f"labels/{TASKS[0]}/pebble-0.parquet"])
def test_a_table_with_a_merge_conflict_is_named(results: Path, name: str) -> None:
    pack(results)
    path = results / "quick" / name
    path.write_bytes(b"<<<<<<< HEAD\n" + path.read_bytes())
    with pytest.raises(PrefVLMError, match=rf"{re.escape(str(path))} is damaged \(.*\); restore it"):
        for run in find_runs(results):
            run.metrics()
            run.labels()


def test_a_config_that_was_changed_is_refused(results: Path) -> None:
    pack(results)
    path = results / "quick" / "runs.csv"
    path.write_text(path.read_text().replace('""sac.width"":128', '""sac.width"":64', 1))
    with pytest.raises(PrefVLMError, match=r"runs.csv is damaged: the config of quick/.* belongs to another run."):
        load_metrics(find_runs(results))


# ---- kills


def killed_after(action: Callable[..., Any], times: int) -> Callable[..., Any]:
    """`action`, which ends the process instead of happening once more than `times`."""
    left = itertools.count(times, -1)

    def killing(*arguments: Any, **named: Any) -> Any:
        if next(left) <= 0:
            raise KeyboardInterrupt
        return action(*arguments, **named)

    return killing


@pytest.mark.parametrize("survived", range(7))  # of 7 tables, and 40 files with 5 times as many
def test_a_kill_at_any_write_or_removal_loses_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """The process dies at its `survived`-th replacement of a file, or removal; then everything is packed again."""
    metrics, labels = load_metrics(find_runs(results)), load_labels(find_runs(results))
    shutil.copytree(results, tmp_path / "whole")
    pack(tmp_path / "whole")
    for action, times in (("replace", survived), ("unlink", 5 * survived)):
        with monkeypatch.context() as patched:
            patched.setattr(os, action, killed_after(getattr(os, action), times))
            with pytest.raises(KeyboardInterrupt):
                pack(results, remove_folders=True)
        assert_same_rows(load_metrics(find_runs(results)), metrics)
        assert_same_rows(load_labels(find_runs(results)), labels)
        assert all(RunDirectory(results, config).finished for config in configs())
    pack(results, remove_folders=True)
    assert tables(results) == tables(tmp_path / "whole")
    assert not list(results.rglob("config.json"))


def test_nothing_is_removed_unless_the_tables_read_back(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = packing.write_atomically

    def damaging(path: Path, content: bytes) -> None:
        write(path, content.replace(b"0.30000000000000004", b"0.3") if path.suffix == ".csv" else content)

    monkeypatch.setattr(packing, "write_atomically", damaging)
    with pytest.raises(PrefVLMError, match=r"does not hold the metrics of"):
        pack(results, remove_folders=True)
    assert len(list(results.rglob("config.json"))) == len(list(results.rglob("manifest.json"))) == 8


# ---- folders


def test_removal_leaves_weights_and_adapters(results: Path) -> None:
    directories = [RunDirectory(results, config) for config in configs()]
    (directories[2].path / "adapters.safetensors").write_bytes(b"adapters")
    (directories[0].path / "weights.safetensors").unlink()
    kept = {path for directory in directories for path in directory.path.glob("*.safetensors")}
    assert len(kept) == 8
    (packed,) = pack(results, remove_folders=True)
    assert packed.removed == 8
    left = [path for path in results.rglob("*") if path.is_file() and path.name != ".lock"]
    assert set(left) == {*kept, *(results / name for name in tables(results))}
    assert not directories[0].path.exists()
    assert pack(results, remove_folders=True)[0].removed == 0 and all(path.exists() for path in kept)


# ---- published runs are finished runs


def test_a_published_run_is_never_trained_again(results: Path) -> None:
    pack(results, remove_folders=True)
    before = tables(results)
    directories = train(configs()[2:4], Execution(results=str(results), progress=False))
    assert tables(results) == before and not list(results.rglob("config.json"))
    assert [directory.finished for directory in directories] == [True, True]
    assert len(load_metrics(directories)) == 4 and directories[0].read_metrics()[1]["success"] == 1 / 3
    assert directories[0].manifest["status"] == FINISHED


@pytest.mark.parametrize("published", [False, True])
def test_adapters_of_a_source_that_are_not_there_are_asked_for(results: Path, published: bool) -> None:
    source = configs()[2].run_id
    config = run_config(TASKS[0], "prefvlm", 0, "quick", {"adapter.source": source})
    words = f"adapter.source is {source}, but there is no {results / source / 'adapters.safetensors'}"
    if published:
        pack(results, remove_folders=True)
        words += ": of that run only the tables are published; train it again in another results folder and copy"
    else:
        words += "; train that run first."
    replay: Any = SimpleNamespace(device=torch.device("cpu"))
    encoder: Any = SimpleNamespace(text=np.zeros(8), fingerprint="")
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        make_label_source(config, replay, encoder, np.random.default_rng(0), Stopwatch(), results)


def test_published_and_newer_runs_are_found_alike(results: Path) -> None:
    pack(results, remove_folders=True)
    newer = [run_config(task, "rune", 0, "quick") for task in TASKS]
    for number, config in enumerate(newer):
        finish(results, config, number)
    found = find_runs(results, "quick")
    assert [run.run_id for run in found] == sorted(config.run_id for config in [*configs(), *newer])
    assert find_runs(results, "laptop") == []
    assert all(run.last_evaluation["success"] == 1 / 3 and run.last_evaluation["step"] == 1000 for run in found)
    assert set(load_metrics(found)["run_id"]) == {run.run_id for run in found}


# ---- retired and translated fields


def store_old(results: Path, config: RunConfig, changes: dict[str, Any]) -> RunDirectory:
    """A finished run as a release stored it whose config had more fields; returns it as it is found today."""
    finish(results, config)
    folder = RunDirectory(results, config).path
    values = dataclasses.asdict(config)
    for name, value in changes.items():
        group, _, leaf = name.partition(".")
        values[group][leaf] = value
    text = json.dumps({"version": CONFIG_VERSION, **values})
    (folder / "config.json").write_text(text)
    from prefvlm_core.config.retired import read_stored_config

    stored = read_stored_config(text)
    folder.rename(results / stored.stored_id)
    return RunDirectory(results, stored.config, stored)


def test_a_retired_run_stays_listed_and_is_no_other_run(tmp_path: Path) -> None:
    config = run_config(TASKS[0], "prefvlm", 0, "quick")
    old = store_old(tmp_path, config, {"filter.mode": "calibrated", "filter.soft_labels": True})
    for _ in ("folder", "table"):
        (run,) = find_runs(tmp_path)
        assert run.run_id == old.run_id != config.run_id
        assert not RunDirectory(tmp_path, config).finished
        assert set(load_metrics([run])["retired"]) == {"filter.mode=calibrated, filter.soft_labels=True"}
        assert set(load_labels([run])["retired"]) == {"filter.mode=calibrated, filter.soft_labels=True"}
        pack(tmp_path, remove_folders=True)
    first = tables(tmp_path)
    pack(tmp_path)
    assert tables(tmp_path) == first


def test_a_translated_run_is_published_under_its_name_of_today(tmp_path: Path) -> None:
    config = run_config(TASKS[0], "vlm-preference", 0, "quick")
    today = run_config(TASKS[0], "vlm-preference", 0, "quick", {"vlm.model": "simulated:0.8"})
    old = store_old(tmp_path, config, {"vlm.simulated_accuracy": 0.8})
    assert old.path.name != today.run_id.split("/")[-1] and old.run_id == today.run_id
    pack(tmp_path, remove_folders=True)
    (run,) = find_runs(tmp_path)
    assert run.run_id == today.run_id and run.config == today and run.retired == {}
    assert RunDirectory(tmp_path, today).finished and not RunDirectory(tmp_path, config).finished


def test_tables_are_read_after_a_field_of_theirs_was_retired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row keeps the config as it was stored: what a later release retires, it finds there."""
    from prefvlm_core.config import retired

    config = run_config(TASKS[0], "pebble", 0, "quick", {"feedback.sampling": "uniform", "sac.discount": 0.9})
    finish(tmp_path, config)
    pack(tmp_path, remove_folders=True)
    monkeypatch.setitem(retired.RETIRED_VALUES, "sac.discount", (0.9,))
    os.utime(tmp_path / "quick" / "runs.csv", (1, 1))
    (run,) = find_runs(tmp_path)
    assert (run.run_id, dict(run.retired)) == (config.run_id, {"sac.discount": 0.9})
