"""PrefVLM's methods in one small fleet: every part acts, the bookkeeping adds up, an interruption changes nothing."""

import math
from pathlib import Path

import numpy as np
import pytest
from test_train import TINY, quiet, weights_hash, without_seconds

from prefvlm_core.methods import METHODS, run_config
from prefvlm_core.store import RunDirectory
from prefvlm_core.train import Fleet, train

SMALL = TINY | {
    "vlm.queries": 12,
    "vlm.frame_stride": 5,
    "adapter.first_updates": 10,
    "adapter.later_updates": 3,
    "filter.adaptive_minimum": 3,
}
NO_HUMAN = ("sac", "vlm-reward", "vlm-preference")


def small(method: str):
    budget = {"feedback.budget": 0} if method in NO_HUMAN else {}
    return run_config("button-press-v3", method, 0, "quick", SMALL | budget)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    configs = [small(method) for method in METHODS]
    return dict(zip(METHODS, train(configs, quiet(tmp_path_factory.mktemp("trained"))), strict=True))


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("prefvlm")])
def test_labels_are_sorted_and_budgets_kept(method: str, trained: dict[str, RunDirectory]) -> None:
    last = trained[method].read_metrics()[-1]
    parts = [last[f"{part}_fraction"] for part in ("clean", "flipped", "uncertain")]
    assert sum(parts) == pytest.approx(1)
    assert last["sessions"] == 4 and 8 <= last["human_labels"] <= 20
    asked_later = last["human_labels"] - 8
    assert 0 <= last["vlm_labels"] <= 3 * 12 - asked_later
    assert 0 <= last["vlm_accuracy"] <= 1 and 0 <= last["adapted_vlm_accuracy"] <= 1
    if method in ("prefvlm-no-filter", "prefvlm-random-selection"):
        assert last["human_labels"] == 20  # random pairs, so the budget is always spent


def test_what_makes_each_method(trained: dict[str, RunDirectory]) -> None:
    last = {method: directory.read_metrics()[-1] for method, directory in trained.items()}
    assert last["vlm-preference"]["human_labels"] == 0 and last["vlm-preference"]["vlm_labels"] == 4 * 12
    assert last["prefvlm-no-filter"]["clean_fraction"] == 1 and last["prefvlm-no-filter"]["tau_lower"] == math.inf
    assert 0 < last["prefvlm"]["tau_lower"] < last["prefvlm"]["tau_upper"] == pytest.approx(3 * math.log(10))
    assert last["prefvlm"]["adapter_dynamics_loss"] > 0
    assert math.isnan(last["prefvlm-no-inverse-dynamics"]["adapter_dynamics_loss"])
    assert last["prefvlm-no-inverse-dynamics"]["adapter_preference_loss"] > 0
    assert "adapter_preference_loss" not in last["prefvlm-no-adaptation"]
    no_adaptation = last["prefvlm-no-adaptation"]
    assert no_adaptation["adapted_vlm_accuracy"] == no_adaptation["vlm_accuracy"]
    assert last["vlm-reward"]["human_labels"] == last["vlm-reward"]["vlm_labels"] == 0


def test_frames_are_rendered_for_those_who_ask_only(tmp_path: Path) -> None:
    directory = train([small("pebble")], quiet(tmp_path))[0]
    assert not any("rendering" in name for row in directory.read_metrics() for name in row)


def test_resumed_from_a_checkpoint_ends_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: dict[str, RunDirectory]
) -> None:
    """Stopped in the middle of its sessions, with filter, adapters and labels of the VLM to be restored."""
    configs = [directory.config for directory in trained.values()]
    evaluate = Fleet._evaluate_if_due

    def stop_after_300(fleet: Fleet) -> None:
        evaluate(fleet)
        if fleet.replay.size == 300:
            raise KeyboardInterrupt

    monkeypatch.setattr(Fleet, "_evaluate_if_due", stop_after_300)
    with pytest.raises(KeyboardInterrupt):
        train(configs, quiet(tmp_path, checkpoint_seconds=0))
    monkeypatch.undo()
    resumed = train(configs, quiet(tmp_path))
    for one, other in zip(trained.values(), resumed, strict=True):
        assert without_seconds(one) == without_seconds(other)
        assert weights_hash(one) == weights_hash(other)


def test_the_cosine_rewards_whole_episodes(trained: dict[str, RunDirectory]) -> None:
    returns = [row["episode_return"] for row in trained["vlm-reward"].read_metrics()]
    assert len(returns) == 4 and np.isfinite(returns).all()
