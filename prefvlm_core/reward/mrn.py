"""MRN (Liu et al. 2022, Meta-Reward-Net, NeurIPS): bi-level updates of the reward ensemble through the critic.

Now and then, while labels remain, the ensemble takes one gradient step that would make the critic, after one step of
its own on the ensemble's rewards, order labelled pairs as the human did: inner step, plain gradient descent on the
temporal-difference loss of a copy of the critic; outer loss, Bradley–Terry on the Q-values of each segment's first
transition, of both critics (MRN §4, its Algorithm 1). The agent's own update follows on the same batch with the new
rewards, and everything seen is relabelled.

Deliberate deviations from the reference code: its outer loss reads labels that were never written when the first
session brought fewer than a batch, here it takes those that exist; its meta-update treats the time limit as the end of
the task although its other updates do not, here none does. Kept as there: the copy of the critic takes a plain step
although the critic itself is trained by Adam, and there are no meta-updates once the budget is spent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefvlm_core.agent.networks import StackedMLP
from prefvlm_core.agent.replay import RunReplay
from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.preferences.pairs import PreferenceBuffer, bradley_terry_loss
from prefvlm_core.reward.ensemble import RunEnsemble


def outer_loss(
    critic: StackedMLP,
    inputs: Tensor,
    targets: Tensor,
    learning_rate: float,
    first_inputs: Tensor,
    labels: Tensor,
) -> Tensor:
    """Loss of one run's critics on labelled pairs, after one gradient step towards `targets`; differentiable in those.

    inputs (b, O + A) and targets (b,): transitions of the inner step. first_inputs (n, 2, O + A): the first transition
    of both segments, labels (n,). The critic itself is not changed. Returns a scalar, the sum over the critics.
    """
    predicted = critic(inputs.unsqueeze(0))[0, :, :, 0]
    inner = (predicted - targets).square().mean(-1).sum()
    parameters = [parameter for layer in critic.layers for parameter in layer]
    gradients = torch.autograd.grad(inner, parameters, create_graph=True)
    stepped = [parameter - learning_rate * slope for parameter, slope in zip(parameters, gradients, strict=True)]
    updated = critic.with_layers(list(zip(stepped[::2], stepped[1::2], strict=True)))
    values = updated(first_inputs.flatten(0, 1).unsqueeze(0))[0, :, :, 0]
    returns = values.unflatten(1, first_inputs.shape[:2])
    return bradley_terry_loss(returns, labels.expand(len(returns), -1)).mean(-1).sum()


def meta_update(
    agent: SAC,
    ensemble: RunEnsemble,
    replay: RunReplay,
    batch: Batch,
    noise: Tensor,
    buffer: PreferenceBuffer,
    outer_weight: float,
) -> dict[str, float]:
    """One meta-update of one run's ensemble; rewrites `batch.rewards` and the replay's rewards with the new ensemble's.

    agent: that run's, as a fleet of one. batch: rows of one run, (1, b, ...); noise (1, b, A): the agent's update of
    this batch uses the same. buffer: the pairs of the outer loss. Returns columns for metrics.csv.
    """
    inputs = torch.cat((batch.observations[0], batch.actions[0]), -1)
    first_inputs = replay.inputs(torch.from_numpy(buffer.starts).to(inputs.device))
    rewards = ensemble.member_rewards(inputs).mean(0)
    targets = rewards + agent.discounted_value(batch, noise)[0]
    labels = torch.from_numpy(buffer.labels).to(inputs.device)
    loss = outer_loss(agent.critic, inputs, targets, agent.config.critic_learning_rate, first_inputs, labels)
    ensemble.descend(outer_weight * loss)
    ensemble.relabel(replay)
    with torch.no_grad():
        batch.rewards[0] = ensemble.member_rewards(inputs).mean(0)
    change = (batch.rewards[0] - rewards).detach().abs().mean()
    return {"meta_loss": float(loss.detach()), "meta_reward_change": float(change)}
