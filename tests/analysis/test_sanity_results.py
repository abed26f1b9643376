"""A stored sanity check is the one that was computed, and is computed again only when it has to be."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prefvlm_core.analysis import sanity_results as stored
from prefvlm_core.analysis.sanity import ACCURACY_COLUMNS, RewardCurve
from prefvlm_core.analysis.sanity_plans import MAZE_PLANS, PLANS, SanityPlan
from prefvlm_core.analysis.sanity_results import SanityResults, sanity_results
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm import load


def made_up(plan: SanityPlan = PLANS["quick"]) -> SanityResults:
    """Numbers with many digits for every episode and draw of a plan, and frames that all differ."""
    generator = np.random.default_rng(0)
    curves = [
        RewardCurve(
            task,
            behavior,
            np.broadcast_to(generator.integers(0, 256, (40, 1, 64, 3), np.uint8), (40, 64, 64, 3)),
            generator.standard_normal(40).astype(np.float32),
            generator.random(40) * 10,
            success,
        )
        for task in plan.tasks
        for behavior, success in (("expert", 83), ("random actions", None))
    ]
    draws = [(task, model, draw) for task in plan.tasks for draw in range(plan.draws) for model in plan.models]
    accuracies = pd.DataFrame(draws, columns=["task", "model", "draw"])
    for column in ACCURACY_COLUMNS[3:]:
        accuracies[column] = generator.random(len(draws))
    return SanityResults(curves, accuracies)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Profiles whose check was computed, of the mazes "mazes" after them; it is a made-up one."""
    names = {id(plan): profile for profile, plan in PLANS.items()}
    names |= {id(plan): f"{profile} mazes" for profile, plan in MAZE_PLANS.items()}
    computed: list[str] = []
    monkeypatch.setattr(stored, "compute_sanity", lambda plan: computed.append(names[id(plan)]) or made_up(plan))
    return computed


def test_what_is_stored_is_read_back_bit_by_bit(tmp_path: Path, computed: list[str]) -> None:
    sanity_results("quick", tmp_path, compute=True)
    read, expected = sanity_results("quick", tmp_path, compute=False), made_up()
    assert computed == ["quick"]
    pd.testing.assert_frame_equal(read.accuracies, expected.accuracies, check_exact=True)
    assert len(read.curves) == len(expected.curves) == 4
    for one, other in zip(read.curves, expected.curves, strict=True):
        assert (one.task, one.behavior, one.first_success) == (other.task, other.behavior, other.first_success)
        assert one.vlm_rewards.dtype == np.float32
        for name in ("frames", "vlm_rewards", "true_rewards"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_the_mazes_have_a_check_of_their_own(tmp_path: Path, computed: list[str]) -> None:
    sanity_results("quick", tmp_path, compute=True)
    words = f"of tinyliv2-maze is stored in {tmp_path}/quick/sanity_mazes; compute it with: prefvlm notebook 11_other_d"
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        sanity_results("quick", tmp_path, compute=False, notebook="11_other_domains")
    sanity_results("quick", tmp_path, compute=True, notebook="11_other_domains")
    read = sanity_results("quick", tmp_path, compute=False, notebook="11_other_domains")
    assert tuple(read.accuracies["task"].unique()) == MAZE_PLANS["quick"].tasks
    assert tuple(read.accuracies["model"].unique()) == ("tinyliv2-maze", "random")
    assert len(read.curves) == 4 and computed == ["quick", "quick mazes"]
    table = pd.read_csv(tmp_path / "quick" / "sanity_mazes" / "accuracies.csv")
    assert set(table["vlm_fingerprint"]) == {load("tinyliv2-maze").fingerprint}
    assert sanity_results("quick", tmp_path, compute=False).accuracies["model"].iloc[0] == "tinyliv2"


def test_nothing_is_computed_unasked(tmp_path: Path, computed: list[str]) -> None:
    words = (
        f"No sanity check of profile quick with the present weights of tinyliv2 is stored in {tmp_path}/quick/sanity;"
    )
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        sanity_results("quick", tmp_path, compute=False)
    assert computed == []


@pytest.mark.parametrize("change", ["weights", "draw", "file"])
def test_a_check_of_other_weights_or_another_plan_is_computed_again(
    tmp_path: Path, computed: list[str], change: str
) -> None:
    sanity_results("quick", tmp_path, compute=True)
    folder = tmp_path / "quick" / "sanity"
    table = pd.read_csv(folder / "accuracies.csv")
    if change == "weights":
        table.assign(vlm_fingerprint="other").to_csv(folder / "accuracies.csv", index=False)
    elif change == "draw":
        table[table["draw"] < 2].to_csv(folder / "accuracies.csv", index=False)
    else:
        (folder / "rewards.webp").unlink()
    with pytest.raises(PrefVLMError, match="No sanity check of profile quick"):
        sanity_results("quick", tmp_path, compute=False)
    assert len(sanity_results("quick", tmp_path, compute=True).accuracies) == len(table)
    assert computed == ["quick", "quick"]


def test_a_check_of_an_earlier_release_is_read_and_completed_when_asked(tmp_path: Path, computed: list[str]) -> None:
    sanity_results("quick", tmp_path, compute=True)
    path = tmp_path / "quick" / "sanity" / "accuracies.csv"
    pd.read_csv(path).drop(columns=["value_order", "episode_order"]).to_csv(path, index=False)
    read = sanity_results("quick", tmp_path, compute=False).accuracies
    assert read["value_order"].isna().all() and read["zero_shot"].notna().all() and computed == ["quick"]
    assert sanity_results("quick", tmp_path, compute=True).accuracies["value_order"].notna().all()
    assert computed == ["quick", "quick"]


@pytest.mark.parametrize("name", ["rewards.webp", "rewards.csv"])
def test_damaged_files_are_named(tmp_path: Path, computed: list[str], name: str) -> None:
    sanity_results("quick", tmp_path, compute=True)
    path = tmp_path / "quick" / "sanity" / name
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    with pytest.raises(
        PrefVLMError, match=rf"{re.escape(str(path.parent))}.* is damaged \(.*\); restore it, or remove"
    ):
        sanity_results("quick", tmp_path, compute=False)


DAMAGED = {
    "accuracies.csv": [b"", b"a\0b", b"\xff\xfe", b"task,draw\nx,0\n", b"task\n", b"[]"],
    "rewards.csv": [b"", b"task,behavior\n", b"\xff", b"x" * 200_000],
    "rewards.webp": [b"", b"RIFF", b"no picture"],
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("compute", [True, False])
def test_a_broken_file_is_named_and_never_replaced(
    tmp_path: Path, computed: list[str], name: str, compute: bool
) -> None:
    sanity_results("quick", tmp_path, compute=True)
    path = tmp_path / "quick" / "sanity" / name
    for content in DAMAGED[name]:
        path.write_bytes(content)
        with pytest.raises(PrefVLMError, match=rf"{re.escape(str(path))} is damaged \(.*\); restore it, or remove"):
            sanity_results("quick", tmp_path, compute)
        assert path.read_bytes() == content
    assert computed == ["quick"]


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("accuracies.csv", "zero_shot", "nan"),
        ("accuracies.csv", "adapted", "7"),
        ("accuracies.csv", "adapted", "high"),
        ("rewards.csv", "vlm_reward", "1e300"),
        ("rewards.csv", "true_reward", "inf"),
        ("rewards.csv", "frame", "7"),
        ("rewards.csv", "first_success", "soon"),
    ],
)
def test_no_value_is_believed_unchecked(
    tmp_path: Path, computed: list[str], name: str, column: str, value: str
) -> None:
    sanity_results("quick", tmp_path, compute=True)
    path = tmp_path / "quick" / "sanity" / name
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(PrefVLMError, match=rf"{re.escape(str(path))} is damaged"):
        sanity_results("quick", tmp_path, compute=False)


def test_rewards_of_fewer_frames_do_not_pass_for_larger_ones(tmp_path: Path, computed: list[str]) -> None:
    """4 episodes of 40 frames of 64 pixels are as large as one of 10 frames of 256."""
    sanity_results("quick", tmp_path, compute=True)
    path = tmp_path / "quick" / "sanity" / "rewards.csv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:11]), encoding="utf-8")
    with pytest.raises(PrefVLMError, match=r"rewards\.webp is damaged"):
        sanity_results("quick", tmp_path, compute=False)


def test_a_row_that_is_missing_or_there_twice_is_noticed(tmp_path: Path, computed: list[str]) -> None:
    sanity_results("quick", tmp_path, compute=True)
    path = tmp_path / "quick" / "sanity" / "accuracies.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for changed in (lines[:-1], [*lines, lines[-1]]):
        path.write_text("".join(changed), encoding="utf-8")
        with pytest.raises(PrefVLMError, match="No sanity check of profile quick"):
            sanity_results("quick", tmp_path, compute=False)
