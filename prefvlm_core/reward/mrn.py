"""MRN (Liu et al. 2022, Meta-Reward-Net, NeurIPS): bi-level updates of the reward ensemble through the critic.

Every `mrn.meta_every` steps, as long as the budget lasts, the ensemble takes one gradient step. It descends the loss
that the critic would have on the human's labels after one step of its own on the ensemble's rewards (MRN §4,
Algorithm 1):

- Inner step: plain gradient descent of a copy of the critic on its temporal-difference loss.
- Outer loss: Bradley–Terry on the Q-values that both critics give to the first transition of each segment.

The agent's own update follows on the same batch with the new rewards, and the whole replay is relabeled.

Deliberate deviations from the reference code:
- If the first session brings less than a batch of labels, its outer loss reads labels that were never written; here it
  takes the existing ones.
- Its meta-update treats the time limit as the end of the task, although its other updates do not; here none does.
- Its outer loss reads the labels of the latest session. Here it reads `feedback.session_queries` of the newest ones:
  as many with a fixed schedule, nearly all of a small budget that is spread evenly.

As in the reference code, the copy of the critic takes a plain gradient step although the critic itself is trained by
Adam, and there are no meta-updates once the budget is spent.
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
    """Loss of one run's critics on labeled pairs after one gradient step toward `targets`, differentiable by those.

    The critic itself is not changed.

    Args:
        critic: The run's critics, as a fleet of one.
        inputs: (b, O + A), observations and actions of the inner step's transitions.
        targets: (b,), their temporal-difference targets.
        learning_rate: Step size of the inner step.
        first_inputs: (n, 2, O + A), observation and action at the first step of both segments of the labeled pairs.
        labels: (n,), P(second preferred).

    Returns a scalar, the sum over the critics.
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
    """Take one meta-update of one run's ensemble, and rewrite the rewards of `batch` and `replay` with the new one.

    Args:
        agent: The run's agent, as a fleet of one.
        ensemble: The run's ensemble.
        replay: The run's replay.
        batch: Transitions of the run, (1, b, ...), on which the agent is updated next.
        noise: (1, b, A), standard normal, the same as in that update's critic target.
        buffer: The labeled pairs of the outer loss.
        outer_weight: Factor of the outer loss.

    Returns columns for metrics.csv.
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
