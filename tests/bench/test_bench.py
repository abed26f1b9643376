"""What the benchmark says and keeps, and that each group measures: how fast things are is no test."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from prefvlm_core.analysis.sanity import ACCURACY_COLUMNS
from prefvlm_core.bench import (
    Group,
    Measurement,
    adapters,
    environments,
    frames,
    gpu,
    learner,
    line,
    methods,
    report,
    table,
    vlm,
)
from prefvlm_core.bench.rounds import compared, seconds_of
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.point_maze import PointMaze
from prefvlm_core.domains.registry import DOMAINS


def checked(group: Group) -> dict[str, Measurement]:
    """The rows of a group by name, after a look at their numbers."""
    for row in group.rows:
        numbers = [number for number in (row.ours, row.other, row.ratio) if number is not None]
        assert np.isfinite(numbers).all() and min(numbers) > 0, row
    assert group.limit.endswith(".")
    return {row.name: row for row in group.rows}


def test_a_group_measured_anew_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for group, value in (("learner", 2.5), ("frames", 40.0), ("learner", 3.0)):
        measured = Group([Measurement(f"{group} speed", "updates/s", value, 2 * value, 0.5, "a peer")], "Far.")
        monkeypatch.setattr(f"prefvlm_core.bench.{group}.measure", lambda measured=measured: measured)
        assert f"{value:.4g}" in report(str(tmp_path), [group])
    stored = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert {group: kept["rows"][0]["ours"] for group, kept in stored.items()} == {"learner": 3.0, "frames": 40.0}
    assert stored["frames"]["rows"][0]["name"] == "frames speed" and stored["frames"]["limit"] == "Far."
    with pytest.raises(PrefVLMError, match=r"learning.*learner"):
        report(str(tmp_path), ["learning"])


def test_a_quick_benchmark_measures_less_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def measure(**size: Any) -> Group:
        asked.update(size)
        return Group([], "Near.", ("Skipped: all.",))

    monkeypatch.setattr(learner, "measure", measure)
    assert report(tmp_path, ["learner"], quick=True).splitlines()[1:] == ["Skipped: all.", "Near."]
    assert asked == learner.QUICK and list(tmp_path.iterdir()) == []


def test_a_line_holds_the_medians_and_the_median_of_the_ratios() -> None:
    row = compared("steps", "steps/s", [2.0, 4.0, 9.0], [1.0, 4.0, 2.0], "a peer", "≥ 2")
    assert row == Measurement("steps", "steps/s", 4.0, 2.0, 2.0, "a peer", "≥ 2")
    alone = Measurement("memory", "B", 0.25)
    lines = table([Group([row], "Far."), Group([alone], "Near.")]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["steps", "4", "2", "2", "steps/s", "a", "peer", "≥", "2"],
        ["Far."],
        [],
        ["memory", "0.25", "B"],
        ["Near."],
    ]


def test_works_take_turns() -> None:
    done: list[str] = []
    seconds = seconds_of([lambda: done.append("a"), lambda: done.append("b")], rounds=2)
    assert done == ["a", "b"] * 3 and np.shape(seconds) == (2, 2)


def test_environments_of_every_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(environments.PEERS) == set(DOMAINS)
    chosen = ["button-press-v3", "assembly-v3", "maze-two-goals", "walker-walk"]
    monkeypatch.setattr(PointMaze, "extra", ("no_such_module", "navigation"))
    group = environments.measure(chosen, rounds=1, steps=20)
    rows = checked(group)
    assert list(rows)[:6] == [
        *("button-press-v3", "button-press-v3, to the limit", "Meta-World: median of 2 tasks"),
        *("maze-two-goals", "maze-two-goals, to the limit", "MazeGoals: median of 1 tasks"),
    ]
    assert group.skipped[0] == "Skipped: PointMaze needs no_such_module: pip install 'prefvlm[navigation]'."
    if importlib.util.find_spec("dm_control"):
        assert list(rows)[6:] == ["walker-walk", "walker-walk, to the limit", "DMControl: median of 1 tasks"]
        assert rows["walker-walk, to the limit"].against == "mj_step, frame skip 10"  # 25 ms in steps of 2.5 ms
    else:
        assert group.skipped[1:] == ("Skipped: DMControl needs dm_control: pip install 'prefvlm[dmc]'.",)


def test_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "FLEET", 2)
    group = learner.measure(rounds=1, updates=8, loops=1, steps=100)
    rows = checked(group)
    assert {row.against for row in group.rows} > {"stable-baselines3 SAC", "plain PyTorch SAC", "torch.mm"}
    assert "training loop, fleet of 2" in rows and group.skipped == ()
    environment = Environment(learner.TASK)
    environment.reset(0)
    begun = 39 + environment.snapshot().size  # what an episode of 50 steps has one more of
    numbers = 4 + 2 + begun + (begun + environment.scene().size) / 50
    assert rows["replay memory, snapshot included"].ours == pytest.approx(4 * numbers)


def test_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "FLEET", 2)
    brief = methods.QUICK["changes"] | {"total_steps": 150}  # one session, after 100 actions
    assert len(checked(methods.measure(1, brief))) == 2


def test_frames_and_vlm() -> None:
    assert "frames of 64 px, corner2" in checked(frames.measure(0.2, ["door-close-v3"], rounds=1))
    rows = checked(vlm.measure(550))
    parts = [rows[f"prefvlm run, {part}"].ours for part in ("rendering", "embedding", "labels", "adapters")]
    assert rows["prefvlm run, all of the VLM part"].ours == pytest.approx(sum(parts)) and sum(parts) < 1


def test_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [("a", "tinyliv", 0, 0.5, 0.7, 0, 0), ("a", "tinyliv", 1, 0.6, 0.7, 0, 0)]
    accuracies = pd.DataFrame(drawn, columns=list(ACCURACY_COLUMNS))
    monkeypatch.setattr(adapters, "label_accuracies", lambda plan: accuracies)
    group = adapters.measure()
    labels, gain = group.rows
    assert (labels.ours, labels.other, gain.ours) == pytest.approx((70, 55, 15))
    assert "lacks 30 points" in group.limit


def test_gpu_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers of a GPU need one; that the CPU differs from itself by nothing does not."""
    updates = {"laptop": [2], "paper": [1]}
    group = gpu.measure(updates, [1, 2], steps=100, images=2, seconds=0.01, limit=math.inf, device="cpu")
    differences, rows = group.rows[:4], group.rows[4:]
    assert [row.ours for row in differences] == [0] * 4
    embedding = ["embeddings by open_clip:RN50"] if importlib.util.find_spec("open_clip") else []
    assert bool(group.skipped) != bool(embedding)
    speeds = ["updates, laptop, fleet of 2", "updates, paper, fleet of 1"]
    loops = [f"training loop, fleet of {runs}" for runs in (1, 2)]
    assert list(checked(Group(rows, group.limit))) == speeds + embedding + loops
    shown = capsys.readouterr().err
    assert all(line(row) in shown for row in group.rows)


def test_no_part_of_the_gpu_is_begun_after_its_time() -> None:
    group = gpu.measure({"laptop": [1]}, [1], device="cpu", limit=-1)
    assert group.rows == [] and group.limit == "No training was measured."
    assert [text.endswith("The time was over.") for text in group.skipped] == [True] * 4


def test_the_learner_of_the_gpu_learns_from_the_same_numbers() -> None:
    one, other = (learner.Learner.create(2, torch.device("cpu")) for _ in range(2))
    assert torch.equal(one.replay.rewards, other.replay.rewards) and one.replay.rewards.std() > 0.5
    before = one.agent.critic.values.clone()
    one.learn(3)
    other.learn(3)
    assert torch.equal(one.agent.critic.values, other.agent.critic.values)
    assert not torch.equal(one.agent.critic.values, before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_none_is_measured() -> None:
    group = gpu.measure()
    assert group.rows == [] and group.skipped == ("Skipped: torch finds no GPU here.",)
