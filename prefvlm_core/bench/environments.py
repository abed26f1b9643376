"""Environment steps per second on one core: this package, Meta-World through gym.make, and the bare simulator."""

import time
import warnings
from collections.abc import Callable

import gymnasium
import metaworld  # noqa: F401  (registers "Meta-World/MT1")
import mujoco
import numpy as np

from prefvlm_core.bench import Measurement
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.metaworld import model_path
from prefvlm_core.domains.tasks import ACTION_SIZE, MAX_HORIZON, PAPER_TASKS, TASKS

_PEER = "gym.make('Meta-World/MT1')"
_FRAME_SKIP = 5  # simulator steps per step of Meta-World


def _episodes(task: str) -> tuple[Callable[[], object], Callable[[], object], Callable[[], object]]:
    """Functions that run an episode of the same actions: with our environment, gym.make and the bare simulator."""
    actions = np.random.default_rng(0).uniform(-1, 1, (MAX_HORIZON, ACTION_SIZE)).astype(np.float32)
    ours = Environment(task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's checker complains about Meta-World once, at the first step
        peer = gymnasium.make("Meta-World/MT1", env_name=task, seed=0)
        peer.reset()
        peer.step(actions[0])
    model = mujoco.MjModel.from_xml_path(model_path(task))
    data = mujoco.MjData(model)

    def run_ours() -> None:
        ours.reset(0)
        for action in actions:
            ours.step(action)

    def run_peer() -> None:
        peer.reset()
        for action in actions:
            peer.step(action)

    def run_simulator() -> None:
        mujoco.mj_resetData(model, data)
        for action in actions:
            data.ctrl[:] = action[3], -action[3]
            mujoco.mj_step(model, data, nstep=_FRAME_SKIP)

    return run_ours, run_peer, run_simulator


def measure(rounds: int = 5) -> list[Measurement]:
    """Steps per second over whole episodes of 500 steps, including resets (those of the bare simulator are trivial).

    The three take turns after every episode, so that a machine that slows down slows all of them; values are medians
    over the rounds. Every task is measured; those of the papers have rows of their own. Takes about 90 seconds.
    """
    rows: list[Measurement] = []
    ratios: dict[str, float] = {}
    for task in TASKS:
        episodes = _episodes(task)
        seen: list[list[float]] = []
        for _ in range(rounds + 1):
            speeds = []
            for run in episodes:
                start = time.perf_counter()
                run()
                speeds.append(MAX_HORIZON / (time.perf_counter() - start))
            seen.append(speeds)
        ours, peer, simulator = np.array(seen[1:]).T  # the first round warms caches
        ratios[task] = float(np.median(ours / peer))
        if task in PAPER_TASKS:
            share = float(np.median(ours / simulator))
            rows.append(Measurement(f"{task}: our steps", float(np.median(ours)), "steps/s per core", "", ""))
            rows.append(Measurement(f"{task}: ours ÷ gym.make", ratios[task], "×", _PEER, "≥ 2"))
            rows.append(Measurement(f"{task}: share of bare mj_step", share, "of 1", "mj_step, frame_skip 5", ""))
    of_paper = float(np.median([ratios[task] for task in PAPER_TASKS]))
    every = float(np.median(list(ratios.values())))
    rows.append(Measurement("median of the papers' tasks: ours ÷ gym.make", of_paper, "×", _PEER, "≥ 2"))
    rows.append(Measurement(f"median of all {len(TASKS)} tasks: ours ÷ gym.make", every, "×", _PEER, "≥ 2"))
    return rows
