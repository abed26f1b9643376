"""The VLM of each run of a fleet at work: frames of the steps asked about, embeddings, zero-shot returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.agent.replay import IntArray, Replay
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.vlm import VisionLanguageModel, load
from prefvlm_core.vlm.feature_cache import FeatureCache
from prefvlm_core.vlm.texts import TASK_TEXTS

FloatArray = NDArray[np.float32]


class VLMTeacher:
    """Embeddings of what runs have seen. Each frame is rendered and embedded at most once per run.

    Frames are those at steps divisible by `vlm.frame_stride`, so that overlapping segments share them.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        replay: Replay,
        folder: Path,
        stopwatch: Stopwatch,
        weights: str | None = None,
    ) -> None:
        self.configs = configs
        self.replay = replay
        self.stopwatch = stopwatch
        self._models: dict[str, VisionLanguageModel] = {
            name: load(name, weights) for name in {config.vlm.model for config in configs if uses_vlm(config)}
        }
        self._texts: dict[tuple[str, str], FloatArray] = {}
        self._caches: dict[str, FeatureCache] = {}
        self._renderers: dict[tuple[str, int], FrameRenderer] = {}
        for config in configs:
            if uses_vlm(config):
                model = self._models[config.vlm.model]
                text = model.encode_text([TASK_TEXTS[config.task]])[0]
                self._texts[config.vlm.model, config.task] = text
                self._caches.setdefault(
                    config.vlm.model,
                    FeatureCache(folder, model.fingerprint, len(configs), replay.actions.shape[1], len(text)),
                )

    def text(self, run: int) -> FloatArray:
        """Embedding of the run's task, (D,)."""
        return self._texts[self.configs[run].vlm.model, self.configs[run].task]

    def fingerprint(self, run: int) -> str:
        """Name and hash of the weights of the run's model."""
        return self._models[self.configs[run].vlm.model].fingerprint

    def frames(self, run: int, starts: IntArray) -> FloatArray:
        """Embeddings of the frames of segments that begin at `starts` (n, 2): (n, 2, F, D)."""
        steps = self._frame_steps(run, starts)
        features = self._features(run, steps.ravel())
        return features.reshape(*steps.shape, -1)

    def zero_shot_returns(self, run: int, frames: FloatArray) -> FloatArray:
        """Sum over a segment of the cosine between text and frames (n, 2, F, D): (n, 2) (PrefVLM §4.1)."""
        return (frames @ self.text(run)).sum(-1) * self.configs[run].vlm.frame_stride

    def dynamics(self, run: int, starts: IntArray, frames: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Consecutive frames of segments and the mean action between them: (m, D), (m, D), (m, A).

        With a stride of 1 these are the paper's (o_t, o_{t+1}, a_t).
        """
        stride = self.configs[run].vlm.frame_stride
        steps = self._frame_steps(run, starts)[..., :-1, None] + np.arange(stride)
        actions = self.replay.actions[run].cpu().numpy()[steps].mean(-2)
        size = frames.shape[-1]
        return frames[:, :, :-1].reshape(-1, size), frames[:, :, 1:].reshape(-1, size), actions.reshape(-1, 4)

    def episode_rewards(self, run: int, episode: int) -> FloatArray:
        """Cosine of every step of a complete episode, each frame's value held until the next: (horizon,)."""
        stride, horizon = self.configs[run].vlm.frame_stride, self.replay.horizon
        steps = np.arange(episode * horizon, (episode + 1) * horizon, stride)
        return np.repeat(self._features(run, steps) @ self.text(run), stride)

    def _frame_steps(self, run: int, starts: IntArray) -> IntArray:
        """The steps divisible by the stride inside segments that begin at `starts` (...): (..., F)."""
        stride, length = self.configs[run].vlm.frame_stride, self.configs[run].feedback.segment_length
        return -(-starts // stride)[..., None] * stride + np.arange(0, length, stride)

    def _features(self, run: int, steps: IntArray) -> FloatArray:
        cache = self._caches[self.configs[run].vlm.model]
        return cache.get(np.full(len(steps), run), steps, self._embed)

    def _embed(self, runs: IntArray, steps: IntArray) -> FloatArray:
        config = self.configs[int(runs[0])]
        model = self._models[config.vlm.model]
        with self.stopwatch("rendering"):
            renderer = self._renderer(config.task, model.frame_size)
            episodes, within = np.divmod(steps, self.replay.horizon)
            snapshots = self.replay.snapshots[runs, episodes, within]
            pictures = renderer.render(snapshots, self.replay.scenes[runs, episodes])
        with self.stopwatch("embedding"):
            return model.encode_image(pictures)

    def _renderer(self, task: str, size: int) -> FrameRenderer:
        if (task, size) not in self._renderers:
            self._renderers[task, size] = FrameRenderer(task, size)
        return self._renderers[task, size]

    def close(self) -> None:
        """Give the renderers' memory back."""
        for renderer in self._renderers.values():
            renderer.close()


def uses_vlm(config: RunConfig) -> bool:
    """Whether a run asks a model at all."""
    return (config.vlm.labels and config.vlm.simulated_accuracy is None) or config.reward.source == "vlm"
