"""The figure of bodies in motion: every mark where the table says."""

import itertools

import pandas as pd
import pytest
from builders.figures import check_rules, footer
from matplotlib.colors import to_rgb

from prefvlm_core.analysis.motion import COLUMNS, KINDS, SHOWN, accuracy_table
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.motion import READER_MARKS, labels_of_motion


def table(seeds: int) -> pd.DataFrame:
    """Accuracies that all differ."""
    every = itertools.product(("walker-walk", "cheetah-run"), range(seeds), SHOWN, KINDS, range(2))
    return accuracy_table(
        pd.DataFrame(
            [(*which, 0.4 + 0.001 * number, 0.6 + 0.001 * number) for number, which in enumerate(every)],
            columns=COLUMNS,
        )
    )


@pytest.mark.parametrize("seeds", [2, 5])
def test_marks_stand_at_the_accuracies_of_the_table(seeds: int) -> None:
    accuracies = table(seeds)
    figure = labels_of_motion(accuracies, "laptop")
    check_rules(figure)
    for axes in figure.axes:
        rows = accuracies[accuracies["task"] == axes.get_title()]
        for reader, (_, color, mark) in READER_MARKS.items():
            lines = [
                line for line in axes.lines if line.get_marker() == mark and to_rgb(line.get_color()) == to_rgb(color)
            ]
            drawn = [line.get_xdata()[0] for line in sorted(lines, key=lambda line: line.get_ydata()[0])]
            expected = [
                rows[(rows["pairs"] == kind) & (rows["shows"] == shows)][reader].item()
                for kind in KINDS
                for shows in SHOWN
            ]
            assert drawn == pytest.approx([100 * value for value in expected])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["frames, all pairs", "differences, all pairs", "frames, late pairs", "differences, late pairs"]
    assert ("too few runs for an interval" in footer(figure)) == (seeds < 5)


def test_a_table_without_accuracies_is_refused() -> None:
    with pytest.raises(PrefVLMError, match=r"motion\.accuracy_table"):
        labels_of_motion(table(2).drop(columns="adapted"), "laptop")
