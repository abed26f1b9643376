"""Returns as successes, and published ones beside ours."""

from builders.evaluations import evaluated

from prefvlm_core.analysis.locomotion import beside_published, planned_by_domain, return_as_success
from prefvlm_core.analysis.paired import run_scores
from prefvlm_core.analysis.stats import ALL_TASKS


def test_returns_are_compared_as_parts_of_the_greatest() -> None:
    data = evaluated(("walker-walk",), [("pebble", "pebble", 100)], 2)
    scores = run_scores(return_as_success(data.assign(episode_return=500.0)))
    assert scores["last_three"].tolist() == [0.5, 0.5]


def test_legs_are_compared_by_their_return_and_stand_apart_from_the_other_tasks() -> None:
    data = evaluated(("walker-walk", "point-maze-u"), [("pebble", "pebble", 100), ("prefvlm", "prefvlm", 100)], 5)
    mine = data["arm"] == "prefvlm"
    data = data.assign(success=0.2 + 0.1 * mine, episode_return=300.0 + 400.0 * mine, against="pebble")
    gaps = planned_by_domain(data).set_index(["task", "arm"])["mean"]
    assert gaps.round(9).to_dict() == {
        ("point-maze-u", "prefvlm"): 0.1,
        ("walker-walk", "prefvlm"): 0.4,
        (ALL_TASKS, "prefvlm"): 0.1,
    }
    legs = planned_by_domain(data[data["task"] == "walker-walk"]).set_index("task")["mean"]
    assert legs.round(9).to_dict() == {"walker-walk": 0.4, ALL_TASKS: 0.4}


def test_published_returns_stand_beside_ours() -> None:
    arms = [("pebble", "pebble", 100), ("prefvlm", "prefvlm", 100)]
    data = evaluated(("walker-walk", "point-maze-u"), arms, 3, evaluations=20)
    data["episode_return"] = 400.0 * (data["step"] > 100_000) + 10.0 * data["seed"]
    table = beside_published(data[data["task"] == "walker-walk"])
    assert table.loc[("walker-walk", "PEBBLE")].tolist() == ["453 ± 159", "410 (3 seeds)"]
    assert table.loc[("walker-walk", "PrefVLM")].tolist() == ["", "410 (3 seeds)"]
    assert (
        table.loc[("walker-walk", "QPA"), "published"] == "796 ± 148"
        and table.loc[("walker-walk", "QPA"), "ours"] == ""
    )
    assert set(table.index.get_level_values("task")) == {"walker-walk"}
    cheetah = beside_published(data.assign(task="cheetah-run"))
    assert cheetah.loc[("cheetah-run", "PEBBLE"), "published"] == "546"
