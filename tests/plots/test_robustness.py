"""Figures of disturbed scenes: every picture in its place, every change where the table says."""

import itertools

import numpy as np
import pandas as pd
import pytest
from builders.figures import footer
from matplotlib.colors import to_rgb

from prefvlm_core.analysis.robustness import CLEAN_SCENE, FACTORS, READERS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.perturbations import STRENGTHS
from prefvlm_core.plots.robustness import READER_MARKS, changes_by_factor, contact_sheet


def test_the_contact_sheet_has_the_clean_scene_and_every_factor_at_a_strength():
    scenes = [(CLEAN_SCENE, ""), *itertools.product(FACTORS, STRENGTHS)]
    pictures = {scene: np.full((64, 64, 3), number, np.uint8) for number, scene in enumerate(scenes)}
    for strength, about in (("mild", ("camera_angle", "1°")), ("extreme", ("noise", "80 of 255"))):
        figure = contact_sheet(pictures, "button-press-v3", strength)
        shown = {int(axes.images[0].get_array()[0, 0, 0]): axes for axes in figure.axes}
        assert sorted(shown) == [0, *(scenes.index((factor, strength)) for factor in FACTORS)]
        assert len({round(axes.get_position().x0, 3) for axes in shown.values()}) == 4
        assert shown[scenes.index((about[0], strength))].get_xlabel() == about[1]
        assert shown[0].get_title() == "clean"


def table(strengths=("strong",), draws=4):
    """Changes that all differ."""
    scenes = [(CLEAN_SCENE, ""), *itertools.product(FACTORS, strengths)]
    rows = []
    for number, (scene, reader) in enumerate(itertools.product(scenes, READERS)):
        change = -number / 1000
        row = {"factor": scene[0], "strength": scene[1], "reader": reader, "draws": draws}
        for measure in ("accuracy", "value_order"):
            row |= {
                f"{measure}_change": change,
                f"{measure}_change_low": change - 0.1,
                f"{measure}_change_high": change + 0.1,
                f"{measure}_change_each": np.linspace(change - 0.05, change + 0.05, draws).tolist(),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def test_marks_stand_at_the_changes_of_the_table():
    changes = table()
    figure = changes_by_factor(changes, "laptop", ["door-close-v3"], "strong")
    accuracy, order = figure.axes
    for axes, unit, measure in ((accuracy, 100, "accuracy"), (order, 1, "value_order")):
        for reader, (_, color, mark) in READER_MARKS.items():
            lines = [
                line for line in axes.lines if line.get_marker() == mark and to_rgb(line.get_color()) == to_rgb(color)
            ]
            drawn = sorted(line.get_xdata()[0] for line in lines if line.get_transform() == axes.transData)
            expected = changes.loc[changes["reader"] == reader, f"{measure}_change"]
            assert drawn == pytest.approx(sorted(unit * expected))
    names = [label.get_text() for label in accuracy.get_yticklabels()]  # the later the factor the larger the change
    assert names == ["clean", *(factor.replace("_", " ") for factor in FACTORS)]
    worse = table(STRENGTHS)
    costly = (worse["factor"] == "light") & (worse["strength"] == "mild") & (worse["reader"] == READERS[0])
    worse.loc[costly, "accuracy_change"] = -1
    (accuracy, _) = changes_by_factor(worse, "laptop", ["door-close-v3"], "mild").axes
    assert accuracy.get_yticklabels()[-1].get_text() == "light"


def test_few_draws_are_dots_without_bars():
    changes = table(draws=3)
    for axes, unit in zip(changes_by_factor(changes, "quick", ["door-close-v3"], "strong").axes, (100, 1), strict=True):
        bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2.0]
        assert np.isnan(bars).all()
        dots = np.concatenate([line.get_xdata() for line in axes.lines if line.get_markersize() == 2.4])
        assert dots == pytest.approx(unit * np.concatenate(changes["accuracy_change_each"].to_list()))
    for draws, said in ((3, "dots: draws"), (4, "bar: 95 % Student t interval over draws")):
        figure = changes_by_factor(table(draws=draws), "quick", ["door-close-v3"], "strong")
        assert said in footer(figure)


def test_a_table_without_changes_is_refused():
    with pytest.raises(PrefVLMError, match="change_table"):
        changes_by_factor(table().drop(columns="accuracy_change"), "laptop", ["door-close-v3"], "strong")
