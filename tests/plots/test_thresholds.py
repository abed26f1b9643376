"""Maps of thresholds: every cell holds the numbers of its setting."""

import pytest
from builders.evaluations import TASKS, evaluated, thresholds
from builders.figures import footer

from prefvlm_core.analysis.stats import run_table
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.thresholds import kept_labels_map, success_map


def test_every_setting_has_a_cell_with_its_mean_range_and_labels() -> None:
    runs = run_table(thresholds(seeds=2))
    figure = success_map(runs, "laptop")
    low, high, adaptive = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        *("upper threshold 2.0", "upper threshold 6.9", "adaptive thresholds"),
    ]
    assert [label.get_text() for label in high.get_xticklabels()] == ["beta 0", "beta 1", "beta 3"]
    for axes, upper in ((low, 2.0), (high, 6.9)):
        written = {text.get_position(): text.get_text() for text in axes.texts}
        assert len(written) == 6
        for row, alpha in enumerate((0.25, 0.5)):
            for column, beta in enumerate((0.0, 1.0, 3.0)):
                chosen = (runs["alpha"] == alpha) & (runs["beta"] == beta) & (runs["upper"] == upper)
                success = 100 * runs.loc[chosen, "success"]
                expected = f"{success.mean():.0f} % ({success.min():.0f}–{success.max():.0f})\n100 labels"
                assert written[column, row] == expected
                assert axes.images[0].get_array()[row, column] == pytest.approx(success.mean())
    (only,) = adaptive.texts
    assert only.get_text().startswith(f"{100 * runs.loc[runs['alpha'].isna(), 'success'].mean():.0f} % (")
    assert "2 seeds" in footer(figure)


def test_kept_labels_are_those_at_the_end() -> None:
    data = thresholds(seeds=2)
    data.loc[data["step"] < 60_000, "clean_accuracy"] = 0.0
    cells = [text.get_text() for axes in kept_labels_map(data, "laptop").axes for text in axes.texts]
    assert set(cells) == {"65 % (60–70)\n100 labels"} and len(cells) == 13


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['alpha', 'beta', 'upper'\]"):
        success_map(run_table(evaluated(TASKS)), "quick")
    runs = run_table(thresholds())
    with pytest.raises(PrefVLMError, match="No run has thresholds set by hand"):
        success_map(runs[runs["alpha"].isna()], "quick")
