"""Seconds from the table of timings, against stored fleets, torch's counter and hands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from builders.fleets import STORED, stored_fleets
from torch.utils.flop_counter import FlopCounterMode

from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.experiments.costs import seconds_by_part
from prefvlm_core.experiments.timings import TIMINGS, StoredTimings, update_gigaflop
from prefvlm_core.methods import run_config


@pytest.mark.parametrize("task", ["drawer-close-v3", "walker-walk", "maze-one-goal"])
@pytest.mark.parametrize("changes", [{}, {"sac.hidden_layers": 2, "sac.width": 128, "sac.batch_size": 100}])
def test_the_operations_of_an_update_are_those_that_torch_counts(task: str, changes: dict[str, int]) -> None:
    config, sizes = run_config(task, "sac", 0, "paper", changes), sizes_of(task)
    generators = [np.random.default_rng(0)]
    agent = SAC.create(config.sac, sizes.observation, sizes.action, generators, torch.device("cpu"), [0.1])
    size = config.sac.batch_size
    states, actions = torch.zeros(1, size, sizes.observation), torch.zeros(1, size, sizes.action)
    batch = Batch(states, actions, torch.zeros(1, size), states)
    with FlopCounterMode(display=False) as counter:
        agent.update(batch, agent.update_noise(generators), True)
    assert update_gigaflop(config) == pytest.approx(
        counter.get_total_flops() / 1e9, rel=0.15
    )  # no gradient leads to a first layer's inputs


def test_the_time_is_that_of_the_stored_fleets() -> None:
    """Of all fleets of profile laptop, trained beside other work on the machine that `TIMINGS` describe."""
    fleets = stored_fleets()
    estimated = pandas.Series(
        {name: sum(seconds_by_part(configs, TIMINGS["cpu"]).values()) for name, configs in fleets.items()}
    )
    by_fleet = STORED.groupby("fleet_hash")
    # Later fleets were stopped for a while, with SIGSTOP, and their clocks went on.
    measured = by_fleet["seconds"].first()[by_fleet["written"].max() < "2026-11-26T20"]
    estimated = estimated[measured.index]
    ratio = estimated / measured
    assert len(estimated) > 90 and 0.75 < estimated.sum() / measured.sum() < 1.33
    assert 0.8 < ratio.median() < 1.25 and ratio.between(0.5, 2).mean() > 0.9


def test_the_time_of_an_update_is_that_measured_on_a_gpu() -> None:
    measured = json.loads(
        (Path(__file__).parents[2] / "results" / "gpu" / "nvidia_h200.json").read_text(encoding="utf-8")
    )["gpu"]
    updates = {row["name"]: row["ours"] for row in measured["rows"] if row["name"].startswith("updates")}
    assert len(updates) == 7
    for name, speed in updates.items():
        profile, runs = re.fullmatch(r"updates, (\w+), fleet of (\d+)", name).groups()
        config = run_config("button-press-v3", "sac", 0, profile)
        assert TIMINGS["cuda"].update(config, int(runs)) == pytest.approx(int(runs) / speed, rel=1 / 3), name


def test_the_table_is_worked_out_by_hand() -> None:
    timings = StoredTimings(
        call=1.0, call_in_update=0.5, batch=10, gigaflop=1e9, large_frame=7, small_frame=5, adapter_gigaflop=1e9
    )
    changes = {"sac.batch_size": 2, "sac.width": 3, "sac.hidden_layers": 2, "reward.members": 2, "reward.width": 3}
    changes |= {"reward.hidden_layers": 1, "reward.batch_size": 4, "feedback.segment_length": 6, "adapter.hidden": 5}
    changes |= {"adapter.output": 2, "adapter.folds": 2, "adapter.batch_pairs": 8, "reward.inputs": "state-action"}
    config = run_config("drawer-close-v3", "prefvlm", 0, "laptop", {"vlm.model": "tinyliv2", **changes})
    observed = 39 + 4
    assert timings.update(config, 5) == pytest.approx(8 + 5 * (10 + 16 * 2 * 2 * (3 * observed + 3 * 3 + 3)))
    assert timings.reward_step(config) == pytest.approx(2 * 2 * (3 * observed + 3))
    assert timings.reward_update(config) == pytest.approx(3 * (1 + 2 * 4 * 6 * timings.reward_step(config)))
    pair = 2 * 6 * 2 * 5 * (128 + 2)
    assert timings.judged_pair(config) == pytest.approx(pair)
    assert timings.adapter_update(config) == pytest.approx(3 * (2 + 1) * 8 * pair)
    assert (timings.frame(config), timings.dimension(config)) == (5, 128)
    paper = run_config("drawer-close-v3", "prefvlm", 0, "paper", {"vlm.model": "liv"})
    assert (timings.frame(paper), timings.dimension(paper)) == (7, 1024)
    walker = run_config("walker-walk", "prefvlm", 0, "paper", changes | {"vlm.model": "liv"})
    assert timings.reward_step(walker) == pytest.approx(2 * 2 * (3 * (24 + 6) + 3))


def test_a_job_needs_no_torch_to_know_what_it_asks_for() -> None:
    script = "import sys; from prefvlm_core.experiments.jobs import Jobs; jobs = Jobs('quick')"
    script += "; [jobs.resources(fleet) for fleet in jobs.fleets]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "prefvlm_core.experiments.timings" in loaded and "torch" not in loaded
