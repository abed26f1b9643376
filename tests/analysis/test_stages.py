"""Results by stages and by segment length, against numbers made by hand."""

import numpy as np
import pandas as pd
import pytest
from builders.evaluations import evaluated, label_log

from prefvlm_core.analysis.paired import planned_differences
from prefvlm_core.analysis.stages import (
    by_segment_length,
    differences_by_stages_in_words,
    label_shares,
    labels_by_stages_in_words,
    with_stages,
)
from prefvlm_core.common.errors import PrefVLMError

TWO, FOUR = "maze-two-goals", "maze-four-goals"


def log() -> pd.DataFrame:
    """Of ten labels with two goals 9 are right, with four 6; the filter keeps 5, of which all and 3 are right."""
    parts = []
    for task, wrong, clean_wrong in ((TWO, 1, 0), (FOUR, 4, 2)):
        clean = [(task, float(index >= clean_wrong), 1.0, 0.1, "clean") for index in range(5)]
        others = [(task, float(index >= wrong - clean_wrong), 1.0, 1.0, "uncertain") for index in range(4)]
        parts.append(label_log([*clean, *others, (task, 1.0, 1.0, 9.0, "flipped")], task=task))
    return pd.concat(parts).assign(segment_length=10, seed=0)


def test_only_tasks_of_the_series_have_a_number_of_stages() -> None:
    table = with_stages(pd.DataFrame({"task": [FOUR, "door-close-v3", "maze-one-goal"]}))
    assert table["stages"].tolist() == [4, 1] and table["stages"].dtype == int


def test_shares_of_labels_by_hand() -> None:
    shares = label_shares(log()).set_index("task")
    assert shares["right"].to_dict() == {TWO: pytest.approx(0.9), FOUR: pytest.approx(0.6)}
    assert shares["clean_right"].to_dict() == {TWO: 1.0, FOUR: pytest.approx(0.6)}
    np.testing.assert_allclose(shares[["clean", "uncertain", "flipped"]], [[0.5, 0.4, 0.1]] * 2)
    said = labels_by_stages_in_words(with_stages(label_shares(log())))
    assert said == (
        "- **the VLM's labels**: with 2 and 4 stages, 90 and 60 % are right; the filter keeps 50 and 50 %, of which "
        "100 and 60 % are right."
    )


def test_differences_by_stages_in_words() -> None:
    arms = [("pebble", "pebble", 16), ("prefvlm", "prefvlm", 16)]
    data = evaluated((FOUR, TWO), arms, 6).assign(against="pebble")
    data["success"] = np.where(data["arm"] == "pebble", 0.5, np.where(data["task"] == TWO, 0.75, 0.25))
    said = differences_by_stages_in_words(with_stages(planned_differences(data)))
    assert said == ("- **prefvlm** against *pebble*: +25 (+25 to +25), −25 (−25 to −25) points with 2 and 4 stages.")


def test_arms_with_segments_of_other_lengths_are_set_beside_their_own() -> None:
    arms = [("prefvlm", "prefvlm", 16), ("prefvlm", "prefvlm, half", 16), ("pebble", "pebble", 16)]
    data = evaluated((TWO, FOUR), arms, 2)
    half = data["arm"] == "prefvlm, half"
    data = data.assign(
        group=np.where(half, "segments", ""),
        against=np.where(half, "prefvlm", ""),
        segment_length=np.where(half, 5, 10),
        success=np.where(half, 0.2, 0.4),
    )
    data = data[(data["task"] == TWO) | ~half]  # with four goals there is nothing to compare
    labels = log().assign(run_id=f"{TWO}/prefvlm/0", task=TWO)
    rows = by_segment_length(data, labels)
    scores = rows[rows["measure"] == "success"].groupby("segment_length")["value"].agg(["mean", "size"])
    assert scores.loc[5].tolist() == pytest.approx([0.2, 2]) and scores.loc[10].tolist() == pytest.approx([0.4, 2])
    (right,) = rows[rows["measure"] == "labels right"].to_dict("records")
    assert (right["task"], right["segment_length"], right["value"]) == (TWO, 10, pytest.approx(0.75))
    assert set(rows["method"]) == {"prefvlm"} and set(rows["task"]) == {TWO}
    assert by_segment_length(data[data["group"] == ""], labels).empty
    with pytest.raises(PrefVLMError, match="segment_length"):
        by_segment_length(data.drop(columns="segment_length"), labels)
