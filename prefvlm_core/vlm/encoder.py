"""The frozen vision-language models of a fleet: which frames they see, their embeddings and zero-shot returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from prefvlm_core.agent.replay import Replay, RunReplay
from prefvlm_core.common.arrays import FloatArray, ImageArray, IntArray
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.frame_steps import frame_steps
from prefvlm_core.domains.frames import FrameSource, View, difference
from prefvlm_core.vlm import (
    ImageTextModel,
    VisionLanguageModel,
    asks_endpoint,
    load,
    seen_fingerprint,
    uses_vlm,
    weights_for,
)
from prefvlm_core.vlm.endpoint import prompts
from prefvlm_core.vlm.feature_cache import FeatureCache
from prefvlm_core.vlm.frame_pairs import FramePairs, contents, pairs_of
from prefvlm_core.vlm.texts import task_text

_SHOWN = {"frame": "after the action", "difference": "after the action, less the one before it"}
"""`vlm.shows` -> what a run's manifest says of the frames that the VLM saw."""
_CHUNK = 8192
"""Frames looked up at once to tell them apart."""


class FleetEncoder:
    """Embeds the frames of a fleet's runs, or their differences (`vlm.shows`), each at most once per run.

    `frames` draws them. The embeddings are cached in `folder`; `weights` is the checkpoint file of models that do not
    come with the package ("": none), which the others are not given.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        replay: Replay,
        frames: FrameSource,
        folder: Path,
        stopwatch: Stopwatch,
        weights: str = "",
    ) -> None:
        self.configs = configs
        self.replay = replay
        self.stopwatch = stopwatch
        self._frames = frames
        self._models: dict[str, VisionLanguageModel] = {
            name: load(name, weights_for(name, weights))
            for name in {config.vlm.model for config in configs if uses_vlm(config)}
        }
        self._texts: dict[tuple[str, str], FloatArray] = {}
        self._caches: dict[str, FeatureCache] = {}
        for config in configs:
            if uses_vlm(config):
                model = self._models[config.vlm.model]
                text = model.encode_task(config.task)
                self._texts[config.vlm.model, config.task] = text
                seen = seen_fingerprint(model, config)
                if seen not in self._caches:
                    self._caches[seen] = FeatureCache(folder, seen, len(configs), replay.actions.shape[1], len(text))
        if any(config.reward.embedded for config in configs):
            sizes = {len(self._texts[config.vlm.model, config.task]) for config in configs if config.reward.embedded}
            replay.embeddings = torch.zeros(*replay.rewards.shape, max(sizes), device=replay.rewards.device)

    def of_run(self, run: int) -> RunEncoder:
        """The model and the frames of one run, which must show frames to a model (see `uses_vlm`)."""
        config = self.configs[run]
        model, text = self._models[config.vlm.model], self._texts[config.vlm.model, config.task]
        return RunEncoder(self, run, config, text, model)

    def description(self, run: int) -> dict[str, str | None]:
        """What a run's manifest says of the model that sees its frames and of the text that it reads; None without."""
        config, fingerprint, reads_text = self.configs[run], None, False
        if asks_endpoint(config):
            fingerprint, reads_text = prompts.fingerprint(config), True
        elif uses_vlm(config):
            fingerprint, reads_text = self.of_run(run).fingerprint, self.of_run(run).reads_text
        return {
            "vlm_fingerprint": fingerprint,
            "vlm_text": task_text(config.task) if reads_text else None,
            "frames": _SHOWN[config.vlm.shows] if fingerprint else None,  # until 0.1.0 the VLM saw those before it
        }

    def embed_episode(self, episode: int) -> None:
        """Write the embeddings of a complete episode for the runs whose reward ensemble sees them."""
        if self.replay.embeddings is None:
            return
        steps = np.arange(episode * self.replay.horizon, (episode + 1) * self.replay.horizon)
        for run, config in enumerate(self.configs):
            if config.reward.embedded:
                features = torch.from_numpy(self.features(run, steps))
                self.replay.embeddings[run, steps, : features.shape[1]] = features.to(self.replay.embeddings.device)

    def reward_episode(self, episode: int) -> None:
        """Write the rewards of a complete episode for the runs whose agent learns from the VLM's cosine."""
        for run, config in enumerate(self.configs):
            if config.reward.source != "vlm":
                continue
            rewards = torch.from_numpy(self.of_run(run).episode_rewards(episode))
            steps = slice(episode * self.replay.horizon, (episode + 1) * self.replay.horizon)
            self.replay.rewards[run, steps] = rewards.to(self.replay.rewards.device)

    def features(self, run: int, steps: IntArray) -> FloatArray:
        """Embeddings (n, D) of the frames of one run at `steps` (n,)."""
        config = self.configs[run]
        cache = self._caches[seen_fingerprint(self._models[config.vlm.model], config)]
        return cache.get(np.full(len(steps), run), steps, self._shown, self._embed)

    def _shown(self, runs: IntArray, steps: IntArray) -> FloatArray:
        """All that frames show, or their differences."""
        episodes, within = np.divmod(steps, self.replay.horizon)
        before = self.replay.snapshots[runs, episodes, within]  # seen where `vlm.shows` is difference
        return np.concatenate((before, *self.replay.shown(runs, steps)), axis=1)

    def _embed(self, runs: IntArray, steps: IntArray) -> FloatArray:
        run = int(runs[0])
        model, features = self._models[self.configs[run].vlm.model], []
        for pictures in self._drawn(run, steps, model.frame_size):
            with self.stopwatch("embedding"):
                features.append(model.encode_image(pictures))
        return np.concatenate(features)

    def pictures(self, run: int, steps: IntArray, size: int) -> ImageArray:
        """What `vlm.shows` names (n, size, size, 3) of one run at `steps` (n,), in its `view`."""
        return np.concatenate(list(self._drawn(run, steps, size)))

    def _drawn(self, run: int, steps: IntArray, size: int) -> Iterator[ImageArray]:
        """The same in parts; while one is worked on, the next may be drawn."""
        if self.configs[run].vlm.shows == "frame":
            yield from self._rendered(run, size, *self.replay.shown(np.full(len(steps), run), steps))
            return
        # An episode has a picture more than steps. That before a step is that after the last: it is drawn once.
        horizon = self.replay.horizon
        before = steps + steps // horizon
        rows, where = np.unique(np.stack((before, before + 1)), return_inverse=True)
        episodes, within = np.divmod(rows, horizon + 1)
        snapshots, scenes = self.replay.snapshots[run, episodes, within], self.replay.scenes[run, episodes]
        frames = np.concatenate(list(self._rendered(run, size, snapshots, scenes)))
        yield difference(*frames[where.reshape(2, -1)])

    def _rendered(self, run: int, size: int, snapshots: FloatArray, scenes: FloatArray) -> Iterator[ImageArray]:
        config = self.configs[run]
        parts = self._frames.render(View(config.task, size, config.view.perturbation(config.seed)), snapshots, scenes)
        while True:
            with self.stopwatch("rendering"):
                part = next(parts, None)
            if part is None:
                return
            yield part

    def close(self) -> None:
        """Remove the embeddings."""
        for cache in self._caches.values():
            cache.path.unlink(missing_ok=True)
            with suppress(OSError):  # there is more in it, such as the checkpoint
                cache.path.parent.rmdir()


class RunEncoder:
    """The vision-language model of one run.

    Of every `vlm.frame_stride` steps it sees the frame of the last one (`domains.frame_steps`), so overlapping segments
    share frames. `text` (D,) is the embedding of the task's text, or of what else the model compares frames with;
    `reads_text` says which. `fingerprint` is `seen_fingerprint`.
    """

    def __init__(
        self, fleet: FleetEncoder, run: int, config: RunConfig, text: FloatArray, model: VisionLanguageModel
    ) -> None:
        self._fleet, self._run = fleet, run
        self.text, self.reads_text = text, isinstance(model, ImageTextModel)
        self.fingerprint = seen_fingerprint(model, config)
        self.replay: RunReplay = fleet.replay.of_run(run)
        self.stride, self.length = config.vlm.frame_stride, config.feedback.segment_length
        self._contents = np.zeros(len(self.replay.rewards), np.uint64)
        """The contents of the frames by step, 0 where they were not asked for."""

    def frames(self, starts: IntArray) -> FloatArray:
        """Embeddings (..., F, D) of the frames of segments that begin at `starts` (...)."""
        frames, shown = self.distinct_frames(starts)
        return frames[shown]

    def distinct_frames(self, starts: IntArray) -> tuple[FloatArray, IntArray]:
        """Embeddings (K, D) of the frames that segments show which begin at `starts` (...), each frame once however
        many segments show it, and which of them each segment shows, (..., F)."""
        steps = frame_steps(starts, self.length, self.stride)
        distinct, shown = np.unique(steps, return_inverse=True)
        return self._fleet.features(self._run, distinct), shown.reshape(steps.shape)

    def frame_pairs(self, starts: IntArray) -> FramePairs:
        """Pairs of segments that begin at `starts` (n, 2), whose frames are looked up a few at a time."""
        steps = frame_steps(starts, self.length, self.stride)
        unknown = np.unique(steps[self._contents[steps] == 0])
        for first in range(0, len(unknown), _CHUNK):
            chunk = unknown[first : first + _CHUNK]
            self._contents[chunk] = contents(self._fleet.features(self._run, chunk))
        return pairs_of(self._contents[steps], lambda where: self._fleet.features(self._run, steps.flat[where]))

    def zero_shot_returns(self, frames: FloatArray) -> FloatArray:
        """Sums (...) over each segment of the cosine between the text and the frames (..., F, D) (PrefVLM §4.1)."""
        return (frames @ self.text).sum(-1) * self.stride

    def dynamics(self, starts: IntArray, frames: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Consecutive frames of segments, before (m, D) and after (m, D), and the mean action (m, A) between them.

        With a stride of 1, these are the paper's (o_t, o_{t+1}, a_t).
        """
        steps = frame_steps(starts, self.length, self.stride)[..., :-1, None] + np.arange(1, self.stride + 1)
        actions = self.replay.actions.cpu().numpy()[steps].mean(-2)
        size = frames.shape[-1]
        before, after = frames[:, :, :-1].reshape(-1, size), frames[:, :, 1:].reshape(-1, size)
        return before, after, actions.reshape(-1, actions.shape[-1])

    def episode_rewards(self, episode: int) -> FloatArray:
        """Cosines (horizon,) of a complete episode; a step whose frame is not seen takes that of the next one."""
        steps = frame_steps(np.array(episode * self.replay.horizon), self.replay.horizon, self.stride)
        return np.repeat(self._fleet.features(self._run, steps) @ self.text, self.stride)
