"""The style of figures: colors can be told apart and read, names at line ends keep apart, files are deterministic."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from builders.evaluations import evaluated
from builders.figures import color_blind_lab, contrast_by_hand
from matplotlib.colors import to_rgb

from prefvlm_core.plots import curves, layout, rows
from prefvlm_core.plots import style as plot_style

FIGURE_GROUPS = {
    "main": ["sac", "pebble", "prefvlm", "prefvlm-adaptive", "prefvlm-plus", "vlm-preference", "vlm-reward"],
    "ablations": [
        *("prefvlm", "pebble", "vlm-preference", "prefvlm-no-filter", "prefvlm-random-selection"),
        *("prefvlm-no-adaptation", "prefvlm-no-inverse-dynamics"),
    ],
    "baselines": ["sac", "prefvlm", "prefvlm-plus", "pebble", "surf", "rune", "mrn", "rime", "rlvlmf"],
}


@pytest.mark.parametrize("group", FIGURE_GROUPS)
def test_colors_of_one_figure_stay_apart_for_color_blind_readers(group: str) -> None:
    for one, other in itertools.combinations(FIGURE_GROUPS[group], 2):
        views = zip(
            color_blind_lab(plot_style.METHOD_COLORS[one]),
            color_blind_lab(plot_style.METHOD_COLORS[other]),
            strict=True,
        )
        assert min(np.linalg.norm(a - b) for a, b in views) > 15, (one, other)


def test_every_method_has_one_color_and_unknown_ones_a_stable_one() -> None:
    assert {name for group in FIGURE_GROUPS.values() for name in group} == set(plot_style.METHOD_COLORS)
    assert len(set(plot_style.METHOD_COLORS.values()) | set(plot_style.FURTHER_COLORS)) == 16 + 6
    assert plot_style.method_color("pebble") == "#D55E00"
    assert [plot_style.method_color(name) for name in ("mine", "yours")] == ["#999933", "#CC6677"]


def test_curve_order_and_styles() -> None:
    pairs = [("mine", "mine"), ("pebble", "pebble (1200)"), ("sac", "sac"), ("pebble", "pebble (400)")]
    styles = plot_style.curve_styles(pd.DataFrame(pairs, columns=["method", "arm"]))
    assert list(styles) == ["sac", "pebble (400)", "pebble (1200)", "mine"]
    assert styles["pebble (400)"] == (to_rgb("#D55E00"), "solid")
    lighter, dashes = styles["pebble (1200)"]
    assert dashes == (0, (4, 1.2))
    np.testing.assert_allclose(lighter, 0.82 * np.array(to_rgb("#D55E00")) + 0.18)


def test_spread_by_hand() -> None:
    np.testing.assert_allclose(layout.spread([0.5, 0.5], [0.2, 0.2], 0, 1), [0.4, 0.6])
    np.testing.assert_allclose(layout.spread([1.0, 0.9], [0.2, 0.2], 0, 1), [0.9, 0.7])
    np.testing.assert_allclose(layout.spread([0.9, 0.1, 0.5], [0.1, 0.1, 0.1], 0, 1), [0.9, 0.1, 0.5])
    np.testing.assert_allclose(layout.spread([0.5, 0.6], [0.4, 0.2], 0, 1), [0.4, 0.7])
    np.testing.assert_allclose(layout.spread([0.3, 0.2], [1.0, 1.0], 0, 1), [1.5, 0.5])  # no room for both


def test_spread_never_overlaps_and_moves_as_little_as_it_can() -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        wanted, heights = generator.random(6), generator.uniform(0.02, 0.16, 6)
        centers = layout.spread(wanted, heights, 0, 1)
        order = np.argsort(wanted)
        low, high = (centers - heights / 2)[order], (centers + heights / 2)[order]
        assert low[0] >= -1e-9 and high[-1] <= 1 + 1e-9
        assert (low[1:] >= high[:-1] - 1e-9).all()
        # Any other layout in the same order, drawn at random, is further from what was wanted.
        free = np.sort(generator.uniform(0, 1 - heights.sum(), (500, 6)), axis=1)
        others = free + np.cumsum(heights[order]) - heights[order] / 2
        assert ((others - wanted[order]) ** 2).sum(axis=1).min() >= ((centers - wanted) ** 2).sum() - 1e-9


def test_text_in_a_methods_color_can_be_read() -> None:
    assert plot_style.contrast((0, 0, 0)) == pytest.approx(21) and plot_style.contrast((1, 1, 1)) == pytest.approx(1)
    colors = [*plot_style.METHOD_COLORS.values(), *plot_style.FURTHER_COLORS, *plot_style.PARTITION_COLORS.values()]
    colors += [mark.color for mark in rows.ACCURACIES.values()] + [plot_style.REFERENCE_COLOR, "#FFFFFF"]
    for color in colors:
        text = plot_style.text_color(color)
        ratio = contrast_by_hand(text, (1, 1, 1))
        assert 4.5 <= plot_style.contrast(text) == pytest.approx(ratio, rel=1e-3)
        assert np.argsort(text, kind="stable").tolist() == np.argsort(to_rgb(color), kind="stable").tolist()


def test_partition_colors_stay_apart_for_color_blind_readers() -> None:
    colors = {mark.color for mark in rows.ACCURACIES.values()}
    assert set(plot_style.PARTITION_COLORS.values()) < colors and len(colors) == 5
    for one, other in itertools.combinations(sorted(colors), 2):
        views = zip(color_blind_lab(one), color_blind_lab(other), strict=True)
        assert min(np.linalg.norm(a - b) for a, b in views) > 15, (one, other)


def test_the_arm_named_as_its_method_comes_first() -> None:
    pairs = [("prefvlm", "held-out TinyLIV"), ("prefvlm", "prefvlm"), ("prefvlm", "random VLM")]
    styles = plot_style.curve_styles(pd.DataFrame(pairs, columns=["method", "arm"]))
    assert list(styles) == ["prefvlm", "held-out TinyLIV", "random VLM"]
    assert styles["prefvlm"].dashes == "solid"
    with_budgets = [("prefvlm", "VLM 80 % right (1×B)"), ("prefvlm", "prefvlm (1×B)")]
    styles = plot_style.curve_styles(pd.DataFrame(with_budgets, columns=["method", "arm"]))
    assert list(styles) == ["prefvlm (1×B)", "VLM 80 % right (1×B)"] and styles["prefvlm (1×B)"].dashes == "solid"


def test_figures_leave_no_trace_in_matplotlib() -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        figure = curves.learning_curves(evaluated())
        assert figure.axes[0].title.get_fontsize() == 7
        assert mpl.colors.same_color(figure.axes[0].get_facecolor(), "white")
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_saved_files_are_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    data = evaluated(seeds=2)
    data.to_json(tmp_path / "data.json", orient="records")
    program = (
        "import sys, pandas; from prefvlm_core.plots import style as plot_style, curves; folder = sys.argv[1];"
        "plot_style.save(curves.learning_curves(pandas.read_json(folder + '/data.json')), 'curves', folder + '/other')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment, timeout=120)
    paths = plot_style.save(curves.learning_curves(data), "curves", tmp_path / "made" / "here")
    assert [path.name for path in paths] == ["curves.png", "curves.pdf"]
    for path in paths:
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
    assert paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes().startswith(b"%PDF")
