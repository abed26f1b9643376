"""Exploration: the k-nearest-neighbor state entropy as reward (PEBBLE §4.1), and RUNE's bonus for uncertain rewards.

RUNE (Liang et al. 2022, arXiv 2205.12401) adds the standard deviation over the reward ensemble's members to their mean,
with a weight that decays geometrically with the steps. Here, as in the original code, the weight decays
from step 0 on, although the bonus is paid only after the first labels: with the decay of 1e-3 that some of RUNE's
commands use, almost nothing is left by then. The original code stores the standard deviation with each transition and
relabels it; here it is computed when a batch is drawn, which gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.policy import FleetPolicy
from prefvlm_core.agent.transfers import to_device


def exploring_actions(
    policy: FleetPolicy, observations: Tensor, generators: Sequence[np.random.Generator], random: bool
) -> Tensor:
    """Actions (runs, A) for observations (runs, O): uniform in [-1, 1] if `random`, else sampled from the policies."""
    size = policy.action_size
    if random:
        drawn = np.stack([run.uniform(-1, 1, size).astype(np.float32) for run in generators])
        return to_device(drawn, observations.device)
    noise = np.stack([run.standard_normal(size, np.float32) for run in generators])
    return policy.sample(observations, to_device(noise, observations.device))


def nearest_neighbour_distance(queries: Tensor, references: Tensor, neighbours: int) -> Tensor:
    """Euclidean distance (n,) of each query (n, O) to its k-th nearest reference (m, O) other than itself.

    Every query must be among the references. As in B-Pref, the result is therefore the (k + 1)-th smallest distance;
    with fewer than k + 1 references, it is the distance to the farthest one.
    """
    # The expansion |a|² + |b|² - 2ab is four times faster than differences; centering limits its loss of digits.
    center = references.mean(0)
    distances = torch.cdist(queries - center, references - center, compute_mode="use_mm_for_euclid_dist")
    nearest = distances.topk(min(neighbours + 1, len(references)), dim=-1, largest=False)
    return nearest.values.amax(-1)


def disagreement_bonus(rewards: Tensor, weight: float, decay: float, step: int) -> Tensor:
    """RUNE's bonus (n,) for transitions, from the members' rewards (members, n) at step `step` of the run.

    It is weight * (1 - decay)^step times the population standard deviation over the members, as in the original code.
    """
    return weight * (1 - decay) ** step * rewards.std(0, correction=0)


class RunningStd:
    """The standard deviation of all values seen by each run, by the parallel update of Chan et al.

    B-Pref divides by the same quantity, but updates its running mean with a sum where a product is meant; here the
    update is exact.
    """

    def __init__(self, runs: int, device: torch.device) -> None:
        self.count = torch.zeros(runs, dtype=torch.float64, device=device)
        self.mean = torch.zeros_like(self.count)
        self.squares = torch.zeros_like(self.count)

    def update(self, run: int, values: Tensor) -> Tensor:
        """Add `values` (n,) of one run. Returns that run's standard deviation so far, or 1 if it is 0, () float64."""
        values = values.double()
        delta = values.mean() - self.mean[run]
        total = self.count[run] + len(values)
        self.squares[run] += (values - values.mean()).square().sum() + delta**2 * self.count[run] * len(values) / total
        self.mean[run] += delta * len(values) / total
        self.count[run] = total
        std = (self.squares[run] / total).sqrt()
        return torch.where(std == 0, torch.ones_like(std), std)  # as a tensor: nobody waits for the device

    def state(self) -> dict[str, Tensor]:
        """Every tensor that `update` changes, by name; copy into them to restore."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}
