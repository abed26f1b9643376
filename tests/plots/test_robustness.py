"""Figures of disturbed scenes: every picture in its place, every change where the table says."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from prefvlm_core.analysis.robustness import CLEAN_SCENE, FACTORS, READERS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.perturbations import STRENGTHS
from prefvlm_core.plots.robustness import READER_STYLES, changes_by_factor, contact_sheet


def test_the_contact_sheet_has_a_column_per_factor_and_a_row_per_strength():
    scenes = [(CLEAN_SCENE, ""), *itertools.product(FACTORS, STRENGTHS)]
    pictures = {scene: np.full((64, 64, 3), number, np.uint8) for number, scene in enumerate(scenes)}
    figure = contact_sheet(pictures, "button-press-v3")
    shown = {int(axes.images[0].get_array()[0, 0, 0]): axes for axes in figure.axes}
    assert sorted(shown) == list(range(31))
    columns, rows = (
        {number: round(getattr(axes.get_position(), side), 3) for number, axes in shown.items()}
        for side in ("x0", "y0")
    )
    for number, (factor, strength) in enumerate(scenes[1:], start=1):
        assert columns[number] == columns[1 + 3 * FACTORS.index(factor)] > columns[0]
        assert rows[number] == rows[1 + STRENGTHS.index(strength)]
    assert len(set(columns.values())) == 11 and rows[1] > rows[2] > rows[3]
    assert shown[scenes.index(("camera_angle", "mild"))].get_xlabel() == "1°"
    assert shown[scenes.index(("noise", "extreme"))].get_xlabel() == "80 of 255"


def table(strengths=("strong",)):
    """Changes that all differ."""
    scenes = [(CLEAN_SCENE, ""), *itertools.product(FACTORS, strengths)]
    rows = []
    for number, (scene, reader) in enumerate(itertools.product(scenes, READERS)):
        change = -number / 1000
        row = {"factor": scene[0], "strength": scene[1], "reader": reader, "draws": 2}
        for measure in ("accuracy", "value_order"):
            row |= {
                f"{measure}_change": change,
                f"{measure}_change_low": change - 0.1,
                f"{measure}_change_high": change + 0.1,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def test_marks_stand_at_the_changes_of_the_table():
    changes = table()
    figure = changes_by_factor(changes, "laptop", ["door-close-v3"])
    accuracy, order = figure.axes
    for axes, unit, measure in ((accuracy, 100, "accuracy"), (order, 1, "value_order")):
        for reader, (mark, color) in READER_STYLES.items():
            lines = [
                line for line in axes.lines if line.get_marker() == mark and to_rgb(line.get_color()) == to_rgb(color)
            ]
            drawn = sorted(line.get_xdata()[0] for line in lines if line.get_transform() == axes.transData)
            expected = changes.loc[changes["reader"] == reader, f"{measure}_change"]
            assert drawn == pytest.approx(sorted(unit * expected))
    assert [label.get_text() for label in accuracy.get_yticklabels()][:3] == ["clean", "light", "light angle"]
    assert len(changes_by_factor(table(STRENGTHS), "laptop", ["door-close-v3"]).axes) == 6


def test_a_table_without_changes_is_refused():
    with pytest.raises(PrefVLMError, match="change_table"):
        changes_by_factor(table().drop(columns="accuracy_change"), "laptop", ["door-close-v3"])
