"""Exploration: k-nearest-neighbour state entropy as reward (PEBBLE §4.1), and RUNE's bonus for uncertain rewards.

RUNE (Liang et al. 2022, arXiv 2205.12401) adds the standard deviation of the reward ensemble's members to their mean,
with a weight that falls geometrically with the environment steps. In the original code as here the weight falls from
step 0 on, although it matters only after the first labels: with the decay of 1e-3 that some of its commands take,
nothing is left of it by then. The original stores the deviation with each transition and relabels it; here it is
computed when a batch is drawn, which gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.sac import SAC
from prefvlm_core.domains.tasks import ACTION_SIZE


def exploring_actions(
    agent: SAC, observations: Tensor, generators: Sequence[np.random.Generator], random: bool
) -> Tensor:
    """Actions (runs, A) of a fleet for observations (runs, O): uniform where `random`, else drawn from the policies."""
    if random:
        drawn = np.stack([run.uniform(-1, 1, ACTION_SIZE).astype(np.float32) for run in generators])
        return torch.from_numpy(drawn).to(observations.device)
    noise = np.stack([run.standard_normal((1, ACTION_SIZE), np.float32) for run in generators])
    return agent.act(observations.unsqueeze(1), torch.from_numpy(noise).to(observations.device))[:, 0]


def nearest_neighbour_distance(queries: Tensor, references: Tensor, neighbours: int) -> Tensor:
    """Euclidean distance of each query (n, O) to its k-th nearest reference (m, O), itself not counted: (n,).

    Every query is expected to be among the references, as in B-Pref, which therefore takes the (k+1)-th smallest
    distance. With fewer than k + 1 references the farthest one is taken.
    """
    # Centred, the expansion |a|² + |b|² - 2ab, four times faster than differences, loses fewer digits.
    centre = references.mean(0)
    distances = torch.cdist(queries - centre, references - centre, compute_mode="use_mm_for_euclid_dist")
    nearest = distances.topk(min(neighbours + 1, len(references)), dim=-1, largest=False)
    return nearest.values.amax(-1)


def disagreement_bonus(rewards: Tensor, weight: float, decay: float, step: int) -> Tensor:
    """RUNE's bonus of transitions at environment step `step` of the run, from the members' rewards (members, n): (n,).

    weight (1 - decay)^step times the standard deviation over the members, of the population as in the original.
    """
    return weight * (1 - decay) ** step * rewards.std(0, correction=0)


class RunningStd:
    """Standard deviation of everything seen, per run, by Chan's parallel update.

    B-Pref divides by the same quantity but updates its running mean with a sum where a product is meant; here it is
    exact.
    """

    def __init__(self, runs: int, device: torch.device) -> None:
        self.count = torch.zeros(runs, dtype=torch.float64, device=device)
        self.mean = torch.zeros_like(self.count)
        self.squares = torch.zeros_like(self.count)

    def update(self, run: int, values: Tensor) -> float:
        """Take in `values` (n,) of one run; returns that run's standard deviation so far (1 if it is 0)."""
        values = values.double()
        delta = values.mean() - self.mean[run]
        total = self.count[run] + len(values)
        self.squares[run] += (values - values.mean()).square().sum() + delta**2 * self.count[run] * len(values) / total
        self.mean[run] += delta * len(values) / total
        self.count[run] = total
        return float((self.squares[run] / total).sqrt()) or 1.0

    def state(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint, by name."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}
