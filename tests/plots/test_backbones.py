"""Figures and words about models as labelers: what is drawn and said is what the tables hold."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from builders.backbones import TASKS, judged
from builders.figures import check_text, footer

from prefvlm_core.analysis import backbone_tables
from prefvlm_core.analysis.beds import MIXED
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots import backbones

RESULTS = judged()
REPLAYS, MIXED_BEDS = (backbone_tables.label_table(RESULTS.labels, *kind) for kind in ((), (MIXED,)))
FILMS = backbone_tables.film_table(RESULTS.films)
GAPS = pd.DataFrame(
    [
        ("prefvlm, VLM 70 % right", 0.7, 0.7, "simulated:0.7", 0.2, 0.1, 0.3),
        ("prefvlm, VLM 100 % right", 1.0, 1.0, "simulated:1", 0.5, 0.4, 0.6),
        ("TinyLIV", np.nan, 0.76, "tinyliv", -0.1, -0.2, 0.0),
    ],
    columns=["arm", "simulated_accuracy", "accuracy", "vlm", "mean", "low", "high"],
).assign(task=ALL_TASKS, method="prefvlm", pairs=10)


def of(table: pd.DataFrame, model: str, reader: str, labels: int, task: str = ALL_TASKS) -> pd.Series:
    return table.set_index(["model", "reader", "labels", "task"]).loc[(model, reader, labels, task)]


def marks(axes, marker: str) -> list[float]:
    return [
        float(line.get_xdata()[0])
        for line in axes.lines
        if line.get_marker() == marker and line.get_markersize() == 3.6
    ]


def test_the_table_holds_means_over_beds_and_t_intervals() -> None:
    labels = RESULTS.labels
    rows = labels[(labels["kind"] == "replay") & (labels["model"] == "tinyliv") & (labels["reader"] == "zero-shot")]
    row = of(REPLAYS, "tinyliv", "zero-shot", 0)
    values = rows["all"].to_numpy().reshape(4, 2)  # tasks x learners
    error = np.sqrt((values.var(axis=1, ddof=1) / 2).sum()) / 4
    assert row["all"] == pytest.approx(values.mean())
    assert row["all_high"] == pytest.approx(min(1, values.mean() + scipy.stats.t.ppf(0.975, 4) * error))
    assert row["draws"] == 8 and np.isnan(of(REPLAYS, "tinyliv", "zero-shot", 0, TASKS[0])["all_low"])
    assert np.isfinite(of(MIXED_BEDS, "tinyliv", "zero-shot", 0, TASKS[0])["all_low"])  # three beds


def test_every_model_is_shown_before_and_after_labels_the_best_first() -> None:
    figure = backbones.accuracy_by_model(REPLAYS, "laptop")
    assert "Student t interval over each task's two replays, not over tasks" in footer(figure)
    (axes,) = figure.axes
    models = ["tinyliv", "tinyliv-heldout", "tinyliv-indomain", "random"]
    taught = {model: 100 * of(REPLAYS, model, "adapters", 50)["all"] for model in models}
    taught["state"] = 100 * of(REPLAYS, "state", "ridge", 50)["all"]
    order = sorted(taught, key=lambda model: -taught[model])
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        backbones.TITLES.get(name, name) for name in order
    ]
    assert dict(zip(order, marks(axes, "D"), strict=True)) == pytest.approx(taught)
    frozen = [100 * of(REPLAYS, model, "zero-shot", 0)["all"] for model in order if model != "state"]
    large = [line for line in axes.lines if line.get_markersize() == 3.6 and line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in large] == pytest.approx(frozen)
    dots = [line for line in axes.lines if line.get_markersize() == 2.4]
    by_task = [100 * of(REPLAYS, order[0], *TAUGHT_BY[order[0] == "state"], task)["all"] for task in TASKS]
    (of_best,) = [line for line in dots if len(line.get_xdata()) and abs(np.mean(line.get_ydata()) - 0.22) < 0.01]
    assert of_best.get_xdata() == pytest.approx(by_task)
    check_text(figure)


TAUGHT_BY = (("adapters", 50), ("ridge", 50))


def test_a_panel_per_kind_of_pairs() -> None:
    figure = backbones.accuracy_by_kind(REPLAYS, "laptop")
    near = next(axes for axes in figure.axes if axes.get_title() == "near the goal")
    models = ["tinyliv", "tinyliv-heldout", "tinyliv-indomain", "random"]
    frozen = [100 * of(REPLAYS, model, "zero-shot", 0)["near_goal"] for model in models]
    assert sorted(marks(near, "o")) == pytest.approx(sorted(frozen))
    check_text(figure)


def test_orders_of_values_are_drawn() -> None:
    figure = backbones.orders(FILMS, MIXED_BEDS, "laptop")
    films, episodes = figure.axes
    ordered = FILMS.sort_values("value_order", ascending=False)
    assert marks(films, "o") == pytest.approx(ordered["value_order"].tolist())
    by_film = RESULTS.films[RESULTS.films["model"] == ordered["model"].iloc[0]].groupby("task")["value_order"].mean()
    assert marks(films, "o")[0] == pytest.approx(by_film.mean())
    best = of(MIXED_BEDS, ordered["model"].iloc[0], "zero-shot", 0)["episode_order"]
    assert marks(episodes, "o")[0] == pytest.approx(best)
    assert "24 films" in footer(figure)
    check_text(figure)


def test_what_accuracy_is_worth_is_drawn_as_a_gain_over_no_vlm() -> None:
    figure = backbones.worth_of_accuracy(GAPS, "laptop")
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim()
    (points,) = [line for line in above.lines if line.get_marker() == "o"]
    (curve,) = [line for line in above.lines if line.get_alpha() == 0.35]
    for line in (points, curve):
        np.testing.assert_allclose(line.get_xydata(), [[70, 20], [100, 50]])
    (diamond,) = [line for line in above.lines if line.get_marker() == "D"]
    assert diamond.get_xydata()[0] == pytest.approx((76, -10)) and marks(below, "D") == pytest.approx([76])
    bars = np.concatenate([segment for bars in above.collections for segment in bars.get_segments()])
    assert sorted(bars[:, 1].round()) == [-20, 0, 10, 30, 40, 60]
    assert [label.get_text() for label in below.get_yticklabels()] == ["TinyLIV"]
    check_text(figure)


def test_accuracy_between_two_simulated_ones_is_worth_what_lies_between() -> None:
    third = backbone_tables.gain_at(GAPS, 0.8)  # a third of the way from 20 to 50 points
    assert third == pytest.approx({"mean": 0.3, "low": 0.2, "high": 0.4})
    assert backbone_tables.gain_at(GAPS, 0.6)["mean"] == pytest.approx(0.2)  # nothing is known below


def test_real_arms_have_the_accuracy_of_their_labels_and_simulated_ones_the_given_one() -> None:
    gaps = pd.DataFrame(
        [
            (arm, task, right)
            for arm, right in (("TinyLIV", np.nan), ("70", 0.7), ("mute", np.nan))
            for task in (ALL_TASKS, "a")
        ],
        columns=["arm", "task", "simulated_accuracy"],
    )
    log = pd.DataFrame(
        # one label in four is wrong on one task, two in four on the other, where there are twice as many
        [
            ("TinyLIV", task, float(label))
            for task, wrong, times in (("a", 1, 1), ("b", 2, 2))
            for label in ([1] * (4 - wrong) + [0] * wrong) * times
        ],
        columns=["arm", "task", "label"],
    ).assign(truth=1.0, teacher="vlm", partition="clean", divergence=0.1, profile="quick", method="", seed=0, run_id="")
    found = backbone_tables.gaps_by_accuracy(gaps, log)
    assert found.set_index("arm")["accuracy"].to_dict() == pytest.approx({"TinyLIV": 0.625, "70": 0.7})


def test_words_name_the_best_models_and_those_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*RESULTS.models["model"], "new", "open_clip:"]
    monkeypatch.setattr(backbone_tables, "VLMS", dict.fromkeys(names))
    assert backbone_tables.missing_in_words(RESULTS.models).splitlines() == [
        "- Judged: `tinyliv`, `tinyliv-heldout`, `tinyliv-indomain`, `random`.",
        "- Not judged yet: `new`.",
        "- Missing: `liv`. It needs open_clip, which is not installed.",
    ]
    table = REPLAYS.copy()
    frozen = (table["task"] == ALL_TASKS) & (table["reader"] == "zero-shot")
    table.loc[frozen & (table["model"] == "random"), "all"] = 0.99  # an untrained network is no model to recommend
    best = frozen & (table["model"] == "tinyliv-heldout")
    numbers = {"all": 0.95, "all_low": 0.9, "all_high": 1.0}
    numbers |= {"near_goal": 0.52, "near_goal_low": 0.47, "near_goal_high": 0.57}
    table.loc[best, list(numbers)] = list(numbers.values())
    said = backbone_tables.answer_in_words(table, GAPS)
    assert "the best model at hand, `tinyliv-heldout`, labels 95 (90–100) % of the pairs right zero-shot and 52" in said
    assert "(47–57) % of those near the goal, which is not told from chance." in said
    assert re.search(r"errs on its own, ends \+\d+ \(\+\d+ to \+\d+\) points from no VLM: above\.$", said)


def test_the_overview_has_a_row_per_model_and_one_for_the_state() -> None:
    shown = backbone_tables.backbone_overview(RESULTS.models, REPLAYS, FILMS, MIXED_BEDS)
    assert list(shown.index) == ["tinyliv", "tinyliv-heldout", "tinyliv-indomain", "random", "state"]
    assert shown.loc["tinyliv", "VOC"] == f"{FILMS.set_index('model').loc['tinyliv', 'value_order']:.2f}"
    probe = of(REPLAYS, "state", "ridge", 50)["all"]
    assert shown.loc["state", "probe, 50 labels (%)"].startswith(f"{100 * probe:.0f} (")
    assert shown.loc["random", "parameters"] == "1.5 M" and shown.loc["state", "VOC"] == ""


def test_tables_of_something_else_are_refused() -> None:
    with pytest.raises(PrefVLMError, match="lacks the columns"):
        backbones.accuracy_by_model(REPLAYS.drop(columns="all"), "laptop")
