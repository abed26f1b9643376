"""Environment steps per second on one core: this package, each domain's own environments, and the bare simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from prefvlm_core.bench import Group, Measurement
from prefvlm_core.bench.peers import metaworld_environment
from prefvlm_core.bench.rounds import compared, seconds_of
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.registry import DOMAINS, main_tasks, sizes_of


@dataclass(frozen=True)
class Peer:
    """An environment as its own project makes it, and the simulator of ours."""

    name: str
    target: str
    """What is wanted of ours ÷ its speed."""
    reset: Callable[[], object]
    step: Callable[[Any], object]
    model: mujoco.MjModel
    frame_skip: int
    """Simulator steps per step."""


def metaworld_peer(task: str) -> Peer:
    """Meta-World through gym.make. Our model lacks what is only visible."""
    from prefvlm_core.domains.metaworld import MetaworldWorld

    env: Any = metaworld_environment(task)
    model = MetaworldWorld(task, goal_visible=False).env.model
    return Peer("gym.make('Meta-World/MT1')", "≥ 2", env.reset, env.step, model, env.unwrapped.frame_skip)


def maze_peer(task: str) -> Peer:
    """The same maze of Gymnasium-Robotics through gym.make, with a single target."""
    from prefvlm_core.domains.point_maze_world import IDS, made

    name = task if task in IDS else "point-maze-u"
    env, _ = made(name)
    env.reset()
    maze = env.unwrapped
    return Peer(f"gym.make('{IDS[name]}')", "≥ 1", env.reset, env.step, maze.model, maze.point_env.frame_skip)


def suite_peer(task: str) -> Peer:
    """The suite's environment alone, as dm_control has no gym.make."""
    from prefvlm_core.domains.dm_control_world import DMControlWorld

    env = DMControlWorld(task).env  # what suite.load returns
    physics = env.physics
    frame_skip = round(env.control_timestep() / physics.timestep())
    return Peer("dm_control's suite.load", "≥ 1", env.reset, env.step, physics.model.ptr, frame_skip)


PEERS = {"metaworld": metaworld_peer, "pointmaze": maze_peer, "mazegoals": maze_peer, "dmc": suite_peer}
"""By domain."""
TASKS = tuple(task for name in PEERS for task in DOMAINS[name].tasks)
QUICK = {"tasks": [task for task in TASKS if task in main_tasks(task)], "rounds": 4}


def measure(tasks: Sequence[str] = TASKS, rounds: int = 7, steps: int = 500) -> Group:
    """Steps per second over whole episodes of `steps` random actions, resets included.

    Ours are the steps of a fleet's worker, which keeps a snapshot of each; an action is never repeated. Tasks that are
    no main tasks of their domain have no rows of their own. Takes two minutes on a slow core, a quick one 20
    seconds.
    """
    rows: list[Measurement] = []
    skipped, limits = [], []
    for name, peer in PEERS.items():
        domain = DOMAINS[name]
        try:
            domain.check_installed()
        except PrefVLMError as error:
            skipped.append(f"Skipped: {error}")
            continue
        chosen = [task for task in tasks if task in domain.tasks]
        measured = {task: measure_task(task, peer(task), rounds, steps) for task in chosen}
        if not measured:
            continue
        rows += [row for task in chosen if task in main_tasks(task) for row in measured[task]]
        beside = [peer_row for peer_row, _ in measured.values()]
        ours, other, ratio = np.median([(row.ours, row.other, row.ratio) for row in beside], axis=0).tolist()
        title = f"{domain.title}: median of {len(chosen)} tasks"
        rows.append(Measurement(title, "steps/s", ours, other, ratio, "its own", beside[0].target))
        share = np.median(np.array([limit_row.ratio for _, limit_row in measured.values()]))
        limits.append(f"{100 * share:.0f} % ({domain.title})")
    return Group(rows, f"Of a step's time, the simulator takes {', '.join(limits)}.", tuple(skipped))


def measure_task(task: str, peer: Peer, rounds: int, steps: int) -> tuple[Measurement, Measurement]:
    """Our environment beside its peer, and beside as many bare steps of the simulator."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, sizes_of(task).action)).astype(np.float32)
    environment, data = Environment(task), mujoco.MjData(peer.model)

    def ours() -> None:
        environment.reset(0)
        for action in actions:
            environment.step(action)
            environment.snapshot()

    def other() -> None:
        peer.reset()
        for action in actions:
            peer.step(action)

    def simulator() -> None:
        mujoco.mj_resetData(peer.model, data)
        for action in actions:
            data.ctrl[:] = action[-peer.model.nu :]  # of Meta-World's hand it moves the fingers only
            mujoco.mj_step(peer.model, data, nstep=peer.frame_skip)

    our_speed, peer_speed, limit = (steps / seconds for seconds in seconds_of((ours, other, simulator), rounds))
    return (
        compared(task, "steps/s", our_speed, peer_speed, peer.name, peer.target),
        compared(f"{task}, to the limit", "steps/s", our_speed, limit, f"mj_step, frame skip {peer.frame_skip}"),
    )
