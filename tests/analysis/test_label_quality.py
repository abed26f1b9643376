"""How good labels are: error rates and sentences equal numbers worked out by hand, in awkward data too."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from builders.evaluations import FILTERS, evaluated
from builders.evaluations import label_log as labels

from prefvlm_core.analysis import label_quality as label_stats
from prefvlm_core.common.errors import PrefVLMError

BY_HAND = [
    *[("a", 1.0, 1.0, 0.1, "clean")] * 3,
    *[("a", 0.0, 1.0, 0.2, "clean")] * 1,
    *[("b", 0.0, 0.0, 0.3, "clean")] * 4,
    *[("a", 1.0, 0.0, 4.0, "flipped")] * 2,  # wrong, so right after the flip
    *[("b", 0.0, 0.0, 5.0, "flipped")] * 1,
    *[("b", 1.0, 0.0, 1.0, "uncertain")] * 3,
    *[("b", 1.0, 1.0, 2.0, "uncertain")] * 2,
    *[("a", 1.0, 0.5, 0.1, "clean")] * 5,  # a tie: nobody can be right
    *[("a", 1.0, 0.0, math.nan, "")] * 7,
]


def test_error_rates_by_hand() -> None:
    (row,) = label_stats.error_rates(labels(BY_HAND)).to_dict("records")
    assert (row["method"], row["arm"], row["labels"]) == ("prefvlm", "prefvlm", 16)
    assert row["error"] == pytest.approx(6 / 16)
    assert [row[f"{name}_labels"] for name in ("clean", "flipped", "uncertain")] == [8, 3, 5]
    assert [row[f"{name}_error"] for name in ("clean", "flipped", "uncertain")] == pytest.approx([1 / 8, 1 / 3, 3 / 5])
    assert row["clean_ratio"] == pytest.approx((1 / 8) / (6 / 16))
    # Resamples of two runs: a twice (ratio 1/4 over 3/6), b twice (no clean error), or both as they are.
    assert (row["clean_ratio_low"], row["clean_ratio_high"]) == pytest.approx((0, 0.5))


def test_ties_that_the_vlm_says_count_as_half_wrong() -> None:
    (row,) = label_stats.error_rates(labels([("a", 0.5, 1.0, 1.0, "clean"), ("a", 1.0, 1.0, 1.0, "clean")])).to_dict(
        "records"
    )
    assert row["error"] == row["clean_error"] == 0.25 and row["clean_ratio"] == 1


def test_ratio_interval_resamples_runs_within_tasks() -> None:
    generator = np.random.default_rng(4)
    rows = []
    for run, wrong in enumerate([0.1, 0.3, 0.2, 0.4]):
        for partition, rate in (("clean", wrong), ("uncertain", 0.5)):
            truth = generator.integers(0, 2, 200).astype(float)
            said = np.where(generator.random(200) < rate, 1 - truth, truth)
            rows += [(str(run), label, true, 1.0, partition) for label, true in zip(said, truth, strict=True)]
    table = labels(rows)
    table["task"] = np.where(table["run_id"].isin(["0", "1"]), "door-close-v3", "button-press-v3")
    (row,) = label_stats.error_rates(table).to_dict("records")
    table["wrong"] = table["label"] != table["truth"]
    per_run = {run: of_run for run, of_run in table.groupby("run_id")}
    ratios, chosen = [], [("0", "1"), ("2", "3")]
    for draws in itertools.product(*(pair for pair in chosen for _ in pair)):
        sample = pd.concat([per_run[run] for run in draws])
        ratios.append(sample[sample["partition"] == "clean"]["wrong"].mean() / sample["wrong"].mean())
    assert len(ratios) == 16  # all resamples are equally likely
    assert row["clean_ratio_low"] == pytest.approx(min(ratios))  # each of the two ends has probability 1 / 16
    assert row["clean_ratio_high"] == pytest.approx(max(ratios))


def test_rates_that_cannot_be_told_are_nan() -> None:
    none_wrong = label_stats.error_rates(labels([("a", 1.0, 1.0, 0.1, "clean"), ("b", 0.0, 0.0, 0.9, "uncertain")]))
    none_clean = label_stats.error_rates(labels([("a", 1.0, 0.0, 1.0, "uncertain"), ("b", 1.0, 0.0, 1.0, "uncertain")]))
    for rates in (none_wrong, none_clean):
        assert rates[["flipped_error", "clean_ratio", "clean_ratio_low"]].isna().all(axis=None)
        assert "cannot be compared" in label_stats.error_rates_in_words(rates)
        assert "flipped: no label" in label_stats.error_rates_in_words(rates)
    one = label_stats.error_rates(labels([row for row in BY_HAND if row[0] == "a"]))
    assert one["clean_ratio"].notna().all() and one["clean_ratio_low"].isna().all()


def test_error_correlations_by_hand() -> None:
    both, vlm, ensemble = (
        ("a", 0.0, 1.0, 0.1, "clean"),
        ("a", 0.0, 1.0, 2.0, "uncertain"),
        ("b", 0.0, 0.0, 2.0, "flipped"),
    )
    rows = [both] * 2 + [vlm, ensemble] + [("b", 1.0, 1.0, 0.1, "clean")] * 4
    ties = [("a", 0.5, 1.0, 0.1, "clean"), ("a", 1.0, 0.5, 0.1, "clean")]
    assert label_stats.error_correlations(labels(rows + ties)).to_dict() == {
        "prefvlm": pytest.approx((2 * 4 - 1 * 1) / (3 * 5))  # phi of the table with 2, 1, 1 and 4 pairs
    }
    assert label_stats.error_correlations(labels(rows[-4:])).isna().all()


def test_who_is_right_by_hand() -> None:
    """A divergence above ln 2 means that the ensemble gives the VLM's label less than 1/2."""
    table = label_stats.judges(labels([*BY_HAND, ("a", 0.5, 1.0, 0.1, "clean")])).set_index(["task", "partition"])
    everything = table.loc[("all tasks", "all")]
    assert (everything["labels"], everything["share"], everything["vlm"]) == (16, 1, pytest.approx(10 / 16))
    assert everything["ensemble"] == pytest.approx((7 + 2 + 3) / 16), "of the clean, the flipped and the uncertain"
    assert everything["agree"] == pytest.approx(8 / 16)
    uncertain = table.loc[("door-close-v3", "uncertain")]
    assert (uncertain["share"], uncertain["vlm"], uncertain["ensemble"], uncertain["agree"]) == pytest.approx(
        (5 / 16, 2 / 5, 3 / 5, 0)
    )
    assert len(table) == 2 * 4


def test_error_rates_in_words() -> None:
    assert label_stats.error_rates_in_words(label_stats.error_rates(labels(BY_HAND))) == (
        "- **prefvlm**: the VLM is wrong in 38 % of 16 labels; clean: 12 % of 8 labels; "
        "flipped: 33 % of 3 labels after the flip; uncertain: 60 % of 5 labels. Clean labels are wrong 0.33 times "
        "(0.00 to 0.50) as often as all: the filter earns its place (at most 0.5)."
    )
    useless = labels([("a", 1.0, 1.0, 1.0, name) for name in label_stats.PARTITIONS] * 3 + BY_HAND[3:4] * 2)
    assert "Clean labels are wrong 2.20 times (no interval) as often as all: the filter does not earn its place" in (
        label_stats.error_rates_in_words(label_stats.error_rates(useless))
    )
    kept = labels([row for row in BY_HAND if row[-1] == "clean"])
    assert label_stats.error_rates_in_words(label_stats.error_rates(kept)).endswith(
        "uncertain: no label. Every label is kept: there is no filter to judge."
    )


def test_accuracies_at_the_end_are_those_of_the_last_evaluation_and_of_enough_flipped_labels() -> None:
    data = evaluated(arms=FILTERS[:1], seeds=2)
    data["adapted_vlm_accuracy"] = data["step"] / 100_000
    # 240 labels at the end, of which a sixth (0.1 of 0.5 + 0.1) and a seventh are flipped.
    columns = ["adapted_vlm_accuracy", "flipped_accuracy"]
    table = label_stats.accuracies_at_end(data, columns).set_index(["task", "seed", "mark"])["value"]
    assert table.xs("adapted_vlm_accuracy", level="mark").to_list() == [0.6] * 4
    assert table.xs("flipped_accuracy", level="mark").to_dict() == {(task, 0): 0.4 for task in set(data["task"])}
    few = data.assign(vlm_labels=data["vlm_labels"].where(data["task"] == "door-close-v3", 60))
    left = label_stats.accuracies_at_end(few, columns)  # 60 / 6 + 60 / 7 = 18.6 labels
    assert set(left.loc[left["mark"] == "flipped_accuracy", "task"]) == {"door-close-v3"}
    assert (label_stats.accuracies_at_end(data, ["other"])).empty


def test_wrong_tables_are_named() -> None:
    with pytest.raises(PrefVLMError, match=r"The label log lacks the columns \['divergence'\]"):
        label_stats.error_rates(labels(BY_HAND).drop(columns="divergence"))
