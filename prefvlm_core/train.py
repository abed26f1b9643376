"""Training. Read `Fleet.train` and the methods below it from top to bottom to follow the data through the whole method.

In each step, the agent acts, the environment returns an observation and the true reward, and the transition enters the
replay (`_episode`). Every few hundred steps a feedback session collects labels of pairs of segments, the reward
ensemble learns from them and the replay is relabeled (`_sessions`). The agent learns from the relabeled replay
(`_update`) and is evaluated on the true reward (`_evaluate_if_due`).

Many runs (tasks, methods, seeds) are trained in lock step as one fleet; a single run is a fleet of one. The result of a
run does not depend on the other runs of its fleet, beyond the float rounding of batched matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from prefvlm_core.agent.evaluation import Evaluator
from prefvlm_core.agent.exploration import exploring_actions
from prefvlm_core.agent.policy import FleetPolicy
from prefvlm_core.agent.replay import make_replay
from prefvlm_core.agent.sac import SAC
from prefvlm_core.agent.transfers import HostCopy, to_device
from prefvlm_core.agent.updates import make_updates
from prefvlm_core.checks.start import check_start
from prefvlm_core.common.machine import learner_settings, memory_errors, usable_cores
from prefvlm_core.common.memory import keep_freed_memory
from prefvlm_core.common.progress import paused, tqdm
from prefvlm_core.common.seeding import Generators, Stream, episode_seed
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.domains.fleet import EnvironmentFleet, default_workers
from prefvlm_core.domains.registry import domain_of
from prefvlm_core.evaluations import Evaluations, Progress
from prefvlm_core.feedback import evaluation_columns, make_feedback
from prefvlm_core.preferences.teachers import HUMAN
from prefvlm_core.reward.agent_rewards import AgentRewards, warm_starts
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.reward.learning import learn_together
from prefvlm_core.reward.mrn import meta_update
from prefvlm_core.runs.checkpoint import FleetCheckpoint, lock_runs, remove_checkpoints, unfinished
from prefvlm_core.runs.directory import FINISHED, RUNNING, RunDirectory
from prefvlm_core.runs.fleet_state import FleetState, InPlace, Part
from prefvlm_core.runs.manifest import describe_training
from prefvlm_core.runs.tensorboard import curves_of
from prefvlm_core.vlm import distributions_of
from prefvlm_core.vlm.encoder import FleetEncoder

_PATIENCE = 0.005
"""Seconds for which environments and learner wait for each other without sleeping where updates take place on a GPU:
longer than an update of most fleets takes there."""


def train(configs: Sequence[RunConfig], execution: Execution | None = None) -> list[RunDirectory]:
    """Train those of `configs` that are not finished together as one fleet, and return the run directories of all.

    Finished runs are never changed. An interrupted fleet continues from its last checkpoint and ends with the same
    numbers as an uninterrupted one. Raises `PrefVLMError` for whatever `check_start` finds, before anything is
    written; for a results folder that cannot be written or that another process is using, for a damaged checkpoint, and
    when the memory runs out. What raises before the first checkpoint leaves no folder that was not there before.
    """
    execution = execution or Execution()
    check_start(configs, execution)
    directories = [RunDirectory(execution.results, config) for config in configs]
    with lock_runs(unfinished(directories, execution.results), execution.results):  # finished ones may be read-only
        waiting = unfinished(directories, execution.results)  # another process may have finished some meanwhile
        for directory in waiting:
            directory.open()
        if waiting:
            keep_freed_memory()
            with (
                learner_settings(execution.threads),
                memory_errors(),
                EnvironmentFleet(
                    [directory.config.task for directory in waiting],
                    waiting[0].config.horizon,
                    execution.workers or default_workers(),
                    waiting[0].config.action_repeat,
                    _PATIENCE if execution.torch_device().type == "cuda" else 0.0,
                ) as environments,
                curves_of(waiting if execution.tensorboard else []),
            ):
                Fleet(waiting, environments, execution).train()
        remove_checkpoints(directories, execution.results)
    return directories


class Fleet:
    """Runs in training: their environments, replay, agents, reward ensembles, feedback sessions and metrics."""

    def __init__(
        self, directories: Sequence[RunDirectory], environments: EnvironmentFleet, execution: Execution
    ) -> None:
        self.directories, self.environments, self.execution = directories, environments, execution
        self.configs = [directory.config for directory in directories]
        self.shared = self.configs[0]  # for the fields that all runs of a fleet have in common
        self.device = execution.torch_device()
        self.generators = Generators([config.seed for config in self.configs])
        self.stopwatch = Stopwatch()
        self.replay = make_replay(self.configs, environments, self.device)
        initialization = self.generators[Stream.INITIALISATION]
        temperatures = [config.sac.initial_temperature for config in self.configs]
        shared, sizes = self.shared, environments.sizes
        self.agent = SAC.create(shared.sac, sizes.observation, sizes.action, initialization, self.device, temperatures)
        self.policy = FleetPolicy(self.agent)
        self.updates = make_updates(self.agent, self.replay, self.generators, [config.seed for config in self.configs])
        checkpoint = FleetCheckpoint(execution.results, [config.run_id for config in self.configs])
        cache = execution.cache_folder(checkpoint.path)
        self.encoder = FleetEncoder(
            self.configs, self.replay, environments, cache, self.stopwatch, execution.vlm_weights
        )
        self.ensemble = RewardEnsemble(shared.reward, self.replay.input_size, initialization, self.device, shared.task)
        self.rewards = AgentRewards(self.configs, self.replay, self.ensemble)
        self.feedback = make_feedback(
            self.configs, self.replay, self.ensemble, self.encoder, self.generators, self.stopwatch, execution
        )
        seeds, at_once = [config.seed for config in self.configs], self.updates.launched
        beside = not at_once and execution.workers != 1 and usable_cores() > 1
        evaluator = Evaluator(self.policy, environments, seeds, shared.action_repeat, at_once, beside)
        self.progress = Progress(0, [{} for _ in self.configs], [[] for _ in self.configs])
        self.evaluations = Evaluations(evaluator, self.progress, directories, self.feedback, self.stopwatch)
        parts: dict[str, Part] = {f"feedback.{run}": feedback for run, feedback in enumerate(self.feedback)}
        parts |= {name: InPlace(getattr(self, name)) for name in ("agent", "ensemble", "rewards")}
        parts |= {"generators": self.generators, "stopwatch": self.stopwatch, "progress": self.progress}
        self.state = FleetState(checkpoint, self.replay, parts)

    def train(self) -> None:
        """Train every run for `total_steps` actions, from its last checkpoint if there is one, and store it."""
        if self.state.restore():
            self.evaluations.write()
            episodes = range(self.replay.complete_episodes)
            for episode in tqdm(episodes, "embedding", unit="episode", delay=5, disable=not self.execution.progress):
                self.encoder.embed_episode(episode)
        for run, directory in enumerate(self.directories):
            if not directory.finished:
                directory.write_manifest(self._manifest(run, RUNNING))
        with tqdm(
            total=self.shared.total_steps,
            initial=self.replay.size,
            unit="action",
            desc=f"{len(self.configs)} runs",
            disable=not self.execution.progress,
        ) as progress:
            while self.replay.size < self.shared.total_steps:
                self._episode(progress)
                with self.stopwatch("labels"):
                    episode = self.replay.complete_episodes - 1
                    self.encoder.reward_episode(episode)
                    self.encoder.embed_episode(episode)
                    self.rewards.reward_episode(episode)
                self.evaluations.collect()
                self._evaluate_if_due()
                if self.stopwatch.since_mark > self.execution.checkpoint_seconds:
                    self._save()
        self._finish()

    def _episode(self, progress: tqdm) -> None:
        """Act for one episode in every run; sessions and updates take place between its steps."""
        episode = self.replay.complete_episodes
        with self.stopwatch("environment"):
            seeds = [episode_seed(config.seed, episode) for config in self.configs]
            observations = to_device(self.environments.reset(seeds), self.device)
        self.replay.begin_episode(observations, self.environments.snapshots, self.environments.scenes)
        for _ in range(self.shared.horizon):
            step = self.replay.size
            random = step < self.shared.exploration.random_steps
            actions = exploring_actions(self.policy, observations, self.generators[Stream.POLICY], random)
            arriving = HostCopy(actions)
            if due := [run for run, feedback in enumerate(self.feedback) if feedback.due(step)]:
                self._sessions(due, progress)
            update_due = not random and step % self.shared.sac.update_every == 0
            if update_due and self.updates.launched:
                self._update(step)
            self.environments.step_async(arriving.array())  # the environments step while the learner works
            if update_due and not self.updates.launched:
                self._update(step)
            with self.stopwatch("environment"):
                result = self.environments.step_wait()
            true_rewards = to_device(result.rewards, self.device)
            rewards = self.rewards.of_step(observations, actions, true_rewards)
            observations = to_device(result.observations, self.device)
            self.replay.add(actions, true_rewards, rewards, observations, result.snapshots)
            progress.update()
        self.agent.observe(self.replay.observations[:, episode])

    def _update(self, step: int) -> None:
        """Update the agent of every run by one gradient step, after meta-updates of the ensembles where due (MRN)."""
        with self.stopwatch("sac"):
            drawn = self.updates.draw(self.progress.updates)
            for run, config in enumerate(self.configs):
                if self.feedback[run].meta_due(step):
                    self.progress.session_metrics[run] |= meta_update(
                        self.agent.of_run(run),
                        self.ensemble.of_run(run),
                        self.replay.of_run(run),
                        drawn.batch.of_run(run),
                        drawn.noise[0, run : run + 1],
                        self.feedback[run].latest(),
                        config.mrn.outer_weight,
                    )
            self.rewards.apply(drawn.batch, step, range(len(self.configs)))
            self.progress.updates += 1
            self.updates.update(self.progress.updates % self.shared.sac.target_update_every == 0)

    def _sessions(self, runs: Sequence[int], progress: tqdm) -> None:
        """Collect labels of some runs, fit their rewards and relabel their replays; after the first session of a run
        renew its critic."""
        metrics = {run: self._collect_labels(run, progress) for run in runs}
        with self.stopwatch("reward"):
            learnings = {run: self.feedback[run].learn_rewards() for run in runs}
            learned = learn_together(self.ensemble, self.replay, learnings, at_once=self.updates.launched)
        for run in runs:
            self.progress.session_metrics[run] = metrics[run] | learned[run]
            if self.configs[run].feedback.teacher == HUMAN:  # notebook 07 plots the reward after each session
                reward = self.ensemble.of_run(run).networks.folded()[0]
                self.directories[run].write_session_reward(self.feedback[run].sessions, reward)
            if self.feedback[run].sessions == 1:
                with self.stopwatch("sac"):
                    self._renew_critic(run)

    def _collect_labels(self, run: int, progress: tqdm) -> dict[str, float]:
        asks_people = self.configs[run].feedback.teacher == HUMAN
        with self.stopwatch("labels"), paused(progress) if asks_people else nullcontext():
            return self.feedback[run].session()

    def _renew_critic(self, run: int) -> None:
        """Adjust a run's critic to the learned reward by `reset_updates` updates of the agent.

        The critic starts afresh because its values of the entropy reward mean nothing for the learned one (PEBBLE
        §4.2). After a warm start they do, so the critic is kept (RIME §4.3).
        """
        agent = self.agent.of_run(run)
        if not warm_starts(self.configs[run]):
            agent.reset_critic(self.generators[Stream.INITIALISATION][run])
        for update in range(self.configs[run].feedback.reset_updates):
            drawn = self.updates.draw_of_run(run, update)
            self.rewards.apply(drawn.batch, self.replay.size, [run])
            agent.update(drawn.batch, drawn.noise, update % self.shared.sac.target_update_every == 0)

    def _evaluate_if_due(self) -> None:
        """Every `evaluation.every` steps and at the end, evaluate all agents and write the metrics and the labels."""
        step, evaluation = self.replay.size, self.shared.evaluation
        last = step == self.shared.total_steps
        if step % evaluation.every and not last:
            return
        columns = [
            evaluation_columns(feedback, step) | self.rewards.columns(run) | self.agent.columns(run) | sessions
            for run, (feedback, sessions) in enumerate(zip(self.feedback, self.progress.session_metrics, strict=True))
        ]
        self.evaluations.begin(step, evaluation.final_episodes if last else evaluation.episodes, columns)

    def _save(self) -> None:
        """Write a checkpoint at the end of an episode, where the environments have no state because a reset follows."""
        self.evaluations.end()
        for directory in self.directories:
            directory.check_lock()
        self.state.save()
        self.stopwatch.mark()

    def _finish(self) -> None:
        """Store the results and mark the runs as finished. A kill in between leaves the last checkpoint."""
        self._save()
        self.evaluations.write()
        for run, directory in enumerate(self.directories):
            directory.write_weights(
                {"actor": self.agent.actor.of_run(run).folded()[0], "critic": self.agent.critic.of_run(run).folded()[0]}
                | {"reward": self.ensemble.of_run(run).networks.folded()[0]}
            )
            if (vlm := self.feedback[run].vlm) is not None:
                vlm.save(directory.path)
            if self.execution.keep_replay:
                directory.write_replay({name: of[run] for name, of in self.replay.piece(0, self.replay.size).items()})
        for run, directory in enumerate(self.directories):
            directory.write_manifest(self._manifest(run, FINISHED) | directory.row_hashes())
        self.encoder.close()

    def _manifest(self, run: int, status: str) -> dict[str, Any]:
        config = self.configs[run]
        distributions = domain_of(config.task).distributions + distributions_of(config)
        return describe_training(self.execution, self.device, self.environments.workers, distributions) | {
            "status": status,
            "fleet": [config.run_id for config in self.configs],
            "seconds": round(self.stopwatch.seconds, 1),
            **self.encoder.description(run),
            "pairs_left_open": self.feedback[run].budget.waiting,
        }
