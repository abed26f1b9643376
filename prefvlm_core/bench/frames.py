"""Rendering speed against Meta-World's own, same task and camera, in alternating rounds; embedding speed."""

import multiprocessing
import statistics
import time
from functools import partial

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from prefvlm_core.bench import Measurement
from prefvlm_core.common.stopwatch import processor_seconds
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import EVERYTHING, perturbation_of
from prefvlm_core.domains.tasks import ACTION_SIZE
from prefvlm_core.vlm.embedding import seconds_per_frame
from prefvlm_core.vlm.tinyliv import random  # of the same architecture as the trained networks

_TASKS = ("button-press-v3", "door-close-v3", "drawer-close-v3", "sweep-into-v3")
_SIZE = 64
_ROUNDS = 3


def measure(seconds: float = 20.0) -> list[Measurement]:
    """Frames per second of one process. The ratio is the median over tasks and rounds.

    Takes about 10 s longer than `seconds`, because it starts processes.
    """
    share = seconds / (2 * _ROUNDS * len(_TASKS))
    ratios, speeds, perturbed = [], [], []
    for task in _TASKS:
        snapshots, scenes = _episode(task)
        renderer = FrameRenderer(task, _SIZE, camera="corner2")
        renderer.render(snapshots, scenes)
        # Meta-World renders in a process of its own, because OSMesa renders black frames beside a second GL context.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for _ in range(_ROUNDS):
                theirs = pool.apply(_metaworld_speed, (task, share))
                start, count = time.perf_counter(), 0
                while time.perf_counter() - start < share:
                    renderer.render(snapshots, scenes)
                    count += len(snapshots)
                speeds.append(count / (time.perf_counter() - start))
                ratios.append(speeds[-1] / theirs)
        renderer.look("corner2", perturbation_of(EVERYTHING, "strong"))
        perturbed.append(len(snapshots) / processor_seconds(partial(renderer.render, snapshots, scenes)))
        renderer.close()
    embedded = 1 / seconds_per_frame(random(), 640)
    return [
        Measurement(
            "frames: ours ÷ Meta-World's render", statistics.median(ratios), "×", "metaworld 64 px corner2", "≥ 40"
        ),
        Measurement("frames: ours", statistics.median(speeds), "frames/s", "", ""),
        Measurement("frames: ours, perturbed in every way, 1 core", min(perturbed), "frames/s", "", "≥ 60"),
        Measurement("frames embedded by tinyliv, 1 thread", embedded, "frames/s", "", "≥ 1500"),
    ]


def _episode(task: str, steps: int = 50) -> tuple[np.ndarray, np.ndarray]:
    environment = Environment(task)
    environment.reset(0)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, ACTION_SIZE)).astype(np.float32)
    snapshots = []
    for action in actions:
        environment.step(action)
        snapshots.append(environment.snapshot())
    return np.stack(snapshots), np.repeat(environment.scene()[None], steps, axis=0)


def _metaworld_speed(task: str, seconds: float) -> float:
    """Frames per second of Meta-World's own `render`."""
    environment = ALL_V3_ENVIRONMENTS[task](render_mode="rgb_array", camera_name="corner2", width=_SIZE, height=_SIZE)
    try:
        for _ in range(2):  # the first frames include setting up OpenGL
            environment.render()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            environment.render()
            count += 1
        return count / (time.perf_counter() - start)
    finally:
        environment.close()
