"""The threshold explorer: counts by hand, and what the stored runs did with their own thresholds."""

import math

import numpy as np
import pandas as pd
import pytest
from builders.explore import RESULTS, words

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.explore.choosing import CHOICES, run_table, stored_runs
from prefvlm_core.explore.thresholds import (
    FORMULA,
    GivenThresholds,
    ThresholdExplorer,
    asked_by_session,
    own_thresholds,
    partition_table,
    rime_filter,
    sorted_by,
    trusted_divergences,
    vlm_labels,
)
from prefvlm_core.methods import run_config
from prefvlm_core.preferences.filters import RIMEThresholds
from prefvlm_core.runs.stored import StoredRun, load_labels


@pytest.fixture(scope="module")
def runs() -> list[StoredRun]:
    """The stored runs of profile laptop whose labels are a VLM's, on one task."""
    found = [run for run in stored_runs("laptop", RESULTS) if run.config.vlm.labels]
    return [run for run in found if run.config.task == "button-press-v3"]


def log(*rows: tuple[object, ...]) -> pd.DataFrame:
    """A label log of one run: session, teacher, label, truth, divergence, partition."""
    table = pd.DataFrame(rows, columns=["session", "teacher", "label", "truth", "divergence", "partition"])
    names = {"profile": "laptop", "task": "t", "method": "prefvlm", "seed": 0, "run_id": "r"}
    return table.assign(**names, step=500 + 300 * (table["session"] - 1))


BY_HAND = log(
    (1, "human", 1.0, 1.0, math.nan, ""),
    (2, "vlm", 1.0, 1.0, 0.1, "clean"),
    (2, "vlm", 1.0, 0.0, 0.2, "clean"),
    (2, "vlm", 0.0, 1.0, 3.0, "flipped"),
    (2, "vlm", 0.0, 0.0, 1.0, "uncertain"),
    (3, "vlm", 0.0, 0.5, 0.3, "clean"),
    (3, "vlm", 1.0, 0.0, 0.9, "uncertain"),
)


def test_a_filter_sorts_the_labels_and_the_rates_are_those_of_the_used_ones() -> None:
    own = partition_table(BY_HAND)
    assert own["labels"].to_dict() == {"clean": 3, "flipped": 1, "uncertain": 2, "all": 6}
    assert own["error"].to_dict() == {"clean": 1 / 2, "flipped": 0, "uncertain": 1 / 2, "all": 3 / 5}  # without the tie
    now = partition_table(sorted_by(GivenThresholds(0.15, 0.95), BY_HAND))
    assert now["labels"].to_dict() == {"clean": 1, "flipped": 2, "uncertain": 3, "all": 6}
    assert now["error"].to_dict() == {"clean": 0, "flipped": 1 / 2, "uncertain": 1, "all": 3 / 5}
    human = sorted_by(GivenThresholds(0.15, 0.95), BY_HAND).iloc[0]
    assert human["partition"] == "" and human["teacher"] == "human"
    nothing = partition_table(BY_HAND.iloc[:1])
    assert nothing["labels"].sum() == 0 and nothing["error"].isna().all()


def test_counts_at_a_threshold_are_those_of_the_published_table(runs: list[StoredRun]) -> None:
    for run in runs[::20]:
        _, task, method, name = run.run_id.split("/")
        seed, digest = name.split("-")
        published = pd.read_parquet(RESULTS / "laptop" / "labels" / task / f"{method}-{seed}.parquet")
        of_vlm = published[(published["hash"] == digest) & (published["teacher"] == "vlm")]
        values, right = of_vlm["divergence"].to_numpy(), (of_vlm["label"] == of_vlm["truth"]).to_numpy()
        decided = (of_vlm["truth"] != 0.5).to_numpy() & (of_vlm["label"] != 0.5).to_numpy()
        table = partition_table(sorted_by(GivenThresholds(0.4, 1.5), load_labels([run])))
        masks = {"clean": values < 0.4, "flipped": values > 1.5, "uncertain": (values >= 0.4) & (values <= 1.5)}
        for partition, mask in masks.items():
            assert table["labels"][partition] == np.count_nonzero(mask)
            if run.config.vlm.ties == "none" and (mask & decided).any():
                wrong = right if partition == "flipped" else ~right
                assert table["error"][partition] == pytest.approx(wrong[mask & decided].mean())


def test_a_runs_own_thresholds_give_what_the_run_did(runs: list[StoredRun]) -> None:
    sessions = 0
    for run in [run for run in runs if run.config.filter.mode != "none"][::5]:
        labels, metrics = load_labels([run]), run.metrics()
        for session in vlm_labels(labels)["session"].unique():
            own = own_thresholds(labels, metrics, session)
            of_session = labels[labels["session"] == session]
            again = sorted_by(GivenThresholds(own.lower, own.upper), of_session)
            assert list(again["partition"]) == list(of_session["partition"])
            sessions += own.stored
    assert sessions > 80


def test_the_budget_is_asked_as_the_runs_asked(runs: list[StoredRun]) -> None:
    told = [run for run in runs[::3] if run.config.filter.human_selection != "uncertain-pool"]  # see `asked_by_session`
    assert len(told) > 20
    for run in told:
        labels = load_labels([run])
        human = labels[labels["teacher"] == "human"].groupby("session").size()
        asked = asked_by_session(labels, run.config).set_index("session")["asked"]
        assert asked[asked > 0].to_dict() == human.to_dict(), run.run_id


def test_a_smaller_band_asks_less_and_never_more_than_the_budget() -> None:
    changes: dict[str, object] = {
        "feedback.budget": 3,
        "feedback.first_session_queries": 1,
        "feedback.session_queries": 2,
    }
    changes |= {"feedback.session_every": 300, "feedback.schedule": "fixed", "filter.human_selection": "uncertain"}
    config: RunConfig = run_config("button-press-v3", "prefvlm", 0, "quick", changes)
    asked = asked_by_session(BY_HAND, config)
    assert asked[["candidates", "asked"]].to_numpy().tolist() == [[1, 1], [1, 1], [1, 1]]
    asked = asked_by_session(sorted_by(GivenThresholds(0.0, math.inf), BY_HAND), config)
    assert asked[["candidates", "asked"]].to_numpy().tolist() == [[1, 1], [4, 2], [2, 0]]
    asked = asked_by_session(sorted_by(GivenThresholds(math.inf, math.inf), BY_HAND), config)
    assert asked["asked"].tolist() == [1, 0, 0]


def test_rimes_formula() -> None:
    thresholds = rime_filter(alpha=0.5, beta=2.0, rho=1.5, deviation=0.3, upper=4.0)
    assert thresholds.lower == pytest.approx(-math.log(1.5) + 0.5 * 1.5 + 2.0 * 0.3)
    assert thresholds.upper == 4.0


@pytest.mark.parametrize("lower", [0.31, 0.73, 1.4, 5.0])
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.0), (0.5, 3.0), (0.25, 1.0), (0.0, 2.0), (0.0, 0.0)])
def test_the_formula_gives_the_threshold_back(lower: float, alpha: float, beta: float) -> None:
    rho, deviation = trusted_divergences(lower, alpha, beta)
    assert rho > 0 and 0 <= deviation <= 0.2 * rho + 1e-9
    assert rime_filter(alpha, beta, rho, deviation, 9.0).lower == pytest.approx(lower)


def test_thresholds_that_are_not_stored_lie_between_the_labels() -> None:
    metrics = pd.DataFrame({"sessions": [3.0], "tau_lower": [0.5], "tau_upper": [2.0]})
    assert own_thresholds(BY_HAND, metrics, 3) == (0.5, 2.0, True) == own_thresholds(BY_HAND, metrics, None)
    moved = metrics.assign(tau_lower=0.2)  # they would have found the label at 0.3 uncertain
    assert own_thresholds(BY_HAND, moved, 3) == (pytest.approx(0.6), math.inf, False)
    assert own_thresholds(BY_HAND, metrics, 2) == (pytest.approx(0.6), 2.0, False)
    kept = BY_HAND.assign(partition=BY_HAND["partition"].replace(["flipped", "uncertain"], "clean"))
    assert own_thresholds(kept, pd.DataFrame({"step": [1]}), 2) == (math.inf, math.inf, False)


def test_every_stored_run_can_be_chosen() -> None:
    found = stored_runs("laptop", RESULTS)
    table = run_table(found, "laptop")
    assert len(table) == len(found) and not table.duplicated(list(CHOICES)).any()
    with pytest.raises(PrefVLMError, match=r"No run of profile paper is stored .* explore profile laptop"):
        stored_runs("paper", RESULTS)


def test_the_explorer_follows_its_sliders() -> None:
    explorer = ThresholdExplorer("laptop", RESULTS)
    labels = load_labels([explorer.chooser.run])
    values = vlm_labels(labels)["divergence"].to_numpy()
    before = explorer._histogram.view.value
    explorer.lower.value, explorer.upper.value = 0.5, 2.0
    clean, flipped = np.count_nonzero(values < 0.5), np.count_nonzero(values > 2)
    said = words(explorer.counts.value)
    assert f" clean {clean} " in said and f" flipped (after the flip) {flipped} " in said
    assert f" uncertain {len(values) - clean - flipped} " in said and f" all {len(values)} " in said
    assert explorer._histogram.view.value != before

    explorer.session.value = 5
    of_session = labels[labels["session"] == 5]
    did, human = of_session["partition"].value_counts(), (of_session["teacher"] == "human").sum()
    for name in ("clean", "uncertain"):  # with the run's own thresholds, both columns are the same
        assert words(explorer.counts.value).split(f" {name} ")[1].split()[0] == str(did.get(name, 0))
    assert f"asked about {human} pairs here (the run: {human})" in words(explorer.words.value)

    config = explorer.chooser.run.config.filter
    observed = RIMEThresholds(config)
    for _ in range(4):  # trusted labels of sessions 1 to 4, whose largest divergence and deviation stay the same
        observed.observe(np.array([0.5, 1.5]))
    beta = (observed.lower + math.log(1.5) - config.alpha * 1.5) / 0.5
    assert explorer.beta.value == pytest.approx(min(beta, explorer.beta.max))

    lower = explorer.kl_filter.lower
    explorer.mode.value = FORMULA
    assert explorer.kl_filter.lower == pytest.approx(lower, abs=1e-6)
    explorer.alpha.value += 0.5
    assert explorer.kl_filter.lower == pytest.approx(lower + 0.5 * explorer.rho.value, abs=1e-6)
    explorer.back.click()
    assert explorer.kl_filter.lower == pytest.approx(lower, abs=1e-6)


def test_lists_offer_what_the_lists_before_them_leave() -> None:
    explorer = ThresholdExplorer("laptop", RESULTS)
    lists = explorer.chooser._lists
    lists["task"].value = "door-close-v3"
    lists["method"].value = "prefvlm-adaptive"
    run = explorer.chooser.run
    assert (run.config.task, run.config.method) == ("door-close-v3", "prefvlm-adaptive")
    assert f" all {len(vlm_labels(load_labels([run])))} " in words(explorer.counts.value)
    lists["seed"].value = lists["seed"].options[-1]
    assert explorer.chooser.run.config.seed == lists["seed"].value != run.config.seed
