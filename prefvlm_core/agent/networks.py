"""Many networks of one shape as one: MLPs whose parameters are stacked, and an Adam optimizer for them.

The time of a small network is spent on launching operations, so twin critics, ensembles and all runs of a fleet are
evaluated by the same few batched matrix products. Everything is a plain tensor whose first dimension is the run: any
run of a fleet can be inspected, trained or stored through a slice that shares its memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Layers = list[tuple[Tensor, Tensor]]
Initialiser = Callable[[Tensor, Tensor, torch.Generator], None]


def orthogonal(weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
    """Fill `weight` (in, out) with an orthogonal matrix and `bias` with zeros (B-Pref's actor and critics)."""
    torch.nn.init.orthogonal_(weight, generator=generator)
    bias.zero_()


def uniform_fan_in(weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
    """Fill both from U(-1/sqrt(in), 1/sqrt(in)), the default of `torch.nn.Linear` (B-Pref's reward networks)."""
    bound = 1 / math.sqrt(weight.shape[0])
    weight.uniform_(-bound, bound, generator=generator)
    bias.uniform_(-bound, bound, generator=generator)


def normalized_relu(hidden: Tensor) -> Tensor:
    """ReLU of `hidden` (..., width) normalized to mean 0 and variance 1 over its units, without further parameters."""
    return torch.relu(functional.layer_norm(hidden, hidden.shape[-1:]))


def identity_scaling(runs: int, inputs: int, device: torch.device) -> Tensor:
    """A `StackedMLP.scaling` that leaves the inputs unchanged: (2, runs, 1, 1, inputs)."""
    return torch.stack((torch.zeros(runs, 1, 1, inputs), torch.ones(runs, 1, 1, inputs))).to(device)


class StackedMLP:
    """`runs x members` MLPs of one shape, with `activation` between their layers and none after the last.

    `values` and `gradients` are (runs, members, parameters) float32. Each layer's weight (runs, members, in, out) and
    bias (runs, members, 1, out) are views of `values`, so an optimizer step, a copy or a reset is one operation on one
    tensor. Networks without `gradients` do not learn. With a `scaling` (2, runs, 1, 1, in), inputs become
    (inputs - scaling[0]) / scaling[1].
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[Tensor], Tensor],
        values: Tensor,
        gradients: Tensor | None,
        scaling: Tensor | None = None,
    ) -> None:
        self.sizes = tuple(sizes)
        self.activation = activation
        self.values = values
        self.gradients = gradients
        self.scaling = scaling
        self.layers: Layers = []
        offset = 0
        for inputs, outputs in itertools.pairwise(self.sizes):
            weight = slice(offset, offset + inputs * outputs)
            bias = slice(weight.stop, weight.stop + outputs)
            self.layers.append((self._view(weight, inputs, outputs), self._view(bias, 1, outputs)))
            offset = bias.stop

    @classmethod
    def create(
        cls,
        runs: int,
        members: int,
        sizes: Sequence[int],
        activation: Callable[[Tensor], Tensor],
        initialiser: Initialiser,
        generators: Sequence[np.random.Generator],
        device: torch.device,
    ) -> StackedMLP:
        """Freshly initialized networks; run i draws from `generators[i]` only."""
        parameters = sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))
        values = torch.zeros(runs, members, parameters, device=device)
        network = cls(sizes, activation, values, torch.zeros_like(values))
        for run, generator in enumerate(generators):
            network.initialise(run, initialiser, generator)
        return network

    def initialise(self, run: int, initialiser: Initialiser, generator: np.random.Generator) -> None:
        """Redraw the parameters of one run, on the CPU so that every device starts from the same numbers."""
        torch_generator = torch.Generator().manual_seed(int(generator.integers(2**63)))
        with torch.no_grad():
            for weight, bias in self.layers:
                for member in range(weight.shape[1]):
                    new_weight, new_bias = torch.empty(weight.shape[2:]), torch.empty(bias.shape[2:])
                    initialiser(new_weight, new_bias, torch_generator)
                    weight[run, member].copy_(new_weight)
                    bias[run, member].copy_(new_bias)

    def __call__(self, inputs: Tensor, frozen: bool = False) -> Tensor:
        """Outputs (runs, members, batch, out) of the networks.

        Args:
            inputs: (runs, batch, in), shared by the members, or (runs, members, batch, in).
            frozen: Let gradients reach the inputs, but not the parameters.
        """
        runs, members = self.values.shape[:2]
        if inputs.dim() == 3:
            inputs = inputs.unsqueeze(1)
        if self.scaling is not None:
            inputs = (inputs - self.scaling[0]) / self.scaling[1]
        inputs = inputs.expand(-1, members, -1, -1)
        hidden = inputs.reshape(runs * members, *inputs.shape[2:])
        for index, (weight, bias) in enumerate(self.layers):
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            weight, bias = weight.flatten(0, 1), bias.flatten(0, 1)
            if hidden.is_cuda:  # where torch.compile fuses the sum, while baddbmm would first write the biases
                hidden = torch.bmm(hidden, weight) + bias
            else:
                hidden = torch.baddbmm(bias, hidden, weight)
            if index < len(self.layers) - 1:
                hidden = self.activation(hidden)
        return hidden.unflatten(0, (runs, members))

    def backward(self, loss: Tensor) -> None:
        """Write the gradient of `loss` with respect to the parameters into `gradients`."""
        parameters = [parameter for layer in self.layers for parameter in layer]
        gradients = torch.autograd.grad(loss, parameters)
        torch.cat([gradient.flatten(2) for gradient in gradients], dim=2, out=self.gradients)

    def of_run(self, run: int) -> StackedMLP:
        """The networks of one run as a fleet of one, sharing memory."""
        return self.of_runs(slice(run, run + 1))

    def of_runs(self, places: slice | Tensor) -> StackedMLP:
        """The networks of some runs: sharing memory for a slice, copies for indices (r,)."""
        gradients = None if self.gradients is None else self.gradients[places]
        scaling = None if self.scaling is None else self.scaling[:, places]
        return StackedMLP(self.sizes, self.activation, self.values[places], gradients, scaling)

    def folded(self) -> Tensor:
        """`values` (runs, members, parameters) of networks that compute the same without `scaling`, up to rounding."""
        plain = StackedMLP(self.sizes, self.activation, self.values.clone(), None)
        if self.scaling is not None:
            center, scale = self.scaling
            weight, bias = plain.layers[0]
            weight /= scale.transpose(2, 3)
            bias -= center @ weight
        return plain.values

    def with_layers(self, layers: Layers) -> StackedMLP:
        """The same networks with other parameters: weights and biases by layer, which may be part of a graph."""
        network = StackedMLP(self.sizes, self.activation, self.values, None, self.scaling)
        network.layers = layers
        return network

    def frozen_copy(self) -> StackedMLP:
        """A copy of the networks that does not learn (target critics); `scaling` is shared."""
        return StackedMLP(self.sizes, self.activation, self.values.clone(), None, self.scaling)

    def _view(self, span: slice, rows: int, columns: int) -> Tensor:
        shape = (*self.values.shape[:2], rows, columns)
        view = self.values[..., span].view(shape)
        return view if self.gradients is None else view.detach().requires_grad_()


class StackedAdam:
    """Adam (Kingma & Ba 2015, without weight decay) for one tensor (runs, ...), with a step count per run.

    `state`: first moment, second moment and step counts to share; fresh ones if None.
    """

    def __init__(
        self,
        values: Tensor,
        gradients: Tensor,
        learning_rate: float,
        state: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        self.values, self.gradients, self.learning_rate = values, gradients, learning_rate
        per_run = (values.shape[0], *[1] * (values.dim() - 1))
        self.first_moment, self.second_moment, self.steps = state or (
            torch.zeros_like(values),
            torch.zeros_like(values),
            torch.zeros(per_run, dtype=torch.float64, device=values.device),
        )

    @torch.no_grad()
    def step(
        self,
        learning_rate_scale: float = 1.0,
        first_decay: float = 0.9,
        second_decay: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        """Update the values once from `gradients`, with `learning_rate_scale` times the learning rate."""
        self.steps += 1
        first_correction = (1 - first_decay**self.steps) / (self.learning_rate * learning_rate_scale)
        second_correction = torch.sqrt(1 - second_decay**self.steps)
        slope, offset = (first_correction / second_correction).float(), (epsilon * first_correction).float()
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()  # else the powers of a run would be taken anew for each of its parameters
        self.first_moment.lerp_(self.gradients, 1 - first_decay)
        self.second_moment.mul_(second_decay).addcmul_(self.gradients, self.gradients, value=1 - second_decay)
        scale = self.second_moment.sqrt().mul_(slope).add_(offset)
        self.values.addcdiv_(self.first_moment, scale, value=-1)

    def of_run(self, run: int) -> StackedAdam:
        """The optimizer of one run, sharing memory."""
        span = slice(run, run + 1)
        return self.of_runs(span, self.values[span], self.gradients[span])

    def of_runs(self, places: slice | Tensor, values: Tensor, gradients: Tensor) -> StackedAdam:
        """The optimizer of some runs, for their values and gradients: its state is shared for a slice, a copy for
        indices (r,)."""
        state = self.first_moment[places], self.second_moment[places], self.steps[places]
        return StackedAdam(values, gradients, self.learning_rate, state)

    def reset(self) -> None:
        """Set all moments and step counts to 0."""
        for tensor in (self.first_moment, self.second_moment, self.steps):
            tensor.zero_()

    def state(self) -> dict[str, Tensor]:
        """Every tensor that `step` changes besides the values, by name; copy into them to restore."""
        return {"first_moment": self.first_moment, "second_moment": self.second_moment, "steps": self.steps}
