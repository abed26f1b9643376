"""The agent's rewards between sessions: those of new steps, and those that are computed for each batch instead of
stored in the replay: the state entropy before the first labels (PEBBLE §4.1, RIME §4.3), and RUNE's bonus after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefvlm_core.agent.captured import CapturedFunction
from prefvlm_core.agent.exploration import RunningStd, disagreement_bonus, nearest_neighbour_distance
from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import Batch
from prefvlm_core.config.run import RunConfig
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.reward.rime import normalised_entropy, warm_start


class AgentRewards:
    """Rewrites the rewards of a fleet's batches where a run explores by state entropy or by RUNE's bonus."""

    def __init__(self, configs: Sequence[RunConfig], replay: Replay, ensemble: RewardEnsemble) -> None:
        self.configs, self.replay, self.ensemble = configs, replay, ensemble
        learned = [config.reward.source == "learned" for config in configs]
        self.learned = torch.tensor(learned).to(replay.rewards.device)
        self._any_learned = any(learned)
        self._predict = CapturedFunction(ensemble.predict, replay.rewards.device)
        self.replays = [replay.of_run(run) for run in range(len(configs))]
        self.ensembles = [ensemble.of_run(run) for run in range(len(configs))]
        self.entropy_scale = RunningStd(len(configs), replay.actions.device)
        self.bonus: list[Tensor | None] = [None] * len(configs)
        """The mean bonus of each run's latest batch; None if the run has had none."""

    def of_step(self, observations: Tensor, actions: Tensor, true_rewards: Tensor) -> Tensor:
        """Rewards (runs,) of a step, which the replay stores.

        Where they depend on the frame after it, they are the true ones until the episode ends, and not sampled before.
        """
        if self.replay.embeddings is not None or not self._any_learned:
            return true_rewards
        return torch.where(self.learned, self._predict(observations, actions), true_rewards)

    def reward_episode(self, episode: int) -> None:
        """Write the rewards of a complete episode for the runs whose reward ensemble sees frames."""
        for config, replay, ensemble in zip(self.configs, self.replays, self.ensembles, strict=True):
            if config.reward.embedded:
                ensemble.relabel(replay, since=episode * replay.horizon)

    def apply(self, batch: Batch, step: int, runs: Sequence[int]) -> None:
        """Rewrite the rewards of `batch`, whose rows belong to `runs`, before an update at step `step`."""
        for row, run in enumerate(runs):
            config, observations = self.configs[run], batch.observations[row]
            if config.reward.source != "learned":
                continue
            if step < config.first_session_step:
                batch.rewards[row] = self._entropy(run, observations, batch.actions[row])
            elif config.exploration.bonus:
                inputs = torch.cat((observations, batch.actions[row]), -1)
                batch.rewards[row] += self._bonus(run, inputs, step)

    def columns(self, run: int) -> dict[str, float]:
        """Columns of one run for metrics.csv."""
        bonus = self.bonus[run]
        return {} if bonus is None else {"bonus": float(bonus)}

    def state(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name."""
        return self.entropy_scale.state()

    @torch.no_grad()
    def _bonus(self, run: int, inputs: Tensor, step: int) -> Tensor:
        exploration = self.configs[run].exploration
        rewards = self.ensembles[run].member_rewards(inputs)
        bonus = disagreement_bonus(rewards, exploration.bonus, exploration.bonus_decay, step)
        self.bonus[run] = bonus.mean()
        return bonus

    def _entropy(self, run: int, observations: Tensor, actions: Tensor) -> Tensor:
        """Rewards (batch,) of a run before its first session; with RIME's warm start, the ensemble also learns them."""
        config = self.configs[run]
        seen = self.replays[run].seen_observations()
        distance = nearest_neighbour_distance(observations, seen, config.exploration.neighbours)
        std = self.entropy_scale.update(run, distance)
        if not warm_starts(config):
            return distance / std
        entropy = normalised_entropy(distance, self.entropy_scale.mean[run], std)
        inputs = torch.cat((observations, actions), -1)
        warm_start(self.ensembles[run], inputs, entropy, config.rime.warm_start_updates)
        return entropy


def warm_starts(config: RunConfig) -> bool:
    """Whether the ensemble learns before the first labels, so that the critic is kept after them (RIME §4.3)."""
    return config.reward.learning == "rime" and config.rime.warm_start_updates > 0
