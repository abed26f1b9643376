"""Stored measurements are those that were made, and only what is missing is measured."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders.runs import quiet

from prefvlm_core.analysis import motion
from prefvlm_core.analysis import motion_results as stored
from prefvlm_core.analysis.motion import COLUMNS, KINDS, SHOWN
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]
RUNS = motion.replay_configs("laptop")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Runs that were measured; nothing is trained, and the numbers are made up."""
    runs: list[RunConfig] = []

    def train(configs: Sequence[RunConfig], execution: Execution) -> list[RunDirectory]:
        assert len({config.task for config in configs}) == 1 and execution.keep_replay
        return [RunDirectory(execution.results, config) for config in configs]

    def measure(directory: RunDirectory) -> pd.DataFrame:
        assert directory.path.parts[-6:-4] == ("laptop", "replays")
        config = directory.config
        runs.append(config)
        generator = np.random.default_rng(RUNS.index(config))
        rows = [
            (config.task, config.seed, *which, *generator.random(2))
            for which in itertools.product(SHOWN, KINDS, range(3))
        ]
        return pd.DataFrame(rows, columns=COLUMNS)

    monkeypatch.setattr(stored, "train", train)
    monkeypatch.setattr(motion, "measure", measure)
    return runs


def test_what_is_stored_is_read_back_bit_by_bit_and_not_measured_again(
    tmp_path: Path, measured: list[RunConfig]
) -> None:
    first = stored.motion_results("laptop", quiet(tmp_path), measure=True)
    assert measured == RUNS and len(first) == 10 * 2 * 2 * 3
    again = stored.motion_results("laptop", quiet(tmp_path), measure=True)
    assert measured == RUNS
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert stored.status("laptop", first) == "All 10 runs of profile laptop are measured."


def test_a_stopped_measurement_goes_on_and_a_part_can_be_drawn(
    tmp_path: Path, measured: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = motion.measure

    def until(directory: RunDirectory) -> pd.DataFrame:
        if directory.config == RUNS[7]:
            raise KeyboardInterrupt
        return whole(directory)

    monkeypatch.setattr(motion, "measure", until)
    with pytest.raises(KeyboardInterrupt):
        stored.motion_results("laptop", quiet(tmp_path), measure=True)
    part = stored.motion_results("laptop", quiet(tmp_path), measure=False)
    assert stored.missing_runs("laptop", part) == RUNS[7:]
    assert stored.status("laptop", part) == "3 of 10 runs of profile laptop are not measured; set measure = True."
    monkeypatch.setattr(motion, "measure", whole)
    stored.motion_results("laptop", quiet(tmp_path), measure=True)
    assert measured == RUNS


@pytest.mark.parametrize("changed", ["tinyliv2", RUNS[0].hash])
def test_nothing_is_measured_unasked_and_other_weights_and_runs_do_not_count(
    tmp_path: Path, measured: list[RunConfig], changed: str
) -> None:
    with pytest.raises(PrefVLMError, match=r"No measurement of profile laptop .* with measure = True in notebooks/11_"):
        stored.motion_results("laptop", quiet(tmp_path), measure=False)
    stored.motion_results("laptop", quiet(tmp_path), measure=True)
    path = tmp_path / "laptop" / "motion" / "labels.csv"
    path.write_text(path.read_text().replace(changed, "other"))
    stored.motion_results("laptop", quiet(tmp_path), measure=True)
    assert measured == [*RUNS, *(RUNS if changed == "tinyliv2" else RUNS[:1])]
    assert "other" not in path.read_text()


def test_the_stored_table_says_what_the_explanation_of_locomotion_says() -> None:
    table = motion.accuracy_table(stored.motion_results("laptop", Execution(str(ROOT / "results")), measure=False))
    of = table.set_index(["task", "pairs", "shows"])
    assert (table["seeds"] == 5).all() and len(table) == 2 * 2 * 2
    for task, shows in itertools.product(("walker-walk", "cheetah-run"), SHOWN):
        anything, late = of.loc[task, "all", shows], of.loc[task, "late", shows]
        assert anything["zero_shot_high"] < 0.5 < anything["adapted_low"]
        assert late["adapted"] < anything["adapted_low"]
    gains = of.xs("difference", level="shows")
    assert (gains["over_frames_low"] < 0).all() and (gains["over_frames_high"] > 0).all()


def damaged_in(column: str, value: str) -> Any:
    def damage(text: str) -> str:
        header, first, *rest = text.splitlines()
        cells = first.split(",")
        cells[header.split(",").index(column)] = value
        return "\n".join([header, ",".join(cells), *rest, ""])

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "task,draw\n",
        lambda text: "\x00\xff",
        damaged_in("adapted", "1.5"),
        damaged_in("zero_shot", ""),
        damaged_in("shows", "film"),
        damaged_in("pairs", "few"),
        damaged_in("seed", "x"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, measured: list[RunConfig], damage: Any) -> None:
    stored.motion_results("laptop", quiet(tmp_path), measure=True)
    path = tmp_path / "laptop" / "motion" / "labels.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(PrefVLMError, match=r"labels.csv is damaged; restore it, or remove it to measure again"):
        stored.motion_results("laptop", quiet(tmp_path), measure=False)
