"""Maps of thresholds: every cell holds the numbers of its setting."""

import numpy as np
import pytest
from builders.evaluations import TASKS, evaluated, thresholds
from builders.figures import footer

from prefvlm_core.analysis.paired import planned_differences
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.thresholds import gain_map, kept_labels_map


def test_every_setting_has_a_cell_with_its_difference_from_adaptive_thresholds() -> None:
    gaps = planned_differences(thresholds(seeds=5, tasks=TASKS))
    figure = gain_map(gaps, "laptop")
    low, high = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["upper threshold 2.0", "upper threshold 6.9"]
    assert [label.get_text() for label in high.get_xticklabels()] == ["beta 0", "beta 1", "beta 3"]
    pooled = gaps[gaps["task"] == ALL_TASKS]
    for axes, upper in ((low, 2.0), (high, 6.9)):
        written = {text.get_position(): text for text in axes.texts}
        assert len(written) == 6
        for row, alpha in enumerate((0.25, 0.5)):
            for column, beta in enumerate((0.0, 1.0, 3.0)):
                chosen = (pooled["alpha"] == alpha) & (pooled["beta"] == beta) & (pooled["upper"] == upper)
                mean, *bounds = 100 * pooled.loc[chosen, ["mean", "low", "high"]].to_numpy()[0]
                # Words are of numbers rounded as stored tables are, so that half a point goes the same way.
                said, low_said, high_said = (round(number, 2) for number in (mean, *bounds))
                expected = f"{said:+z.0f}\n({low_said:+.0f} to {high_said:+.0f})".replace("-", "−")
                assert written[column, row].get_text() == expected
                decided = bounds[0] > 0 or bounds[1] < 0
                assert (written[column, row].get_weight() == "bold") == decided
                assert axes.images[0].get_array()[row, column] == pytest.approx(mean if decided else 0.3 * mean)
        norm = axes.images[0].norm
        assert norm(0) == 0.5, "no difference is the middle of the colors"
    assert "difference from adaptive, in points" in footer(figure) and "10 pairs of runs" in footer(figure)


def test_kept_labels_are_those_at_the_end() -> None:
    data = thresholds(seeds=2)
    data.loc[data["step"] < 60_000, "clean_accuracy"] = 0.0
    cells = [text.get_text() for axes in kept_labels_map(data, "laptop").axes for text in axes.texts]
    assert set(cells) == {"65 % (60–70)\nkeeps 55 %\n100 human labels"} and len(cells) == 13


def test_runs_that_keep_no_label_count_in_what_is_kept_alone_and_all_texts_are_black() -> None:
    data = thresholds(seeds=2)
    data.loc[data["seed"] == 1, ["clean_accuracy", "clean_fraction"]] = (np.nan, 0.0)
    figure = kept_labels_map(data, "laptop")
    texts = [text for axes in figure.axes for text in axes.texts]
    assert {text.get_text() for text in texts} == {"60 %\nkeeps 25 %\n100 human labels"}
    assert {text.get_color() for text in texts} == {(0.0, 0.0, 0.0)}
    assert "2 seeds" in footer(figure) and "right in those runs alone whose filter keeps any" in footer(figure)


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['alpha', 'beta', 'upper'\]"):
        kept_labels_map(evaluated(TASKS), "quick")
    data = thresholds()
    with pytest.raises(PrefVLMError, match="No run has thresholds set by hand"):
        kept_labels_map(data[data["alpha"].isna()], "quick")
