"""Adapters: small networks on top of the frozen vision-language model that learn from the human's labels.

PrefVLM (§4.3): G_L and G_I map the embeddings of text and frames into a space of their own, in which the segments that
humans prefer lie closer to the text, and in which two successive frames tell the action between them (inverse
dynamics). Sizes are ROVED's. Added here is a guard, because adapters that learned from few labels can be worse than the
model they sit on: cross-validation on the human's labels decides, session by session, whether they are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from prefvlm_core.agent.networks import StackedAdam, StackedMLP, uniform_fan_in
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.domains.tasks import ACTION_SIZE
from prefvlm_core.preferences.pairs import bradley_terry_loss
from prefvlm_core.runs.directory import read_tensors, write_tensors

Array = NDArray[np.float32]

_RETURN_SCALE = 50.0  # return = this x mean cosine: the sum over the 50 steps of the paper's segments, at any stride
_CHUNK = 64  # pairs judged at once: bounds memory


class AdapterLearning(NamedTuple):
    """What a session's learning came to; nan where there was nothing to tell it from."""

    preference_loss: float
    """Bradley–Terry loss, nats per pair, mean over the session's updates."""
    dynamics_loss: float
    """Mean squared error of the predicted actions, mean over the session's updates."""
    zero_shot_accuracy: float
    """Fraction of the human's decided labels that the frozen embeddings give too; equal returns count half."""
    adapted_accuracy: float
    """The same for the adapted embeddings, each pair judged by adapters that never learned from it."""
    accepted: bool
    """Whether the adapted embeddings are used from now on."""


class AdapterNetworks:
    """G_L, G_I and inverse-dynamics head of several adapters side by side.

    Args:
        sizes: Layer sizes of G_L, G_I and the head.
        residual: Add the output of G_L and G_I to their input.
        values: All parameters, (1, models, parameters) float32.
        gradients: Where their gradients go, of the same shape; None for networks that do not learn.
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

    def returns(self, text: Tensor, frames: Tensor) -> Tensor:
        """Text (D,), frames (n, 2, F, D) -> segment returns (models, n, 2): 50 x mean cosine of text and frames."""
        cosines = functional.cosine_similarity(
            self._adapt(self.text, text.unsqueeze(0)), self._adapt(self.image, frames.flatten(0, 2)), dim=-1
        )
        return _RETURN_SCALE * cosines.unflatten(1, frames.shape[:3]).mean(-1)

    def dynamics_loss(self, before: Tensor, after: Tensor, actions: Tensor) -> Tensor:
        """Frames (m, D), (m, D) and the actions (m, 4) between them -> mean squared error (models,).

        It reaches G_I and the head, not G_L.
        """
        ends = self._adapt(self.image, torch.cat((before, after))).chunk(2, dim=1)
        return (self.head(torch.cat(ends, -1).unsqueeze(0))[0] - actions).square().mean((1, 2))

    def differentiate(self, loss: Tensor) -> None:
        """Write the gradient of `loss` into `gradients`; it is 0 where `loss` does not depend on a parameter."""
        parameters = [
            parameter
            for network in (self.text, self.image, self.head)
            for layer in network.layers
            for parameter in layer
        ]
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        torch.cat([gradient.flatten(2) for gradient in found], dim=2, out=self.gradients)

    def _adapt(self, network: StackedMLP, features: Tensor) -> Tensor:
        """(batch, D) -> (models, batch, E)."""
        adapted = network(features.unsqueeze(0))[0]
        return features + adapted if self.residual else adapted


class Adapters:
    """The adapters of one run: one per cross-validation fold, which never learns from its pairs, and last the one
    that learns from all pairs and is used. They learn side by side, from the same batches.

    Args:
        config: See `AdapterConfig`.
        dimension: D, length of the frozen embeddings.
        generator: Draws the initial parameters.
        device: Where they learn.
    """

    def __init__(
        self, config: AdapterConfig, dimension: int, generator: np.random.Generator, device: torch.device
    ) -> None:
        self.config, self.dimension, self.device = config, dimension, device
        adapted = dimension if config.residual else config.output
        adapter = (dimension, config.hidden, adapted)
        self._sizes = (adapter, adapter, (2 * adapted, config.output, ACTION_SIZE))
        self.values = torch.zeros(1, config.folds + 1, sum(map(_parameters, self._sizes)), device=device)
        gradients = torch.zeros_like(self.values)
        self.networks = AdapterNetworks(self._sizes, config.residual, self.values, gradients)
        self.optimizer = StackedAdam(self.values, gradients, config.learning_rate)
        self._accepted = torch.tensor(False)
        for network in (self.networks.text, self.networks.image, self.networks.head):
            network.initialise(0, uniform_fan_in, generator)
        if config.residual:  # nothing is added before anything is learned
            with torch.no_grad():
                for parameter in (*self.networks.text.layers[-1], *self.networks.image.layers[-1]):
                    parameter.zero_()

    @property
    def accepted(self) -> bool:
        """Whether `returns` uses the adapted embeddings."""
        return bool(self._accepted)

    def learn(
        self,
        text: Array,
        frames: Array,
        labels: Array,
        dynamics: tuple[Array, Array, Array],
        generator: np.random.Generator,
    ) -> AdapterLearning:
        """One session: go on learning from all human labels so far, then decide whether the adapters are used.

        Args:
            text: Embedding of the task, (D,).
            frames: Embeddings (n, 2, F, D) of the frames of all pairs so far; new pairs come after those that were
                there before, so that a pair stays in its fold.
            labels: The human's P(second preferred), 0, 1/2 or 1, (n,).
            dynamics: Embeddings (m, D) of frames, (m, D) of the frames that followed, and (m, 4) the mean actions in
                between. Ignored where `dynamics_weight` is 0.
            generator: Draws the batches.

        Raises `PrefVLMError` for shapes that do not fit, without labels, and for values that are not finite.
        """
        text_tensor, frame_tensor = self._checked(text, frames)
        if labels.shape != frames.shape[:1] or not len(labels) or not np.isin(labels, (0, 0.5, 1)).all():
            raise PrefVLMError(
                f"Adapters learn from one label 0, 1/2 or 1 for each of at least one pair, got labels {labels.shape} "
                f"for frames {frames.shape}."
            )
        transitions = self._checked_dynamics(dynamics) if self.config.dynamics_weight else None
        label_tensor = self._tensor(labels)
        models = torch.arange(self.config.folds + 1, device=self.device)
        fold = torch.arange(len(labels), device=self.device) % self.config.folds
        weights = (fold != models.unsqueeze(1)).float()
        losses = []
        for _ in range(self.config.later_updates if self.optimizer.steps.any() else self.config.first_updates):
            chosen = self._draw(len(labels), self.config.batch_pairs, generator)
            preference = self._preference_loss(
                text_tensor, frame_tensor[chosen], label_tensor[chosen], weights[:, chosen]
            )
            dynamics_loss = torch.full_like(preference, float("nan"))
            loss = preference.sum()
            if transitions is not None:
                drawn = self._draw(len(transitions[0]), self.config.dynamics_batch, generator)
                dynamics_loss = self.networks.dynamics_loss(*(each[drawn] for each in transitions))
                loss = loss + self.config.dynamics_weight * dynamics_loss.sum()
            self.networks.differentiate(loss)
            self.optimizer.step()
            losses.append(torch.stack((preference[-1], dynamics_loss[-1])).detach())
        zero_shot = _accuracy(_raw_returns(text_tensor, frame_tensor), label_tensor)
        held_out = torch.empty(len(labels), 2, device=self.device)
        for model in range(min(self.config.folds, len(labels))):
            held_out[fold == model] = self._adapted_returns(model, text_tensor, frame_tensor[fold == model])
        adapted = _accuracy(held_out, label_tensor)
        self._accepted.fill_(adapted >= zero_shot)
        preference_mean, dynamics_mean = torch.stack(losses).mean(0).tolist()
        return AdapterLearning(preference_mean, dynamics_mean, zero_shot, adapted, self.accepted)

    def returns(self, text: Array, frames: Array) -> Array:
        """Text (D,), frames (n, 2, F, D) -> segment returns (n, 2), 50 x mean cosine of text and frames.

        Of adapted embeddings where they are accepted, else of the frozen ones. Raises `PrefVLMError` as `learn` does.
        """
        tensors = self._checked(text, frames)
        returns = self._adapted_returns(self.config.folds, *tensors) if self.accepted else _raw_returns(*tensors)
        return returns.cpu().numpy()

    def _preference_loss(self, text: Tensor, frames: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean Bradley–Terry loss of b pairs; weights (models, b) -> (models,)."""
        losses = bradley_terry_loss(self.networks.returns(text, frames), labels.expand_as(weights))
        return (losses * weights).sum(1) / weights.sum(1).clamp(min=1)

    @torch.no_grad()
    def _adapted_returns(self, model: int, text: Tensor, frames: Tensor) -> Tensor:
        """Returns (n, 2) by one of the adapters."""
        networks = AdapterNetworks(self._sizes, self.config.residual, self.values[:, model : model + 1], None)
        return torch.cat([networks.returns(text, chunk)[0] for chunk in frames.split(_CHUNK)])

    def _draw(self, count: int, wanted: int, generator: np.random.Generator) -> Tensor:
        chosen = generator.choice(count, min(wanted, count), replace=False)
        return torch.from_numpy(chosen).to(self.device)

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)

    def _checked(self, text: Array, frames: Array) -> tuple[Tensor, Tensor]:
        if text.shape != (self.dimension,) or frames.ndim != 4 or frames.shape[1::2] != (2, self.dimension):
            raise PrefVLMError(
                f"These adapters take text ({self.dimension},) and frames (n, 2, F, {self.dimension}), "
                f"got {text.shape} and {frames.shape}."
            )
        if not (np.isfinite(text).all() and np.isfinite(frames).all()):
            raise PrefVLMError(
                "The embeddings of text or frames hold NaN or infinity; adapters cannot learn from them."
            )
        return self._tensor(text), self._tensor(frames)

    def _checked_dynamics(self, dynamics: tuple[Array, Array, Array]) -> tuple[Tensor, Tensor, Tensor]:
        before, after, actions = dynamics
        frames_shape = (len(before), self.dimension)
        if (
            not len(before)
            or (before.shape, after.shape) != (frames_shape,) * 2
            or actions.shape != (len(before), ACTION_SIZE)
        ):
            raise PrefVLMError(
                f"Inverse dynamics take at least one pair of frames (m, {self.dimension}), (m, {self.dimension}) with "
                f"actions (m, {ACTION_SIZE}), got {before.shape}, {after.shape} and {actions.shape}."
            )
        if not all(np.isfinite(each).all() for each in dynamics):
            raise PrefVLMError("The frames or actions for inverse dynamics hold NaN or infinity.")
        return self._tensor(before), self._tensor(after), self._tensor(actions)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that learning changes, by name."""
        return {"values": self.values, "accepted": self._accepted} | {
            f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `state`."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])

    def save(self, path: Path, backbone: str) -> None:
        """Store what was learned for another run; `backbone` is the `fingerprint` of the model beneath."""
        write_tensors(path, {"values": self.values, "accepted": self._accepted}, self._description(backbone))

    @classmethod
    def read(cls, path: Path, backbone: str, config: AdapterConfig, dimension: int, device: torch.device) -> Adapters:
        """Adapters that start from what `save` stored, used at once if they were in use there.

        Raises `PrefVLMError` where the file is damaged, or holds adapters of another backbone or of other sizes.
        """
        adapters = cls(config, dimension, np.random.default_rng(0), device)
        tensors, found = read_tensors(path)
        for name, wanted in adapters._description(backbone).items():
            if found.get(name) != wanted:
                raise PrefVLMError(
                    f"The adapters in {path} have {name} '{found.get(name)}', but this run needs '{wanted}'."
                )
        adapters.values.copy_(tensors["values"])
        adapters._accepted.copy_(tensors["accepted"])
        return adapters

    def _description(self, backbone: str) -> dict[str, str]:
        layers = ", ".join("-".join(map(str, each)) for each in self._sizes)
        kind = "residual" if self.config.residual else "plain"
        return {"backbone": backbone, "networks": f"{kind} {layers}", "folds": str(self.config.folds)}


def _parameters(sizes: Sequence[int]) -> int:
    return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))


def _raw_returns(text: Tensor, frames: Tensor) -> Tensor:
    """Text (D,), frames (n, 2, F, D) -> (n, 2)."""
    return _RETURN_SCALE * functional.cosine_similarity(frames, text, dim=-1).mean(-1)


def _accuracy(returns: Tensor, labels: Tensor) -> float:
    """Fraction of the labels other than 1/2 that returns (n, 2) agree with; equal returns count half; nan without."""
    agreement = torch.sign(returns[:, 1] - returns[:, 0]) * torch.sign(labels - 0.5)
    return float(((agreement + 1) / 2)[labels != 0.5].mean())
