"""Tests of all methods in one small fleet: every part acts, the counts agree, and an interruption changes nothing."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.runs import SMALL, content_hash, quiet, small, train_until_300, weights_hash, without_seconds

from prefvlm_core.common.arrays import BoolArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.feedback import Feedback
from prefvlm_core.methods import METHODS, run_config
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import read_tensors
from prefvlm_core.runs.stored import load_labels
from prefvlm_core.train import Fleet, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    # Where the pool would be asked, the session's own pairs are: the log has the parts of these.
    changes = {"uncertain-pool": {"filter.human_selection": "uncertain"}}
    configs = [small(method, changes.get(small(method).filter.human_selection, {})) for method in METHODS]
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
        assert last["human_labels"] == 20  # random pairs are always available, so the budget is spent


def test_each_method_does_what_defines_it(trained: dict[str, RunDirectory]) -> None:
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


def test_the_human_is_asked_about_the_most_disputed_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members that disagree the more, the later the first segment begins."""
    chosen_of_marked, choose = [], Feedback._choose_for_human

    def member_probabilities(feedback: Feedback, starts: IntArray) -> torch.Tensor:
        difference = torch.from_numpy(starts[:, 0]) / 10_000
        return torch.stack((0.5 - difference, 0.5 + difference))

    def spy(feedback: Feedback, starts: IntArray, candidates: BoolArray) -> BoolArray:
        chosen = choose(feedback, starts, candidates)
        assert not (chosen & ~candidates).any()
        chosen_of_marked.append((starts[chosen, 0], starts[candidates & ~chosen, 0]))
        return chosen

    monkeypatch.setattr(Feedback, "_member_probabilities", member_probabilities)
    monkeypatch.setattr(Feedback, "_choose_for_human", spy)
    train([small("prefvlm-plus")], quiet(tmp_path))
    asked = [(chosen, others) for chosen, others in chosen_of_marked if len(chosen)]
    assert len(asked) == 3 and all(chosen.min() >= others.max() for chosen, others in asked)


def test_surf_accepts_pseudo_labels(trained: dict[str, RunDirectory]) -> None:
    last = trained["surf"].read_metrics()[-1]
    assert last["pseudo_labels"] > 0 and 0 < last["pseudo_label_fraction"] < 1
    assert 0 <= last["pseudo_label_accuracy"] <= 1


def test_rune_adds_a_bonus(trained: dict[str, RunDirectory]) -> None:
    rows = trained["rune"].read_metrics()
    assert all(0 < row["bonus"] < 0.05 for row in rows[1:])  # the first labels come at step 120
    assert "bonus" not in trained["pebble"].read_metrics()[-1]


def test_mrn_moves_the_rewards_until_the_budget_is_spent(trained: dict[str, RunDirectory]) -> None:
    rows = trained["mrn"].read_metrics()
    assert all(row["meta_reward_change"] > 0 and row["meta_loss"] > 0 for row in rows[1:3])
    assert math.isnan(rows[3]["meta_loss"]) and rows[3]["human_labels"] == 20


def test_rlvlmf_compares_single_images_and_drops_ties(trained: dict[str, RunDirectory]) -> None:
    rows, labels = trained["rlvlmf"].read_metrics(), load_labels([trained["rlvlmf"]])
    assert set(labels["label"]) == {0, 0.5, 1} and set(labels["teacher"]) == {"vlm"}
    assert rows[-1]["human_labels"] == 0 < rows[-1]["vlm_labels"] == (labels["label"] != 0.5).sum() < len(labels) == 48
    assert 0 < rows[-1]["vlm_equal_fraction"] < 1


def test_rime_flips_some_labels(trained: dict[str, RunDirectory]) -> None:
    rows = trained["rime"].read_metrics()
    flipping = [row for row in rows if row["flips"] > 0]  # nan before the first session
    assert flipping and all(0 <= row["flip_accuracy"] <= 1 for row in flipping if row["flips"] > 4)
    assert rows[-1]["flips"] + rows[-1]["left_out"] < rows[-1]["human_labels"] == 20
    assert "flips" not in trained["pebble"].read_metrics()[-1]


def test_frames_are_rendered_only_for_runs_that_show_them_to_a_vlm(tmp_path: Path) -> None:
    directory = train([small("pebble")], quiet(tmp_path))[0]
    assert not any("rendering" in name for row in directory.read_metrics() for name in row)


def test_resumed_from_a_checkpoint_ends_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: dict[str, RunDirectory]
) -> None:
    """The fleet is stopped between sessions, so the filter, the adapters and the VLM's labels must be restored."""
    configs = [directory.config for directory in trained.values()]
    train_until_300(configs, quiet(tmp_path, checkpoint_seconds=0), monkeypatch)
    resumed = train(configs, quiet(tmp_path))
    for one, other in zip(trained.values(), resumed, strict=True):
        assert without_seconds(one) == without_seconds(other)
        assert weights_hash(one) == weights_hash(other)
        assert load_labels([one]).equals(load_labels([other]))
        assert (one.path / "adapters.safetensors").exists() == one.config.adapter.enabled
        if one.config.adapter.enabled:
            tensors = [read_tensors(run.path / "adapters.safetensors")[0] for run in (one, other)]
            assert tensors[0].keys() == tensors[1].keys()
            assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    (directory,) = train([small("prefvlm")], quiet(tmp_path_factory.mktemp("alone")))
    return directory


def test_embeddings_on_a_nodes_disk_are_made_again_on_the_next_node(
    alone: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, results = small("prefvlm"), tmp_path / "results"
    train_until_300([config], quiet(results, checkpoint_seconds=0, scratch=str(tmp_path / "first")), monkeypatch)
    (kept,) = tmp_path.rglob("*.bin")
    assert kept.is_relative_to(tmp_path / "first") and kept.name.startswith("frames-")
    with pytest.raises(PrefVLMError, match="scratch is env:NODE_DISK, but the environment variable NODE_DISK is not"):
        train([config], quiet(results, scratch="env:NODE_DISK"))
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "second"))
    (resumed,) = train([config], quiet(results, scratch="env:NODE_DISK"))
    assert content_hash(resumed) == content_hash(alone)
    assert list(tmp_path.rglob("*.bin")) == [kept]  # the second's is gone
    assert not list((tmp_path / "second").iterdir())


def test_embeddings_of_frames_that_a_resumed_run_never_sees_are_not_used(
    alone: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after 300 steps, of which the last checkpoint holds 200: those in between were others, as on another
    processor, and the session at step 260 has embedded them."""
    loop, execution = sys.modules["prefvlm_core.train"], quiet(tmp_path, checkpoint_seconds=0)
    act, save, session = loop.exploring_actions, Fleet._save, Fleet._sessions
    sessions: list[int] = []

    def other_actions(*values: Any) -> torch.Tensor:
        return act(*values) * (-1 if fleets[-1].replay.size >= 200 else 1)

    def spy(fleet: Fleet, *values: Any) -> None:
        sessions.append(fleet.replay.size)
        session(fleet, *values)

    fleets: list[Fleet] = []
    episode = Fleet._episode
    with monkeypatch.context() as patched:
        patched.setattr(Fleet, "_episode", lambda fleet, progress: (fleets.append(fleet), episode(fleet, progress)))
        patched.setattr(loop, "exploring_actions", other_actions)
        patched.setattr(Fleet, "_sessions", spy)
        patched.setattr(Fleet, "_save", lambda fleet: fleet.replay.size > 200 or save(fleet))
        train_until_300([alone.config], execution, monkeypatch)
    assert sessions == [120, 190, 260]
    (resumed,) = train([alone.config], execution)
    assert load_labels([resumed]).equals(load_labels([alone]))
    assert content_hash(resumed) == content_hash(alone)


def test_each_results_folder_has_its_own_place_on_a_nodes_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [
        quiet(Path(results), scratch="scratch").cache_folder(Path(results, "quick", "fleets", "0123456789ab"))
        for results in ("one", "two", str(tmp_path / "one"))
    ]
    assert folders[0] == folders[2] != folders[1]
    assert all(str(folder.parent) == "scratch" and folder.name.startswith("0123456789ab-") for folder in folders)


def test_the_vlms_cosine_rewards_whole_episodes(trained: dict[str, RunDirectory]) -> None:
    returns = [row["episode_return"] for row in trained["vlm-reward"].read_metrics()]
    assert len(returns) == 4 and np.isfinite(returns).all()


# ---- the label log


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith(("prefvlm", "pebble"))])
def test_every_label_is_logged_with_its_provenance(method: str, trained: dict[str, RunDirectory]) -> None:
    labels, last = load_labels([trained[method]]), trained[method].read_metrics()[-1]
    human, vlm = (labels[labels["teacher"] == teacher] for teacher in ("human", "vlm"))
    assert len(human) == last["human_labels"]
    assert (human["label"] == human["truth"]).all()  # the oracle never errs
    assert human["divergence"].isna().all() and (human["partition"] == "").all()
    assert (labels["step"] >= trained[method].config.first_session_step).all()
    assert (
        (labels[["first", "second"]].max(axis=1) + trained[method].config.feedback.segment_length)
        .lt(labels["step"] + 1)
        .all()
    )
    if method == "pebble":
        assert vlm.empty
        return
    assert vlm.groupby("session").size().to_dict() == {2: 12, 3: 12, 4: 12}
    assert (vlm["divergence"] >= 0).all() and set(vlm["partition"]) <= {"clean", "flipped", "uncertain"}
    asked = human[human["session"] > 1].merge(vlm, on=["session", "first", "second"])
    assert len(asked) >= last["human_labels"] - 8  # the human is only asked about pairs that the VLM labeled
    if method in ("prefvlm", "prefvlm-adaptive"):
        assert set(asked["partition_y"]) == {"uncertain"}
    if method == "prefvlm-no-filter":
        assert set(vlm["partition"]) == {"clean"}


def test_runs_without_labels_have_no_log(trained: dict[str, RunDirectory]) -> None:
    assert load_labels([trained["sac"], trained["vlm-reward"]]).empty


# ---- transfer


def from_source(source: RunConfig, **changes: object) -> RunConfig:
    wanted = {"adapter.source": source.run_id} | {name.replace("__", "."): value for name, value in changes.items()}
    return run_config("drawer-close-v3", "prefvlm", 0, "quick", SMALL | wanted)


def test_a_run_starts_from_the_adapters_of_another(tmp_path: Path, trained: dict[str, RunDirectory]) -> None:
    source = trained["prefvlm"]
    learned = read_tensors(source.path / "adapters.safetensors")[0]["values"]
    results = source.path.parents[3]
    directory = RunDirectory(results, from_source(source.config))
    directory.open()
    with EnvironmentFleet([directory.config.task], directory.config.horizon, 1) as environments:
        adapters = Fleet([directory], environments, quiet(results)).feedback[0].vlm.state()
    assert torch.equal(adapters["values"], learned)
    target = train([directory.config], quiet(results))[0]
    after = read_tensors(target.path / "adapters.safetensors")[0]["values"]
    assert after.shape == learned.shape and not torch.equal(after, learned)  # it went on learning
    assert torch.equal(read_tensors(source.path / "adapters.safetensors")[0]["values"], learned)


def test_transfer_from_a_run_that_is_not_there_is_refused(tmp_path: Path, trained: dict[str, RunDirectory]) -> None:
    with pytest.raises(PrefVLMError, match=r"adapter.source is quick/.*train that run first"):
        train([from_source(trained["prefvlm"].config)], quiet(tmp_path))


def test_transfer_between_different_models_is_refused(trained: dict[str, RunDirectory]) -> None:
    results = trained["prefvlm"].path.parents[3]
    with pytest.raises(PrefVLMError, match="have backbone 'tinyliv"):
        train([from_source(trained["prefvlm"].config, vlm__model="tinyliv-heldout")], quiet(results))


def test_transfer_without_adapters_is_refused() -> None:
    with pytest.raises(PrefVLMError, match=r"adapter.source is quick/x, but the run trains no adapters"):
        run_config("drawer-close-v3", "pebble", 0, "quick", {"adapter.source": "quick/x"})
