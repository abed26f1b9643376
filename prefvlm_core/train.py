"""The loop. Read `Fleet.train` top to bottom and you have seen the whole way of the data.

Many runs (tasks, methods, seeds) are trained in lock step as one fleet; a single run is a fleet of one. No run's result
depends on its companions, beyond the float rounding of batched matrix products.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from prefvlm_core.agent.exploration import RunningStd
from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.memory import keep_freed_memory
from prefvlm_core.common.seeding import Stream, episode_seed, generator
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.fields import per_run_fields
from prefvlm_core.config.run import Execution, RunConfig, flatten
from prefvlm_core.domains.fleet import EnvironmentFleet, default_workers
from prefvlm_core.domains.tasks import ACTION_SIZE, OBSERVATION_SIZE
from prefvlm_core.feedback import Feedback
from prefvlm_core.labelling.teacher import make_teachers
from prefvlm_core.reward.agent_rewards import AgentRewards, warm_starts
from prefvlm_core.reward.ensemble import RewardEnsemble, reward_accuracy
from prefvlm_core.reward.mrn import meta_update
from prefvlm_core.runs.directory import (
    ADAPTERS_FILE,
    FINISHED,
    RUNNING,
    FleetCheckpoint,
    RunDirectory,
    lock_runs,
    remove_checkpoints,
    unfinished,
)
from prefvlm_core.runs.manifest import describe_training
from prefvlm_core.vlm.encoder import VLMTeacher, uses_vlm

PER_RUN = per_run_fields(RunConfig)
"""Dotted fields in which runs of a fleet may differ."""


def train(configs: Sequence[RunConfig], execution: Execution | None = None) -> list[RunDirectory]:
    """Train what is not finished yet of `configs`, together, and return their run directories.

    A finished run is never touched, a fleet that was interrupted goes on from its last checkpoint and ends with the
    same numbers as one that was not. Raises `PrefVLMError` for runs that cannot share a fleet, for a results folder
    that cannot be written or that another process is using, and for a damaged checkpoint.
    """
    execution = execution or Execution()
    check_compatible(configs)
    directories = [RunDirectory(execution.results, config) for config in configs]
    with lock_runs(directories):
        waiting = unfinished(directories, execution.results)
        for directory in waiting:
            directory.open()
        if waiting:
            torch.set_num_threads(execution.threads)
            keep_freed_memory()
            with EnvironmentFleet(
                [directory.config.task for directory in waiting],
                waiting[0].config.horizon,
                execution.workers or default_workers(),
                waiting[0].config.action_repeat,
            ) as environments:
                Fleet(waiting, environments, execution).train()
        remove_checkpoints(directories, execution.results)
    return directories


def check_compatible(configs: Sequence[RunConfig]) -> None:
    """Raise `PrefVLMError` naming the first field that keeps two of the runs from sharing a fleet."""
    if not configs:
        raise PrefVLMError("A fleet needs at least one run.")
    first, *others = [flatten(dataclasses.asdict(config)) for config in configs]
    for config, other in zip(configs[1:], others, strict=True):
        for name, value in first.items():
            if other[name] != value and name not in PER_RUN:
                raise PrefVLMError(
                    f"{configs[0].run_id} and {config.run_id} cannot share a fleet: {name} is {value} in one and "
                    f"{other[name]} in the other."
                )
    if len({config.run_id for config in configs}) < len(configs):
        raise PrefVLMError("The same run is asked for twice in one fleet.")


class Fleet:
    """Runs in training: their environments, replay, reward ensembles and agents."""

    def __init__(
        self, directories: Sequence[RunDirectory], environments: EnvironmentFleet, execution: Execution
    ) -> None:
        self.directories = directories
        self.configs = [directory.config for directory in directories]
        self.environments = environments
        self.execution = execution
        self.shared = self.configs[0]  # for every field that runs of a fleet have in common
        if execution.device == "cuda" and not torch.cuda.is_available():
            raise PrefVLMError("device is cuda, but torch finds no CUDA device here; use cpu or auto.")
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if execution.device == "auto" else execution.device
        )
        self.generators = {stream: [generator(config.seed, stream) for config in self.configs] for stream in Stream}
        environments.reset([0] * len(directories))  # only to learn the sizes of snapshots and scenes
        self.replay = Replay(
            len(self.configs),
            self.shared.total_steps,
            self.shared.horizon,
            OBSERVATION_SIZE,
            ACTION_SIZE,
            environments.snapshots.shape[1],
            environments.scenes.shape[1],
            self.device,
        )
        initialisation = self.generators[Stream.INITIALISATION]
        temperatures = [config.sac.initial_temperature for config in self.configs]
        self.agent = SAC.create(
            self.shared.sac, OBSERVATION_SIZE, ACTION_SIZE, initialisation, self.device, temperatures
        )
        self.ensemble = RewardEnsemble(self.shared.reward, OBSERVATION_SIZE + ACTION_SIZE, initialisation, self.device)
        self.stopwatch = Stopwatch()
        self.checkpoint = FleetCheckpoint(execution.results, [config.run_id for config in self.configs])
        self.vlm: VLMTeacher | None = None
        if any(uses_vlm(config) for config in self.configs):
            weights = execution.vlm_weights or None
            self.vlm = VLMTeacher(self.configs, self.replay, self.checkpoint.path, self.stopwatch, weights)
        parts = self.replay, self.ensemble, self.vlm
        teachers, feedback = make_teachers(self.configs, self.replay, execution), self.generators[Stream.FEEDBACK]
        self.feedback = [
            Feedback(config, run, *parts, teachers[run], feedback[run], self.stopwatch, execution.results)
            for run, config in enumerate(self.configs)
        ]
        self.rewards = AgentRewards(self.configs, self.replay, self.ensemble)
        sources = [config.reward.source for config in self.configs]
        self.learned = torch.tensor([source == "learned" for source in sources], device=self.device)
        self.replay.rewarded_by_episode = frozenset(run for run, source in enumerate(sources) if source == "vlm")
        self.session_metrics: list[dict[str, float]] = [{} for _ in self.configs]
        self.metrics: list[list[dict[str, float]]] = [[] for _ in self.configs]
        self.updates = 0
        self.checkpointed_steps = 0

    def train(self) -> None:
        """Collect, ask, learn, evaluate, until every run has `total_steps` steps."""
        self._restore()
        for directory in self.directories:
            if not directory.finished:
                directory.write_manifest(self._manifest(RUNNING))
        with tqdm(
            total=self.shared.total_steps,
            initial=self.replay.size,
            unit="step",
            desc=f"{len(self.configs)} runs",
            disable=not self.execution.progress,
        ) as progress:
            while self.replay.size < self.shared.total_steps:
                self._episode(progress)
                self._reward_by_vlm()
                self._evaluate_if_due()
                if self.stopwatch.since_mark > self.execution.checkpoint_seconds:
                    self._save()
        self._finish()

    def _episode(self, progress: Any) -> None:
        """One episode of every run."""
        episode = self.replay.complete_episodes
        with self.stopwatch("environment"):
            seeds = [episode_seed(config.seed, episode) for config in self.configs]
            observations = torch.from_numpy(self.environments.reset(seeds)).to(self.device)
        self.replay.begin_episode(observations, self.environments.snapshots, self.environments.scenes)
        for _ in range(self.shared.horizon):
            step = self.replay.size
            actions = self._act(step, observations)
            self.environments.step_async(actions.cpu().numpy())
            for run in range(len(self.configs)):
                if self.feedback[run].due(step):
                    self._session(run)
            if step >= self.shared.exploration.random_steps and step % self.shared.sac.update_every == 0:
                with self.stopwatch("sac"):
                    self._update(step)
            with self.stopwatch("environment"):
                result = self.environments.step_wait()
            true_rewards = torch.from_numpy(result.rewards).to(self.device)
            rewards = torch.where(self.learned, self.ensemble.predict(observations, actions), true_rewards)
            observations = torch.from_numpy(result.observations).to(self.device)
            self.replay.add(actions, true_rewards, rewards, observations, result.snapshots)
            progress.update()

    def _reward_by_vlm(self) -> None:
        """Rewards of the episode that just ended, for runs whose agent is rewarded with the VLM's cosine."""
        with self.stopwatch("labels"):
            for run in sorted(self.replay.rewarded_by_episode):
                assert self.vlm is not None
                rewards = self.vlm.episode_rewards(run, self.replay.complete_episodes - 1)
                last = self.replay.size
                self.replay.rewards[run, last - len(rewards) : last] = torch.from_numpy(rewards).to(self.device)

    def _act(self, step: int, observations: Tensor) -> Tensor:
        """Exploring actions (runs, A): uniform during the random steps, the policy's afterwards."""
        policy = self.generators[Stream.POLICY]
        if step < self.shared.exploration.random_steps:
            drawn = np.stack([run.uniform(-1, 1, ACTION_SIZE).astype(np.float32) for run in policy])
            return torch.from_numpy(drawn).to(self.device)
        noise = np.stack([run.standard_normal((1, ACTION_SIZE), np.float32) for run in policy])
        return self.agent.act(observations.unsqueeze(1), torch.from_numpy(noise).to(self.device))[:, 0]

    def _update(self, step: int) -> None:
        """One gradient update of every run."""
        generators = self.generators[Stream.LEARNING]
        batch = self.replay.sample(generators, self.shared.sac.batch_size)
        noise = self._noise(generators)
        for run, config in enumerate(self.configs):
            if self.feedback[run].meta_due(step):
                row, latest = Batch(*(tensor[run : run + 1] for tensor in batch)), self.feedback[run].latest()
                parts = self.agent.of_run(run), self.ensemble, self.replay, run, row, noise[0, run : run + 1]
                self.session_metrics[run] |= meta_update(*parts, latest, config.mrn)
        self.rewards.apply(batch, step, range(len(self.configs)))
        self.updates += 1
        self.agent.update(batch, noise, self.updates % self.shared.sac.target_update_every == 0)

    def _noise(self, generators: Sequence[np.random.Generator]) -> Tensor:
        shape = (2, self.shared.sac.batch_size, ACTION_SIZE)
        drawn = np.stack([run.standard_normal(shape, np.float32) for run in generators], axis=1)
        return torch.from_numpy(drawn).to(self.device)

    def _session(self, run: int) -> None:
        """Labels, reward learning and relabelling of one run; the first session also renews its critic (PEBBLE
        §4.2)."""
        feedback = self.feedback[run]
        with self.stopwatch("labels"):
            metrics = feedback.session()
        with self.stopwatch("reward"):
            self.session_metrics[run] = metrics | feedback.learn_rewards()
            self.ensemble.relabel(self.replay, run)
        if self.configs[run].feedback.teacher == "human":  # they want to see what answers did, see human_plots
            self.directories[run].write_session_reward(
                feedback.sessions, self.ensemble.networks.of_run(run).folded()[0]
            )
        if feedback.sessions == 1:
            with self.stopwatch("sac"):
                self._renew_critic(run)

    def _renew_critic(self, run: int) -> None:
        """Values of the entropy reward mean nothing for the learned one: start the critic anew and let it catch up.

        After a warm start they do, and the critic only catches up (RIME §4.3)."""
        agent, generators = self.agent.of_run(run), [self.generators[Stream.LEARNING][run]]
        if not warm_starts(self.configs[run]):
            agent.reset_critic(self.generators[Stream.INITIALISATION][run])
        for update in range(self.configs[run].feedback.reset_updates):
            batch = self.replay.sample(generators, self.shared.sac.batch_size, run)
            self.rewards.apply(batch, self.replay.size, [run])
            agent.update(batch, self._noise(generators), update % self.shared.sac.target_update_every == 0)

    def _evaluate_if_due(self) -> None:
        step, evaluation = self.replay.size, self.shared.evaluation
        last = step == self.shared.total_steps
        if step % evaluation.every and not last:
            return
        with self.stopwatch("evaluation"):
            outcome = self._evaluate(evaluation.final_episodes if last else evaluation.episodes)
        for run, (config, feedback) in enumerate(zip(self.configs, self.feedback, strict=True)):
            accuracy = float("nan")
            if feedback.sessions:
                held_out = generator(config.seed, Stream.HELD_OUT, step)
                accuracy = reward_accuracy(self.replay, run, self.ensemble, config, held_out)
            row = {"step": step} | {name: float(values[run]) for name, values in outcome.items()}
            row |= {
                "human_labels": feedback.human_labels,
                "vlm_labels": len(feedback.kept),
                "reward_accuracy": accuracy,
            }
            if (bonus := self.rewards.bonus[run]) is not None:
                row["bonus"] = float(bonus)
            row |= {"temperature": float(self.agent.log_temperature[run].exp())} | self.session_metrics[run]
            self.metrics[run].append(row | self.stopwatch.columns())
            self.directories[run].write_metrics(self.metrics[run])
            if len(feedback.log.rows):
                self.directories[run].write_labels(feedback.log.frame())

    def _evaluate(self, episodes: int) -> dict[str, np.ndarray]:
        """Deterministic policies on initial states of their own: mean over episodes, per run.

        success: any step of the episode meets the task's test (as B-Pref, RIME and the Meta-World paper count);
        success_last_step: its last step does; episode_return: sum of true rewards over environment steps.
        """
        outcome = {name: np.zeros(len(self.configs)) for name in ("success", "success_last_step", "episode_return")}
        for episode in range(episodes):
            seeds = [episode_seed(config.seed, episode, evaluation=True) for config in self.configs]
            observations = self.environments.reset(seeds)
            succeeded = np.zeros(len(self.configs), bool)
            for _ in range(self.shared.horizon):
                actions = self.agent.act(torch.from_numpy(observations).to(self.device).unsqueeze(1))[:, 0]
                self.environments.step_async(actions.cpu().numpy())
                result = self.environments.step_wait()
                observations = result.observations
                succeeded |= result.successes
                outcome["episode_return"] += result.rewards * self.shared.action_repeat
            outcome["success"] += succeeded
            outcome["success_last_step"] += result.successes
        return {name: total / episodes for name, total in outcome.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of fixed shape that training changes; restored in place."""
        parts: dict[str, SAC | RewardEnsemble | RunningStd] = {"agent": self.agent, "ensemble": self.ensemble}
        parts["entropy_scale"] = self.rewards.entropy_scale
        return {f"{part}.{name}": tensor for part, holder in parts.items() for name, tensor in holder.state().items()}

    def _save(self) -> None:
        """Commit everything that a resumed fleet needs, at the end of an episode (environments are about to be
        reset)."""
        tensors = self._tensors() | {"rewards": self.replay.rewards[:, : self.replay.size]}
        labels = []
        for run, feedback in enumerate(self.feedback):
            arrays, scalars = feedback.state()
            tensors |= {f"feedback.{run}.{name}": array for name, array in arrays.items()}
            labels.append(scalars)
        state = {
            "updates": self.updates,
            "feedback": labels,
            "session_metrics": self.session_metrics,
            "seconds": self.stopwatch.seconds,
            "seconds_by_part": self.stopwatch.parts,
            "generators": {
                stream.name: [run.bit_generator.state for run in runs] for stream, runs in self.generators.items()
            },
        }
        gained = self.replay.piece(self.checkpointed_steps, self.replay.size)
        self.checkpoint.save(self.replay.size, tensors, gained, state)
        self.checkpointed_steps = self.replay.size
        self.stopwatch.mark()

    def _restore(self) -> None:
        """Go back to the last checkpoint, if there is one."""
        loaded = self.checkpoint.load()
        if loaded is None:
            return
        step, tensors, pieces, state = loaded
        for piece in pieces:
            self.replay.append_piece(piece)
        if self.replay.size != step:
            raise PrefVLMError(
                f"{self.checkpoint.path} is damaged: it holds {self.replay.size} of {step} steps; "
                "remove it to start again."
            )
        self.replay.rewards[:, :step] = tensors["rewards"].to(self.device)
        for name, tensor in self._tensors().items():
            tensor.copy_(tensors[name])
        for run, feedback in enumerate(self.feedback):
            arrays = {name: tensors[f"feedback.{run}.{name}"] for name in feedback.state()[0]}
            feedback.restore(arrays, state["feedback"][run])
            self.metrics[run] = [row for row in self.directories[run].read_metrics() if row["step"] <= step]
        for stream, generators in self.generators.items():
            for one, stored in zip(generators, state["generators"][stream.name], strict=True):
                one.bit_generator.state = stored
        self.updates, self.session_metrics = state["updates"], state["session_metrics"]
        self.stopwatch.resume(state["seconds"], state["seconds_by_part"])
        self.checkpointed_steps = step

    def _finish(self) -> None:
        """Store the trained networks and declare the runs finished; a kill in between leaves the last checkpoint."""
        self._save()
        for run, directory in enumerate(self.directories):
            directory.write_weights(
                {"actor": self.agent.actor.values[run], "critic": self.agent.critic.values[run]}
                | {"reward": self.ensemble.networks.of_run(run).folded()[0]}
            )
            adapters = self.feedback[run].adapters
            if adapters is not None and self.vlm is not None:
                adapters.save(directory.path / ADAPTERS_FILE, self.vlm.fingerprint(run))
        for directory in self.directories:
            directory.write_manifest(self._manifest(FINISHED))
        if self.vlm is not None:
            self.vlm.close()

    def _manifest(self, status: str) -> dict[str, Any]:
        fleet = [config.run_id for config in self.configs]
        return describe_training(self.execution, self.device, self.environments.workers) | {
            "status": status,
            "fleet": fleet,
            "seconds": round(self.stopwatch.seconds, 1),
        }
