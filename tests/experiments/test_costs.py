"""Tests of what fleets cost: counts against hand-made and random runs, and seconds against their formula."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.registry import domain_of
from prefvlm_core.experiments import calibration
from prefvlm_core.experiments.calibration import Calibration
from prefvlm_core.experiments.costs import fleet_cost, seconds_by_part, table_of, work_of
from prefvlm_core.methods import run_config

TASK = "button-press-v3"


@dataclass
class Unit:
    """Timings of one second per piece of work."""

    of: str = ""
    """The only piece that takes time; empty: all."""

    def __getattr__(self, name: str):
        return lambda *_: float(not self.of or self.of == name)

    def dimension(self, config: RunConfig) -> int:
        return 128


def config(method: str, profile: str = "laptop", seed: int = 0, **changes: object) -> RunConfig:
    return run_config(TASK, method, seed, profile, {name.replace("__", "."): each for name, each in changes.items()})


def test_work_of_a_run_with_true_rewards_is_worked_out_by_hand() -> None:
    work = work_of(config("sac"))
    assert (work.updates, work.frames, work.reward_updates, work.judged_pairs) == (5_750, 0, 0, 0)
    assert work.evaluation_episodes == 11 * 10 + 10
    cost = fleet_cost([config("sac"), config("sac", seed=1)], Unit())
    assert (cost.runs, cost.agent_steps, cost.human_labels) == (2, 12_000, 0)
    assert cost.environment_steps == 2 * 5 * (6_000 + 120 * 50)


def test_work_of_sessions_is_worked_out_by_hand() -> None:
    """Sessions at 500, 750, … 5,750, with 16 to 64 labels in batches of 64: one batch, in five passes of ten."""
    work = work_of(config("pebble"))
    assert work.reward_updates == 22 * 5 and work.adapter_updates == work.judged_pairs == 0
    assert work.reward_steps == sum(range(500, 6_000, 250)) + 64 * 10 * 2 * 10
    assert fleet_cost([config("pebble")], Unit()).human_labels == 64
    adapted = config("prefvlm", adapter__first_updates=150, adapter__later_updates=40)
    assert (work_of(adapted).adapter_updates, work_of(adapted).judged_pairs) == (150 + 21 * 40, 22 * 32)
    kernel = work_of(config("prefvlm", adapter__kind="kernel"))
    assert (kernel.adapter_updates, kernel.judged_pairs) == (0, 22 * 32)


def test_the_replay_on_disk_has_the_sizes_of_the_domain() -> None:
    """Observation, action, two rewards and snapshot, float32."""
    for task, numbers in {TASK: 39 + 4 + 2 + 21, "walker-walk": 24 + 6 + 2 + 9}.items():
        run = run_config(task, "pebble", 0, "laptop")
        assert fleet_cost([run, run], Unit()).disk == 2 * run.total_steps * 4 * numbers


@pytest.mark.parametrize(("profile", "changes"), [("laptop", {}), ("quick", {}), ("paper", {"total_steps": 60_000})])
def test_expected_frames_are_those_that_random_pairs_show(profile: str, changes: dict[str, object]) -> None:
    planned = run_config(TASK, "prefvlm", 0, profile, {"vlm.model": "tinyliv2", **changes})
    feedback, drawing = planned.feedback, np.random.default_rng(0)
    shown = np.zeros(planned.total_steps + planned.horizon, bool)
    read = 0
    for session, step in enumerate(range(planned.first_session_step, planned.total_steps, feedback.session_every)):
        count = planned.vlm.queries if session else feedback.first_session_queries
        complete = step // planned.horizon
        episodes = drawing.integers(max(0, complete - feedback.recent_episodes), complete, 2 * count)
        starts = episodes * planned.horizon + drawing.integers(
            planned.horizon - feedback.segment_length + 1, size=2 * count
        )
        shown[starts[:, None] + np.arange(feedback.segment_length)] = True
        read += shown.sum()
    work = work_of(planned)
    assert work.frames == pytest.approx(shown.sum(), rel=0.03)
    assert work.adapted_frames == pytest.approx(read, rel=0.03)


def test_seconds_are_how_often_each_part_takes_place_times_its_time() -> None:
    fleet = [config("prefvlm"), config("prefvlm", seed=1)]
    work = work_of(fleet[0])

    def seconds(of: str) -> dict[str, float]:
        return {part: value for part, value in seconds_by_part(fleet, Unit(of)).items() if value}

    assert seconds("environment_step") == {"environment": 2 * 6_000, "evaluation": 2 * 120 * 50}
    assert seconds("acting") == {"environment": 6_000, "evaluation": 120 * 50}
    assert seconds("storing") == {"environment": 6_000}
    assert seconds("update") == {"sac": 5_750 + 2 * fleet[0].feedback.reset_updates}
    assert seconds("frame") == {"frames": pytest.approx(2 * work.frames)}
    assert seconds("reward_update") == {"reward": pytest.approx(2 * work.reward_updates)}
    assert seconds("reward_step") == {"reward": pytest.approx(2 * work.reward_steps)}
    assert seconds("adapter_update") == {"adapters": 2 * work.adapter_updates}
    assert seconds("judged_pair") == {"adapters": 2 * work.judged_pairs}
    assert seconds("adapted_frame") == {"adapters": pytest.approx(2 * work.adapted_frames)}


def test_the_table_adds_up_and_says_how_long_the_longest_fleet_takes() -> None:
    fleets = [[config("sac")], [config("sac", seed=1)], [config("prefvlm")]]
    text = table_of(fleets, Unit("update"), cores=2)
    lines = text.splitlines()
    assert lines[1].split()[:5] == ["none,", "true", "rewards", "2", "2"] and lines[2].split()[:3] == [
        "tinyliv2",
        "1",
        "1",
    ]
    all_fleets = lines[3].split()
    assert all_fleets[:5] == ["all", "3", "3", "18,000", f"{3 * 5 * 12_000:,}"]
    hours = (3 * 5_750 + config("prefvlm").feedback.reset_updates) / 3600
    assert float(all_fleets[-1]) == pytest.approx(hours, abs=0.01)
    assert f"About {max(hours / 2, 5_850 / 3600):.1f} hours on 2 cores" in text and "sac 100%" in text
    assert "hours" not in table_of(fleets, Unit())


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Each piece of work that is timed runs once, and counts as one second; what it gave is listed."""
    results: list[object] = []

    def once(work: Callable[[], object]) -> float:
        results.append(work())
        return 1.0

    def forget() -> None:
        for each in vars(calibration).values():
            if hasattr(each, "cache_clear"):
                each.cache_clear()

    monkeypatch.setattr(calibration, "_seconds", once)
    forget()
    yield results
    forget()


@pytest.mark.parametrize("task", [TASK, "maze-one-goal"])
def test_every_part_is_really_run_when_it_is_timed(ran: list[object], task: str) -> None:
    planned, measured = run_config(task, "prefvlm", 0, "laptop", {"vlm.model": "tinyliv2"}), Calibration()
    assert measured.environment_step(planned) == 1 / min(90, domain_of(task).longest_episode // planned.action_repeat)
    assert measured.acting(planned, 16) == measured.storing(planned, 3) == measured.update(planned, 1) == 1
    assert measured.reward_update(planned) == 1 and measured.reward_step(planned) == 1 / calibration._STEPS
    assert measured.frame(planned) == 2 / calibration._FRAMES  # drawn and embedded
    assert measured.adapted_frame(planned) == 1 / calibration._STEPS and measured.dimension(planned) == 128
    assert measured.adapter_update(planned) == 0  # three updates last as long as one here
    assert measured.judged_pair(planned) == 1 / planned.adapter.batch_pairs and len(ran) == 14


def test_tasks_of_one_size_are_timed_once(ran: list[object]) -> None:
    for task in (TASK, "door-open-v3", "maze-one-goal", "maze-two-goals"):
        Calibration().environment_step(run_config(task, "sac", 0, "laptop", {"horizon": 50, "action_repeat": 5}))
    assert len(ran) == 2
