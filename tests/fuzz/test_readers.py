"""Damaged files of results: each reader refuses them in one line, or what it reads is what was stored."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from builders.damage import DAMAGES, Damage
from builders.refusals import is_one_line
from builders.runs import config_of
from hypothesis import given, settings
from hypothesis import strategies as st

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import FINISHED, RunDirectory, read_manifest
from prefvlm_core.runs.listing import run_lines
from prefvlm_core.runs.pack import pack
from prefvlm_core.runs.rows import read_labels, read_metrics
from prefvlm_core.runs.stored import find_runs, load_labels, load_metrics


def store(results: Path, config: Any, number: int) -> None:
    directory = RunDirectory(results, config)
    directory.open()
    generator = np.random.default_rng(number)
    directory.write_metrics(
        [{"step": step, "success": generator.random(), "late": np.nan, "seconds": 1.5} for step in (500, 1000)]
    )
    if config.method != "sac":
        labels = pandas.DataFrame({"step": 500, "session": 1, "teacher": ["human", "vlm", "vlm"]})
        labels["first"], labels["second"] = generator.integers(0, 400, (2, 3))
        labels["label"], labels["truth"] = generator.choice((0, 0.5, 1), (2, 3))
        labels["divergence"], labels["partition"] = [np.nan, 0.25, 1.5], ["", "clean", "uncertain"]
        directory.write_labels(labels)
    directory.write_manifest({"status": FINISHED, "seconds": 1.5, "versions": {"torch": "2"}})
    directory.write_weights({})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs in folders of their own."""
    results = tmp_path_factory.mktemp("folders")
    for number, config in enumerate((config_of(0), config_of(1), run_config("button-press-v3", "sac", 0, "quick"))):
        store(results, config, number)
    return results


@pytest.fixture(scope="module")
def published(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs in published tables."""
    results = tmp_path_factory.mktemp("published")
    pack(results, merge=[folders])
    return results


def damaged_copy(source: Path, folder: str, file: str, damage: Damage) -> Path:
    """A copy of results in which a file is damaged."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (path,) = Path(folder).glob(f"**/{file}")
    path.write_bytes(damage(path.read_bytes()))
    return Path(folder)


def content(results: Path) -> dict[str, tuple[str, ...]]:
    """Everything that training put into the stored runs, by name."""
    runs = find_runs(results)
    assert len(list(run_lines(runs))) == len(runs) + 1
    load_metrics(runs), load_labels(runs)
    return {
        run.run_id: (run.config.to_json(), *map(text_of, (run.metrics(), run.labels())), str(run.last_evaluation))
        for run in runs
    }


def text_of(table: pandas.DataFrame | None) -> str:
    """The columns that hold anything, whatever their order."""
    return "" if table is None else table[sorted(table.dropna(axis=1, how="all"))].to_csv(index=False)


def refused_or(test: Callable[[], None]) -> bool:
    """Whether what is read is refused in one line; else it must be as `test` wants it."""
    try:
        test()
    except PrefVLMError as error:
        assert is_one_line(error), str(error)
        return True
    return False


FEW = settings(max_examples=max(25, settings().max_examples // 20))
"""Damaging a copy of whole results takes longer than other examples."""

TABLES = ("runs.csv", "drawer-close-v3/pebble.csv", "button-press-v3/sac.csv", "drawer-close-v3/pebble-0.parquet")


@pytest.mark.parametrize("file", TABLES)
@FEW
@given(damage=DAMAGES)
def test_damaged_tables_are_refused_or_hold_what_was_published(published, file, damage):
    stored = content(published)

    def check() -> None:
        found = content(damaged_copy(published, folder, file, damage))
        assert found.items() <= stored.items()
        assert found.keys() == stored.keys() or file == "runs.csv"  # a row that is cut off whole leaves no trace

    with tempfile.TemporaryDirectory() as folder:
        refused_or(check)


FOLDER_FILES = ("0-*/config.json", "0-*/manifest.json", "0-*/metrics.csv", "0-*/labels.csv")


@pytest.mark.parametrize("file", FOLDER_FILES)
@FEW
@given(damage=DAMAGES)
def test_damaged_run_folders_are_refused_in_one_line_or_read(folders, file, damage):
    file = f"drawer-close-v3/pebble/{file}"
    stored = content(folders)

    def check() -> None:
        found = content(damaged_copy(folders, folder, file, damage))
        assert found.keys() == stored.keys()
        assert {name: parts[0] for name, parts in found.items()} == {name: parts[0] for name, parts in stored.items()}

    with tempfile.TemporaryDirectory() as folder:
        refused_or(check)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(("status", "fleet", "seconds", "versions")) | st.text(max_size=3), inner)
    ),
    max_leaves=5,
)
CELLS = st.text(max_size=3) | st.sampled_from(
    ("step", "seed", "", "1", "nan", "inf", "x", '"', "clean", "-1", "1e400", "é", "\0")
)
ROWS = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=4).map("\n".join)


@given(JSON.map(json.dumps) | ROWS)
def test_any_manifest_is_a_dictionary_or_refused(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    refused_or(lambda: pytest.fail("no dictionary") if not isinstance(read_manifest(path), dict) else None)


@given(ROWS | JSON.map(json.dumps))
def test_any_metrics_are_rows_of_numbers_or_refused(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")

    def check() -> None:
        for row in read_metrics(path):
            assert all(isinstance(name, str) and isinstance(value, float) for name, value in row.items())

    refused_or(check)


@given(ROWS | JSON.map(json.dumps))
def test_any_label_log_is_a_table_or_refused(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    refused_or(lambda: pytest.fail("no table") if not isinstance(read_labels(path), pandas.DataFrame) else None)
