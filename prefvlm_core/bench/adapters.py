"""How much better a task's own adapters label than the frozen model, by number of human labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from prefvlm_core.bench import Measurement
from prefvlm_core.config import AdapterConfig
from prefvlm_core.envs import Environment
from prefvlm_core.frames import FrameRenderer
from prefvlm_core.vlm import VisionLanguageModel, load
from prefvlm_core.vlm.adapters import Adapters
from prefvlm_core.vlm.demonstrations import EVALUATION_TASKS, FRAME_EVERY, mixed_trajectories
from prefvlm_core.vlm.texts import task_text

LABELS = (20, 50, 100, 250)
STRIDES = (5, 10)

_SEGMENT_STEPS = 50
_TEST_PAIRS = 500
_STEPS = 200  # of an episode
_EPISODES = 5  # of random actions, for inverse dynamics

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SeenTask:
    """What a model sees of one task; frames are those after every 5th step."""

    text: Floats
    """(D,)."""
    features: Floats
    """(N, 40, D): trajectories of mixed quality."""
    rewards: NDArray[np.float64]
    """(N, 200): true reward of each step of them."""
    explored: Floats
    """(E, 40, D): episodes of random actions."""
    actions: Floats
    """(E, 200, 4)."""


def measure(
    model: str = "tinyliv", tasks: Sequence[str] = EVALUATION_TASKS, trajectories: int = 60, draws: int = 2
) -> list[Measurement]:
    """Accuracies on held-out trajectories, mean over tasks and `draws` of pairs; ten minutes on two slow cores.

    Adapters learn from pairs of two thirds of the trajectories, labelled by the true reward, and are judged on pairs of
    the last third. "Adapted" is what a run would use: where the guard refuses the adapters, the frozen model.
    """
    vlm = load(model)
    seen = [see(vlm, task, trajectories, seed=20260201) for task in tasks]
    rows = []
    for stride in STRIDES:
        for labels in LABELS:
            pairs = np.array([accuracies(each, stride, labels, draw) for each in seen for draw in range(draws)])
            zero_shot, adapted = (100 * pairs.mean(0)).tolist()
            name, against = f"{model}, stride {stride}, {labels} labels", f"zero-shot {zero_shot:.1f} %"
            worst = 100 * float(np.diff(pairs, axis=1).min())
            rows.append(Measurement(f"{name}: adapted", adapted, "% right", against, ""))
            rows.append(
                Measurement(f"{name}: gain", adapted - zero_shot, "points", against, "≥ 8" if labels == 50 else "")
            )
            rows.append(Measurement(f"{name}: lowest gain", worst, "points", "one task, one draw", ""))
    return rows


def see(vlm: VisionLanguageModel, task: str, trajectories: int, seed: int) -> SeenTask:
    """Render and embed new trajectories of a task."""
    mixed = mixed_trajectories(task, trajectories, seed)
    generator = np.random.default_rng(seed)
    environment, renderer = Environment(task, _STEPS), FrameRenderer(task)
    explored, actions = [], generator.uniform(-1, 1, (_EPISODES, _STEPS, 4)).astype(np.float32)
    for episode in actions:
        environment.reset(int(generator.integers(2**31)))
        snapshots = []
        for step, action in enumerate(episode):
            environment.step(action)
            if (step + 1) % FRAME_EVERY == 0:
                snapshots.append(environment.snapshot())
        scenes = np.repeat(environment.scene()[None], len(snapshots), axis=0)
        explored.append(renderer.render(np.stack(snapshots), scenes))
    renderer.close()
    mixed_features, explored_features = (
        vlm.encode_image(films.reshape(-1, *films.shape[2:])).reshape(*films.shape[:2], -1)
        for films in (mixed.frames, np.stack(explored))
    )
    return SeenTask(vlm.encode_text([task_text(task)])[0], mixed_features, mixed.rewards, explored_features, actions)


def accuracies(seen: SeenTask, stride: int, labels: int, seed: int, config: AdapterConfig | None = None) -> list[float]:
    """[zero-shot, adapted]: fraction of held-out pairs ordered as the true reward does, after one session of learning
    from `labels` pairs; `stride` (a multiple of 5) is the steps between two frames."""
    generator = np.random.default_rng(seed)
    split = len(seen.features) * 2 // 3
    frames, truth = _pairs(seen, np.arange(split), labels, stride, generator)
    held_out, held_out_truth = _pairs(seen, np.arange(split, len(seen.features)), _TEST_PAIRS, stride, generator)
    adapters = Adapters(config or AdapterConfig(), len(seen.text), generator, torch.device("cpu"))
    zero_shot = adapters.returns(seen.text, held_out)
    adapters.learn(seen.text, frames, truth, _dynamics(seen, stride), generator)
    adapted = adapters.returns(seen.text, held_out)
    return [float(((returns[:, 1] > returns[:, 0]) == held_out_truth).mean()) for returns in (zero_shot, adapted)]


def _pairs(
    seen: SeenTask, trajectories: NDArray[np.int64], count: int, stride: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Frames (count, 2, F, D) of random pairs of segments, and P(second preferred) (count,) by their true returns."""
    length, skip = _SEGMENT_STEPS // FRAME_EVERY, stride // FRAME_EVERY
    rewards = seen.rewards.reshape(len(seen.rewards), -1, FRAME_EVERY).sum(-1)
    returns = np.lib.stride_tricks.sliding_window_view(rewards, length, axis=1).sum(-1)
    chosen = generator.choice(trajectories, (4 * count, 2))
    starts = generator.integers(0, returns.shape[1], (4 * count, 2))
    difference = np.diff(returns[chosen, starts], axis=1)[:, 0]
    kept = np.flatnonzero(difference)[:count]
    steps = starts[kept, :, None] + np.arange(skip - 1, length, skip)
    return seen.features[chosen[kept, :, None], steps], (difference[kept] > 0).astype(np.float32)


def _dynamics(seen: SeenTask, stride: int) -> tuple[Floats, Floats, Floats]:
    """Frames `stride` steps apart, and the mean action between them."""
    skip = stride // FRAME_EVERY
    frames = seen.explored[:, skip - 1 :: skip]
    actions = seen.actions.reshape(len(seen.actions), -1, stride, 4).mean(2)[:, 1:]
    size = frames.shape[-1]
    return frames[:, :-1].reshape(-1, size), frames[:, 1:].reshape(-1, size), actions.reshape(-1, 4)
