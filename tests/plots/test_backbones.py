"""Figures and words about models as labelers: what is drawn and said is what the tables hold."""

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
ARMS = pd.DataFrame(
    [
        ("prefvlm, VLM 70 % right", "prefvlm", "prefvlm", 0.7, 0.7, 0.2),
        ("prefvlm, VLM 100 % right", "prefvlm", "prefvlm", 1.0, 1.0, 0.5),
        ("TinyLIV", "TinyLIV", "prefvlm", np.nan, 0.76, 0.1),
    ],
    columns=["arm", "family", "method", "simulated_accuracy", "accuracy", "area_under_curve"],
).assign(area_under_curve_low=0.05, area_under_curve_high=0.6)


def of(table: pd.DataFrame, model: str, reader: str, labels: int, task: str = ALL_TASKS) -> pd.Series:
    return table.set_index(["model", "reader", "labels", "task"]).loc[(model, reader, labels, task)]


def marks(axes, marker: str) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == marker]


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


def test_a_panel_per_task_shows_every_model_before_and_after_labels() -> None:
    figure = backbones.accuracy_by_task(REPLAYS, "laptop")
    assert [axes.get_title() for axes in figure.axes] == [*(task.removesuffix("-v3") for task in TASKS), ALL_TASKS]
    for axes, task in zip(figure.axes, [*TASKS, ALL_TASKS], strict=True):
        models = ["tinyliv", "tinyliv-heldout", "tinyliv-indomain", "random"]
        frozen = [100 * of(REPLAYS, model, "zero-shot", 0, task)["all"] for model in models]
        taught = [100 * of(REPLAYS, model, "adapters", 50, task)["all"] for model in models]
        assert marks(axes, "o") == pytest.approx(frozen)
        assert marks(axes, "D") == pytest.approx([*taught, 100 * of(REPLAYS, "state", "ridge", 50, task)["all"]])
    check_text(figure)


def test_a_panel_per_kind_of_pairs() -> None:
    figure = backbones.accuracy_by_kind(REPLAYS, "laptop")
    (first, *_) = marks(next(axes for axes in figure.axes if axes.get_title() == "near the goal"), "o")
    assert first == pytest.approx(100 * of(REPLAYS, "tinyliv", "zero-shot", 0)["near_goal"])
    check_text(figure)


def test_orders_of_values_are_drawn() -> None:
    figure = backbones.orders(FILMS, MIXED_BEDS, "laptop")
    films, episodes = figure.axes
    assert marks(films, "o") == pytest.approx(FILMS["value_order"].tolist())
    by_film = RESULTS.films[RESULTS.films["model"] == "tinyliv"].groupby("task")["value_order"].mean()
    assert marks(films, "o")[0] == pytest.approx(by_film.mean())
    assert marks(episodes, "o")[0] == pytest.approx(of(MIXED_BEDS, "tinyliv", "zero-shot", 0)["episode_order"])
    assert "24 films" in footer(figure)
    check_text(figure)


def test_what_accuracy_is_worth_stands_above_what_models_have() -> None:
    figure = backbones.worth_of_accuracy(ARMS, 0.15, REPLAYS, "laptop")
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim()
    (curve,) = [line for line in above.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(curve.get_xydata(), [[70, 20], [100, 50]])
    assert marks(above, "D") == pytest.approx([76])
    (without,) = [line for line in above.lines if line.get_marker() == "None" and line.get_linestyle() == "-"]
    assert without.get_ydata()[0] == pytest.approx(15)
    assert marks(below, "D")[0] == pytest.approx(100 * of(REPLAYS, "tinyliv", "adapters", 50)["all"])
    check_text(figure)


def test_accuracy_between_two_simulated_ones_is_worth_what_lies_between() -> None:
    assert backbone_tables.success_at(ARMS, 0.8) == pytest.approx(0.3)  # a third of the way from 20 to 50 %
    assert backbone_tables.success_at(ARMS, 0.6) == pytest.approx(0.2)  # nothing is known below


def test_real_arms_have_the_accuracy_of_their_labels_and_simulated_ones_the_given_one() -> None:
    rows = [("TinyLIV", "real", np.nan), ("VLM 70 % right", "simulated:0.7", 0.7), ("human only", "", np.nan)]
    summary = pd.DataFrame(rows, columns=["arm", "vlm", "simulated_accuracy"]).assign(
        task=ALL_TASKS, area_under_curve=[0.1, 0.2, 0.3]
    )
    log = pd.DataFrame(
        # one label in four is wrong on one task, two in four on the other
        [
            ("TinyLIV", task, float(label))
            for task, wrong in (("a", 1), ("b", 2))
            for label in [1] * (4 - wrong) + [0] * wrong
        ],
        columns=["arm", "task", "label"],
    ).assign(truth=1.0, teacher="vlm", partition="clean", divergence=0.1, profile="quick", method="", seed=0, run_id="")
    arms = backbone_tables.arms_by_accuracy(summary, log).set_index("arm")["accuracy"]
    assert arms.to_dict() == pytest.approx({"TinyLIV": (0.75 + 0.5) / 2, "VLM 70 % right": 0.7})
    assert backbone_tables.without_vlm(summary) == pytest.approx(0.3)


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
    said = backbone_tables.answer_in_words(table, ARMS, 0.15)
    assert "the best model at hand, `tinyliv-heldout`, labels 95 (90–100) % of the pairs right zero-shot and 52" in said
    assert "(47–57) % of those near the goal, which is not told from chance." in said and said.endswith("no VLM 15 %.")


def test_the_overview_has_a_row_per_model_and_one_for_the_state() -> None:
    shown = backbone_tables.backbone_overview(RESULTS.models, REPLAYS, FILMS, MIXED_BEDS)
    assert list(shown.index) == ["tinyliv", "tinyliv-heldout", "tinyliv-indomain", "random", "state"]
    assert shown.loc["tinyliv", "VOC"] == f"{FILMS.set_index('model').loc['tinyliv', 'value_order']:.2f}"
    probe = of(REPLAYS, "state", "ridge", 50)["all"]
    assert shown.loc["state", "probe, 50 labels (%)"].startswith(f"{100 * probe:.0f} (")
    assert shown.loc["random", "parameters"] == "1.5 M" and shown.loc["state", "VOC"] == ""


def test_tables_of_something_else_are_refused() -> None:
    with pytest.raises(PrefVLMError, match="lacks the columns"):
        backbones.accuracy_by_task(REPLAYS.drop(columns="all"), "laptop")
