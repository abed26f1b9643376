"""Rendering speed against Meta-World's own, same task and camera, in alternating rounds; embedding speed."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from prefvlm_core.bench import Group, Measurement
from prefvlm_core.bench.rounds import compared
from prefvlm_core.common.machine import usable_cores
from prefvlm_core.common.stopwatch import processor_seconds
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.domains.frames import FrameRenderer, FrameSource, Renderers, View
from prefvlm_core.domains.perturbations import EVERYTHING, perturbation_of
from prefvlm_core.domains.tasks import ACTION_SIZE
from prefvlm_core.vlm.embedding import seconds_per_frame
from prefvlm_core.vlm.tinyliv import random  # of the same architecture as the trained networks

_TASKS = ("button-press-v3", "door-close-v3", "drawer-close-v3", "sweep-into-v3")
_SIZE = 64
QUICK = {"seconds": 6.0, "tasks": _TASKS[:2]}


def measure(seconds: float = 20.0, tasks: Sequence[str] = _TASKS, rounds: int = 3) -> Group:
    """Frames per second of one process.

    Takes about 10 s longer than `seconds`, because it starts processes.
    """
    share = seconds / (2 * rounds * len(tasks))
    ours, theirs, plain, perturbed = [], [], [], []
    together, alone = _shared_speeds(tasks[0], share, rounds)
    for task in tasks:
        snapshots, scenes = _episode(task)
        renderer = FrameRenderer(task, _SIZE, camera="corner2")
        draw = partial(renderer.render, snapshots, scenes)
        draw()
        # Meta-World renders in a process of its own, because OSMesa renders black frames beside a second GL context.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for _ in range(rounds):
                theirs.append(pool.apply(_metaworld_speed, (task, share)))
                ours.append(len(snapshots) * _repeats_per_second(draw, share))
        plain.append(1000 * processor_seconds(draw) / len(snapshots))
        renderer.look("corner2", perturbation_of(EVERYTHING, "strong"))
        perturbed.append(len(snapshots) / processor_seconds(draw))
        renderer.close()
    drawn, embedded = float(np.median(plain)), 1000 * seconds_per_frame(random(), 640)
    return Group(
        [
            compared("frames of 64 px, corner2", "frames/s", ours, theirs, "Meta-World's render", "≥ 40"),
            compared(
                f"the same by {usable_cores()} processes",
                "frames/s",
                together,
                alone,
                "one",
                f"≥ {0.8 * usable_cores()}",
            ),
            Measurement("the same perturbed in every way", "frames/s", min(perturbed), target="≥ 60"),
            Measurement("frames embedded by tinyliv, 1 thread", "frames/s", 1000 / embedded, target="≥ 1500"),
        ],
        f"A frame takes {drawn:.2f} ms to draw and {embedded:.2f} ms to embed; if embedding cost nothing, "
        f"{100 * drawn / (drawn + embedded):.0f} % of this would be left.",
    )


def _episode(task: str, steps: int = 50) -> tuple[np.ndarray, np.ndarray]:
    environment = Environment(task)
    environment.reset(0)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, ACTION_SIZE)).astype(np.float32)
    snapshots = []
    for action in actions:
        environment.step(action)
        snapshots.append(environment.snapshot())
    return np.stack(snapshots), np.repeat(environment.scene()[None], steps, axis=0)


def _shared_speeds(task: str, seconds: float, rounds: int) -> tuple[list[float], list[float]]:
    """Frames per second that as many processes as there are cores draw for a fleet, and this process alone."""
    view, (snapshots, scenes) = View(task, _SIZE), _episode(task)
    with (
        EnvironmentFleet([task] * usable_cores(), 1, usable_cores()) as fleet,
        closing(Renderers()) as renderers,
    ):
        sources: tuple[FrameSource, ...] = (fleet, renderers)
        works = [partial(_draw_all, source, view, snapshots, scenes) for source in sources]
        for work in works:
            work()
        speeds = [[len(snapshots) * _repeats_per_second(work, seconds) for work in works] for _ in range(rounds)]
    together, alone = zip(*speeds, strict=True)
    return list(together), list(alone)


def _draw_all(source: FrameSource, view: View, snapshots: np.ndarray, scenes: np.ndarray) -> None:
    for _ in source.render(view, snapshots, scenes):
        pass


def _metaworld_speed(task: str, seconds: float) -> float:
    """Frames per second of Meta-World's own `render`."""
    environment = ALL_V3_ENVIRONMENTS[task](render_mode="rgb_array", camera_name="corner2", width=_SIZE, height=_SIZE)
    try:
        for _ in range(2):  # the first frames include setting up OpenGL
            environment.render()
        return _repeats_per_second(environment.render, seconds)
    finally:
        environment.close()


def _repeats_per_second(work: Callable[[], object], seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)
