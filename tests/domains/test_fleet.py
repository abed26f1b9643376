"""A fleet gives what single environments give, with any number of workers, and leaves no process behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from builders.registries import restored_registries

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains import fleet as fleets
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.fleet import EnvironmentFleet, default_workers
from prefvlm_core.domains.frames import Renderers, View
from prefvlm_core.domains.metaworld_domain import Metaworld
from prefvlm_core.domains.perturbations import Perturbation
from prefvlm_core.domains.registry import DOMAINS

FLEET = ("button-press-v3", "peg-insert-side-v3", "button-press-v3")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_fleet_equals_single_environments(workers: int) -> None:
    actions = np.random.default_rng(0).uniform(-1.2, 1.2, (12, 3, 4)).astype(np.float32)
    singles = [Environment(task, 12) for task in FLEET]
    with EnvironmentFleet(FLEET, 12, workers) as fleet:
        assert fleet.workers == min(workers, 3)
        for seeds in ((1, 2, 3), (4, 4, 5)):
            first = fleet.reset(seeds)
            expected = [single.reset(seed) for single, seed in zip(singles, seeds, strict=True)]
            assert first.dtype == np.float32 and np.array_equal(first, np.array(expected, np.float32))
            for index, single in enumerate(singles):
                scene, snapshot = single.scene(), single.snapshot()
                assert np.array_equal(fleet.scenes[index, : scene.size], scene)
                assert np.array_equal(fleet.snapshots[index, : snapshot.size], snapshot)
                assert not fleet.scenes[index, scene.size :].any()
            for action in actions:
                fleet.step_async(action)
                step = fleet.step_wait()
                for index, single in enumerate(singles):
                    observation, reward, success = single.step(action[index])
                    assert np.array_equal(step.observations[index], observation.astype(np.float32))
                    assert step.rewards[index] == np.float32(reward) and step.successes[index] == success
                    snapshot = single.snapshot()
                    assert np.array_equal(step.snapshots[index, : snapshot.size], snapshot)
        assert step.snapshots.shape == (3, singles[1].snapshot().size)
        assert fleet.scenes.shape == (3, singles[1].scene().size)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("count", [0, 5, 11])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_draw_what_a_renderer_draws(workers: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "_DRAWN_AT_ONCE", 4)
    noisy = View("button-press-v3", 32, Perturbation(background=0.5, noise=5, seed=1))
    with EnvironmentFleet(FLEET, 12, workers) as environments:
        environments.reset([0, 1, 2])
        seen = []
        for _ in range(11):
            environments.step_async(np.full((3, 4), 0.5, np.float32))
            seen.append(environments.step_wait().snapshots)
        snapshots, scenes = np.array(seen)[:count], environments.scenes
        for index, view in enumerate((noisy, View("peg-insert-side-v3", 48), View("button-press-v3", 32))):
            what = snapshots[:, index], np.repeat(scenes[None, index], count, axis=0)
            parts = list(environments.render(view, *what))
            assert [len(part) for part in parts] == [len(rows) for rows in np.split(snapshots, range(4, count, 4))]
            (expected,) = Renderers().render(view, *what)
            np.testing.assert_array_equal(np.concatenate(parts), expected)
        first = next(environments.render(noisy, np.array(seen)[:, 0], np.repeat(scenes[:1], 11, axis=0)))
        assert len(first) == 4
        with pytest.raises(PrefVLMError, match="still at work"):  # on the next part, while the first one is embedded
            environments.reset([0, 1, 2])


def test_workers_that_hang_or_cannot_draw_end_the_fleet_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    with EnvironmentFleet(["reach-v3"], 1, 1) as environments:
        with pytest.raises(PrefVLMError, match=r"^Task 'reach-v3': Frames of 8 pixels cannot be rendered"):
            list(environments.render(View("reach-v3", 8), environments.snapshots, environments.scenes))
        assert not multiprocessing.active_children()
    monkeypatch.setattr(fleets, "_LONGEST_DRAWING", 0.0)
    with EnvironmentFleet(["reach-v3"], 1, 1) as environments:
        with pytest.raises(PrefVLMError, match=r"have not answered for 0 seconds.*MUJOCO_GL=osmesa"):
            list(environments.render(View("reach-v3", 64), environments.snapshots, environments.scenes))
        assert not multiprocessing.active_children()


def test_a_fleet_needs_a_task_and_a_worker() -> None:
    for tasks, workers, words in (([], 1, "at least one task"), (["reach-v3"], 0, "workers is 0")):
        with pytest.raises(PrefVLMError, match=words):
            EnvironmentFleet(tasks, 10, workers)


def test_fleet_checks_its_calls_and_a_failing_worker_names_its_task() -> None:
    tasks = ["reach-v3", "door-open-v3"]
    with EnvironmentFleet(tasks, 1, 2) as fleet:
        with pytest.raises(PrefVLMError, match="reset needs 2 seeds"):
            fleet.reset([0])
        fleet.reset([0, 1])
        with pytest.raises(PrefVLMError, match="without a step_async"):
            fleet.step_wait()
        with pytest.raises(PrefVLMError, match=r"shape \(2, 4\), got shape \(2, 3\)"):
            fleet.step_async(np.zeros((2, 3), np.float32))
        with pytest.raises(PrefVLMError, match="finite: False"):
            fleet.step_async(np.full((2, 4), np.nan, np.float32))
        fleet.step_async(np.zeros((2, 4), np.float32))
        with pytest.raises(PrefVLMError, match="call step_wait first"):
            fleet.reset([0, 1])
        fleet.step_wait()
        fleet.step_async(np.zeros((2, 4), np.float32))
        with pytest.raises(PrefVLMError, match=r"^Task 'reach-v3': [^\n]*has no step 2 of 1[^\n]*$"):
            fleet.step_wait()
        assert not multiprocessing.active_children()
        with pytest.raises(PrefVLMError, match="closed"):
            fleet.reset([0, 1])


def test_another_error_of_a_worker_comes_with_its_traceback() -> None:
    class Broken(Metaworld):
        tasks = {"broken": "break"}  # noqa: RUF012

        def world(self, task: str, goal_visible: bool) -> NoReturn:
            raise ValueError("It is broken.")

    with (
        restored_registries(),
        pytest.raises(RuntimeError, match=r"in task 'broken':\nTraceback[\s\S]*ValueError: It is broken."),
    ):
        DOMAINS.register("broken", Broken())
        with EnvironmentFleet(["broken"], 1, 1):
            pass


def test_a_worker_that_dies_is_reported() -> None:
    with EnvironmentFleet(["reach-v3"], 10, 1) as fleet:
        fleet.reset([0])
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"reach-v3.*process died"):
            fleet.reset([0])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes live")
def test_workers_end_when_their_parent_is_killed() -> None:
    script = """
import multiprocessing, time
from prefvlm_core.domains.fleet import EnvironmentFleet
if __name__ == "__main__":
    fleet = EnvironmentFleet(["reach-v3", "push-v3"], 10, 2)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""

    def lives(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
        except FileNotFoundError:
            return False

    # A spawned worker imports the parent's main module again, which `-c` does not have: no file, nothing to import.
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(map(lives, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while any(map(lives, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(lives, workers))


def test_default_workers_leaves_a_core_to_the_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in (({0, 1, 2, 3}, 3), ({5}, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores, raising=False)
        assert default_workers() == workers
