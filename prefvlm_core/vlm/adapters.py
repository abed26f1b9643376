"""Adapters: small networks on top of the frozen vision-language model that learn from human labels.

PrefVLM (§4.3): G_L and G_I map the embeddings of text and frames into a space of their own, in which the segments that
humans prefer are closer to the text, and in which two successive frames predict the action between them (inverse
dynamics). The sizes are ROVED's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.agent.networks import StackedAdam, StackedMLP, uniform_fan_in
from prefvlm_core.common.arrays import FloatArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.preferences.pairs import bradley_terry_loss
from prefvlm_core.vlm.adaptation import RETURN_SCALE, AdapterLearning, FrameAdapter, accuracy, raw_returns
from prefvlm_core.vlm.frame_pairs import FramePairs


class _LabeledPairs(NamedTuple):
    """n pairs of segments with their labels."""

    pairs: FramePairs
    labels: Tensor
    """P(second preferred), 0, 1/2 or 1, (n,)."""
    folds: Tensor
    """The cross-validation fold of each pair, (n,)."""


class _Transitions(NamedTuple):
    """m pairs of successive frames."""

    before: Tensor
    """Embeddings (m, D)."""
    after: Tensor
    """Embeddings (m, D) of the frames that followed."""
    actions: Tensor
    """(m, A): mean actions in between."""


class AdapterNetworks:
    """G_L, G_I and the inverse-dynamics head of several adapters, evaluated side by side.

    Args:
        sizes: Layer sizes of G_L, G_I and the head.
        residual: Add the output of G_L and G_I to their input.
        values: All parameters, (1, models, parameters) float32.
        gradients: The tensor for their gradients, of the same shape; None for networks that do not learn.
    """

    def __init__(
        self, sizes: Sequence[Sequence[int]], residual: bool, values: Tensor, gradients: Tensor | None
    ) -> None:
        self.residual = residual
        self.gradients = gradients
        ends = itertools.accumulate(map(_parameters, sizes))
        spans = [slice(end - _parameters(each), end) for each, end in zip(sizes, ends, strict=True)]
        self.text, self.image, self.head = (
            StackedMLP(each, functional.relu, values[..., span], None if gradients is None else gradients[..., span])
            for each, span in zip(sizes, spans, strict=True)
        )

    def cosines(self, text: Tensor, frames: Tensor) -> Tensor:
        """Cosines (models, K) of text (D,) and frames (K, D)."""
        adapted = self._adapt(self.text, text.unsqueeze(0)), self._adapt(self.image, frames)
        return functional.cosine_similarity(*adapted, dim=-1)

    def returns(self, text: Tensor, frames: Tensor, shown: Tensor) -> Tensor:
        """Returns (models, ...) of text (D,) and segments that show some, `shown` (..., F), of the frames (K, D): 50 x
        the mean cosine of those frames."""
        return RETURN_SCALE * self.cosines(text, frames)[:, shown].mean(-1)

    def dynamics_loss(self, before: Tensor, after: Tensor, actions: Tensor) -> Tensor:
        """Mean squared error (models,) of the actions (m, A) predicted from the frames before and after, (m, D) each.

        Its gradient reaches G_I and the head, but not G_L.
        """
        ends = self._adapt(self.image, torch.cat((before, after))).chunk(2, dim=1)
        return (self.head(torch.cat(ends, -1).unsqueeze(0))[0] - actions).square().mean((1, 2))

    def backward(self, loss: Tensor) -> None:
        """Write the gradient of `loss` into `gradients`, 0 for parameters on which `loss` does not depend."""
        parameters = [
            parameter
            for network in (self.text, self.image, self.head)
            for layer in network.layers
            for parameter in layer
        ]
        each = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():  # the zeros that torch 2.6 materializes ask for gradients themselves
            torch.cat([gradient.flatten(2) for gradient in each], dim=2, out=self.gradients)

    def _adapt(self, network: StackedMLP, features: Tensor) -> Tensor:
        """Map features (batch, D) to (models, batch, E)."""
        adapted = network(features.unsqueeze(0))[0]
        return features + adapted if self.residual else adapted


class Adapters(FrameAdapter):
    """The adapters of one run, which learn side by side from the same batches.

    There is one for each cross-validation fold, which never learns from the pairs of its fold. The last one learns from
    all pairs and is the one that is used.
    """

    def _initialise(self, generator: np.random.Generator) -> None:
        config, dimension, device = self.config, self.dimension, self.device
        adapted = dimension if config.residual else config.output
        adapter = (dimension, config.hidden, adapted)
        self._sizes = (adapter, adapter, (2 * adapted, config.output, self.action_size))
        self.values = torch.zeros(1, config.folds + 1, sum(map(_parameters, self._sizes)), device=device)
        gradients = torch.zeros_like(self.values)
        self.networks = AdapterNetworks(self._sizes, config.residual, self.values, gradients)
        self.optimizer = StackedAdam(self.values, gradients, config.learning_rate)
        for network in (self.networks.text, self.networks.image, self.networks.head):
            network.initialise(0, uniform_fan_in, generator)
        if config.residual:  # residual adapters start as the identity
            with torch.no_grad():
                for parameter in (*self.networks.text.layers[-1], *self.networks.image.layers[-1]):
                    parameter.zero_()

    def learn(
        self,
        text: FloatArray,
        pairs: FramePairs,
        labels: FloatArray,
        dynamics: tuple[FloatArray, FloatArray, FloatArray],
        generator: np.random.Generator,
    ) -> AdapterLearning:
        """See `FrameAdapter.learn`. The dynamics are ignored if `dynamics_weight` is 0."""
        wanted = self._checked_labels(labels, len(pairs))
        labeled = _LabeledPairs(pairs, wanted, self._folds(len(pairs)))
        transitions = self._checked_transitions(*dynamics) if self.config.dynamics_weight else None
        updates = self.config.later_updates if self.optimizer.steps.any() else self.config.first_updates
        losses = [self._update(text, labeled, transitions, generator) for _ in range(updates)]
        preference_loss, dynamics_loss = torch.stack(losses).mean(0).tolist()
        raw = torch.cat([raw_returns(*chunk) for chunk in self._chunks(text, pairs)])
        zero_shot, adapted = accuracy(raw, wanted), accuracy(self._held_out_returns(text, labeled), wanted)
        return self._decide(preference_loss, dynamics_loss, zero_shot, adapted)

    def _learned_returns(self, text: Tensor, frames: Tensor, shown: Tensor) -> Tensor:
        return self._adapted_returns(self.config.folds, text, frames, shown)

    def _update(
        self,
        text: FloatArray,
        labeled: _LabeledPairs,
        transitions: _Transitions | None,
        generator: np.random.Generator,
    ) -> Tensor:
        """Update all adapters on one batch.

        Returns the preference loss and the dynamics loss, (2,), of the adapters that learn from all pairs; the latter
        is nan without transitions.
        """
        preference = self._preference_loss(
            text, labeled, self._draw(len(labeled.labels), self.config.batch_pairs, generator)
        )
        loss, dynamics = preference.sum(), torch.full_like(preference, float("nan"))
        if transitions is not None:
            drawn = self._index(self._draw(len(transitions.actions), self.config.dynamics_batch, generator))
            dynamics = self.networks.dynamics_loss(
                transitions.before[drawn], transitions.after[drawn], transitions.actions[drawn]
            )
            loss = loss + self.config.dynamics_weight * dynamics.sum()
        self.networks.backward(loss)
        self.optimizer.step()
        return torch.stack((preference[-1], dynamics[-1])).detach()

    def _preference_loss(self, text: FloatArray, labeled: _LabeledPairs, chosen: IntArray) -> Tensor:
        """Mean Bradley–Terry loss, (models,), of the `chosen` pairs (m,) that are not in the fold of the model."""
        models = torch.arange(self.config.folds + 1, device=self.device).unsqueeze(1)
        batch = self._index(chosen)
        weights = (labeled.folds[batch] != models).float()
        returns = self.networks.returns(*self._batch(text, labeled.pairs, chosen))
        losses = bradley_terry_loss(returns, labeled.labels[batch].expand_as(weights))
        return (losses * weights).sum(1) / weights.sum(1).clamp(min=1)

    def _held_out_returns(self, text: FloatArray, labeled: _LabeledPairs) -> Tensor:
        """Returns (n, 2) of each pair by the adapters that never learned from it."""
        returns = torch.empty(len(labeled.labels), 2, device=self.device)
        for model in range(min(self.config.folds, len(labeled.labels))):
            held_out = torch.nonzero(labeled.folds == model)[:, 0]
            chunks = self._chunks(text, labeled.pairs, held_out.cpu().numpy())
            returns[held_out] = torch.cat([self._adapted_returns(model, *chunk) for chunk in chunks])
        return returns

    @torch.no_grad()
    def _adapted_returns(self, model: int, text: Tensor, frames: Tensor, shown: Tensor) -> Tensor:
        """Returns (...) of segments, as in `segment_returns`, according to one of the adapters."""
        networks = AdapterNetworks(self._sizes, self.config.residual, self.values[:, model : model + 1], None)
        return networks.returns(text, frames, shown)[0]

    def _draw(self, count: int, wanted: int, generator: np.random.Generator) -> IntArray:
        return generator.choice(count, min(wanted, count), replace=False)

    def _checked_transitions(self, before: FloatArray, after: FloatArray, actions: FloatArray) -> _Transitions:
        frames_shape, actions_shape = (len(before), self.dimension), (len(before), self.action_size)
        shapes = before.shape, after.shape, actions.shape
        if not len(before) or shapes != (frames_shape, frames_shape, actions_shape):
            raise PrefVLMError(
                f"Inverse dynamics take at least one pair of frames (m, {self.dimension}), (m, {self.dimension}) with "
                f"actions (m, {self.action_size}), got {before.shape}, {after.shape} and {actions.shape}."
            )
        if not all(np.isfinite(each).all() for each in (before, after, actions)):
            raise PrefVLMError("The frames or actions for inverse dynamics hold NaN or infinity.")
        return _Transitions(self._tensor(before), self._tensor(after), self._tensor(actions))

    def state(self) -> dict[str, Tensor]:
        """See `FrameAdapter`."""
        return self._passed_on() | {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()}

    def _passed_on(self) -> dict[str, Tensor]:
        return {"values": self.values, "accepted": self._accepted}

    def _kind(self) -> str:
        layers = ", ".join("-".join(map(str, each)) for each in self._sizes)
        return f"{'residual' if self.config.residual else 'plain'} {layers}"


def _parameters(sizes: Sequence[int]) -> int:
    return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))
