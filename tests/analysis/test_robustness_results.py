"""Stored measurements are those that were made, and only what is missing is measured."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prefvlm_core.analysis import robustness
from prefvlm_core.analysis import robustness_results as stored
from prefvlm_core.analysis.robustness import COLUMNS, PLANS, READERS, Batch
from prefvlm_core.common.errors import PrefVLMError

BATCHES = robustness.batches(PLANS["laptop"])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Batches that were measured; the numbers are made up, with many digits, and one is missing."""
    batches: list[Batch] = []

    def measure(batch: Batch, plan: object, model: object) -> pd.DataFrame:
        batches.append(batch)
        generator = np.random.default_rng(BATCHES.index(batch))
        rows = [
            (batch.task, batch.draw, *scene, reader, *generator.random(2))
            for scene in batch.scenes
            for reader in READERS
        ]
        rows[-1] = (*rows[-1][:-1], np.nan)
        return pd.DataFrame(rows, columns=COLUMNS)

    monkeypatch.setattr(robustness, "measure", measure)
    return batches


def test_what_is_stored_is_read_back_bit_by_bit_and_not_measured_again(tmp_path: Path, measured: list[Batch]) -> None:
    first = stored.robustness_results("laptop", tmp_path, measure=True)
    assert measured == BATCHES and len(first) == 8 * (1 + 3 * 10) * 3
    again = stored.robustness_results("laptop", tmp_path, measure=True)
    assert len(measured) == len(BATCHES)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert first["value_order"].isna().sum() == len(BATCHES)
    assert stored.status("laptop", first) == "All 24 batches of profile laptop are measured."


def test_a_stopped_measurement_goes_on_and_a_part_can_be_drawn(
    tmp_path: Path, measured: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = robustness.measure, BATCHES[8]

    def until(batch: Batch, plan: object, model: object) -> pd.DataFrame:
        if batch == stopped:
            raise KeyboardInterrupt
        return whole(batch, plan, model)  # type: ignore[arg-type]

    monkeypatch.setattr(robustness, "measure", until)
    with pytest.raises(KeyboardInterrupt):
        stored.robustness_results("laptop", tmp_path, measure=True)
    part = stored.robustness_results("laptop", tmp_path, measure=False)
    assert set(part["strength"]) == {"", "strong"} and measured == BATCHES[:8]
    said = "16 of 24 batches of profile laptop are not measured and left out (mild, extreme); set measure = True."
    assert stored.status("laptop", part) == said
    monkeypatch.setattr(robustness, "measure", whole)
    stored.robustness_results("laptop", tmp_path, measure=True)
    assert measured == BATCHES


def test_nothing_is_measured_unasked_and_other_weights_do_not_count(tmp_path: Path, measured: list[Batch]) -> None:
    with pytest.raises(PrefVLMError, match=r"No measurement of profile laptop .* with measure = True in notebooks/10_"):
        stored.robustness_results("laptop", tmp_path, measure=False)
    stored.robustness_results("laptop", tmp_path, measure=True)
    path = tmp_path / "laptop" / "robustness" / "scenes.csv"
    path.write_text(path.read_text().replace("tinyliv", "other"))
    with pytest.raises(PrefVLMError, match="No measurement of profile laptop"):
        stored.robustness_results("laptop", tmp_path, measure=False)
    stored.robustness_results("laptop", tmp_path, measure=True)
    assert measured == [*BATCHES, *BATCHES] and "other" not in path.read_text()


@pytest.mark.parametrize("content", ["", "task,draw\n", "\x00\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, measured: list[Batch], content: str) -> None:
    stored.robustness_results("laptop", tmp_path, measure=True)
    path = tmp_path / "laptop" / "robustness" / "scenes.csv"
    path.write_text(content)
    with pytest.raises(PrefVLMError, match=r"scenes.csv is damaged; restore it, or remove it to measure again"):
        stored.robustness_results("laptop", tmp_path, measure=False)
    path.write_text(",".join((*COLUMNS, "vlm_fingerprint")) + "\na,b,c,d,e,f,g,h\n")
    with pytest.raises(PrefVLMError, match="is damaged"):
        stored.robustness_results("laptop", tmp_path, measure=False)
