"""Episodes to look at: who acts in them, what a camera sees of them, and what every reward says of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import torch

from prefvlm_core.agent.sac import SAC
from prefvlm_core.analysis.sanity import ACTION_NOISE
from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.domains.experts import Behavior, Expert, RandomActions
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import CLEAN, Perturbation
from prefvlm_core.domains.registry import domain_of, sizes_of
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.runs.directory import ADAPTERS_FILE, WEIGHTS_FILE, RunDirectory
from prefvlm_core.runs.files import read_tensors
from prefvlm_core.runs.stored import find_folders
from prefvlm_core.vlm import VisionLanguageModel
from prefvlm_core.vlm.adaptation import RETURN_SCALE, FrameAdapter
from prefvlm_core.vlm.labeller import ADAPTERS
from prefvlm_core.vlm.pretraining.recordings import FRAME_EVERY, Episodes, at_frames, play

EXPERT, NOISY, RANDOM, POLICY = "expert", "noisy expert", "random actions", "the run's policy"
ZERO_SHOT, ADAPTED, LEARNED, TRUE = SCORES = ("VLM, zero-shot", "VLM, adapted", "learned reward", "true reward")


@dataclass(frozen=True)
class Played:
    """One episode of 200 environment steps."""

    episodes: Episodes
    """The episode, alone."""
    observations: FloatArray
    """(200, O): what was seen before each step, with the goal hidden, as in training."""


def runs_with_weights(task: str, profile: str, results: Path) -> list[RunDirectory]:
    """Finished runs on a task whose folders hold their networks; published tables do not."""
    folders = find_folders(results, profile)
    return [
        folder
        for folder in folders
        if folder.config.task == task and not folder.retired and (folder.path / WEIGHTS_FILE).exists()
    ]


def behaviors(task: str) -> list[str]:
    """Who can act on a task without a stored policy: not every task has a scripted expert."""
    return [*([EXPERT, NOISY] if domain_of(task).expert(task) else []), RANDOM]


def play_behavior(task: str, behavior: str, seed: int, run: RunDirectory | None = None) -> Played:
    """An episode of a task from the initial state that `seed` determines.

    `behavior` is `EXPERT`, `NOISY`, `RANDOM` or, with a `run`, `POLICY`; `seed` draws the noise as well.
    """
    generator, observations = np.random.default_rng(seed), []
    acts: Behavior
    if behavior == POLICY:
        assert run is not None
        acts = policy_of(run)
    elif behavior == RANDOM:
        acts = RandomActions(task, generator)
    else:
        acts = Expert(task, ACTION_NOISE if behavior == NOISY else 0.0, generator)

    def watched(observation: np.ndarray, step: int) -> np.ndarray:
        observations.append(domain_of(task).without_goal(observation).astype(np.float32))
        return acts(observation, step)

    episodes = play(task, [(watched, seed)])
    return Played(episodes, np.stack(observations))


def policy_of(run: RunDirectory) -> Behavior:
    """The deterministic policy of a stored run, which repeats each action as in training. Raises `PrefVLMError` where
    its weights are damaged."""
    config, generators = run.config, [np.random.default_rng(0)]
    sizes = sizes_of(config.task)
    agent = SAC.create(config.sac, sizes.observation, sizes.action, generators, torch.device("cpu"), [1.0])
    agent.actor.values.copy_(_stored(run, "actor"))
    held = np.zeros(sizes.action, np.float32)

    def act(observation: np.ndarray, step: int) -> np.ndarray:
        if step % config.action_repeat == 0:
            seen = domain_of(config.task).without_goal(observation).astype(np.float32)
            held[:] = agent.act(torch.from_numpy(seen).view(1, 1, -1))[0, 0].numpy()
        return held.copy()

    return act


@torch.no_grad()
def learned_rewards(run: RunDirectory, played: Played) -> FloatArray | None:
    """The reward (40,) that a run has learned of the steps that the frames show; None where it has learned none, or
    from frames. In a run with repeated actions, a step is the one that began with the repeats."""
    config = run.config
    if config.reward.source != "learned" or config.reward.embedded:
        return None
    generators = [np.random.default_rng(0)]
    ensemble = RewardEnsemble(
        config.reward,
        played.observations.shape[-1] + sizes_of(config.task).action,
        generators,
        torch.device("cpu"),
        config.task,
    )
    ensemble.networks.values.copy_(_stored(run, "reward"))
    inputs = np.concatenate((played.observations, played.episodes.actions[0]), axis=1)[:: config.action_repeat]
    rewards = ensemble.of_run(0).member_rewards(torch.from_numpy(inputs)).mean(0).numpy()
    return at_frames(np.repeat(rewards, config.action_repeat)[: len(played.observations)])


def adapters_of(run: RunDirectory, model: VisionLanguageModel, dimension: int) -> FrameAdapter | None:
    """The adapters that a run has learned on top of a model's embeddings (D = `dimension`); None where it has none on
    top of this one."""
    path = run.path / ADAPTERS_FILE
    if not path.exists() or read_tensors(path).metadata.get("backbone") != model.fingerprint:
        return None
    kind = ADAPTERS[run.config.adapter.kind]
    return kind.read(
        path, model.fingerprint, run.config.adapter, dimension, sizes_of(run.config.task).action, torch.device("cpu")
    )


def scores(
    played: Played, frames: ImageArray, model: VisionLanguageModel, run: RunDirectory | None = None
) -> pandas.DataFrame:
    """What each reward says of an episode whose frames (40, size, size, 3) a model sees: index environment step
    (counted from 1), columns those of `SCORES` that there are.

    The VLM's are cosines of frame and task (PrefVLM §4.1), the adapted one where `run` has adapters on top of `model`
    that its cross-validation accepts; the true reward is Meta-World's, 0 to 10.
    """
    task, features = model.encode_task(played.episodes.task), model.encode_image(frames)
    table = {ZERO_SHOT: features @ task}
    if run is not None:
        adapters = adapters_of(run, model, len(task))
        if adapters is not None and adapters.accepted:
            single = np.repeat(features[:, None, None], 2, axis=1)  # each frame as a segment, in a pair with itself
            table[ADAPTED] = adapters.returns(task, single)[:, 0] / RETURN_SCALE
        if (learned := learned_rewards(run, played)) is not None:
            table[LEARNED] = learned
    table[TRUE] = at_frames(played.episodes.rewards[0])
    steps = np.arange(FRAME_EVERY, played.episodes.rewards.shape[1] + 1, FRAME_EVERY)
    return pandas.DataFrame(table, index=pandas.Index(steps, name="step"))


class Camera:
    """Renders frames of episodes, in whatever scene is asked for; always in the same thread, like every renderer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._renderer: FrameRenderer | None = None
        self._scene = CLEAN

    def see(self, episodes: Episodes, frames: slice, scene: Perturbation) -> ImageArray:
        """Frames (n, size, size, 3) of the only episode of `episodes`."""
        if self._renderer is None or self._renderer.task != episodes.task:
            if self._renderer is not None:
                self._renderer.close()
            self._renderer, self._scene = FrameRenderer(episodes.task, self.size, perturbation=scene), scene
        if scene != self._scene:
            self._renderer.look(perturbation=scene)
            self._scene = scene
        shown = episodes.snapshots[0, frames]
        return self._renderer.render(shown, np.repeat(episodes.scenes, len(shown), axis=0))


def _stored(run: RunDirectory, name: str) -> torch.Tensor:
    """The parameters of one kind of a run's networks, as of a fleet of one."""
    return read_tensors(run.path / WEIGHTS_FILE).tensors[name].unsqueeze(0)
