"""Kernel adapters: what the papers' adapters learn from human labels, as one convex problem that takes milliseconds.

A frame's return is the frozen model's plus a function of the embedding from the space of a Gaussian kernel, which is
represented by random Fourier features (Rahimi & Recht 2007). Labels follow the Bradley–Terry model, so the weights of
the features are those of a logistic regression with an L2 penalty on the differences of two segments' mean features.
There are no inverse dynamics.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.optimize
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.common.arrays import DoubleArray, FloatArray
from prefvlm_core.vlm.adaptation import AdapterLearning, FrameAdapter, accuracy, raw_returns
from prefvlm_core.vlm.frame_pairs import FramePairs

FEATURES = 512
"""Number of random features."""
_LENGTH = 0.7  # of the kernel, as a multiple of the root mean square distance of two frames
_PENALTY = 0.02  # times the mean squared norm of a pair's features; like the length, chosen on kept replays


class KernelAdapters(FrameAdapter):
    """The kernel adapters of one run, fitted anew to all labels in each session.

    A segment's return is r / s + w · φ: r is the frozen model's and φ (FEATURES,) the mean features of its frames. The
    scale s is the root mean square difference of r in the first session's pairs, which also sets the kernel's length.
    The penalty draws w (FEATURES,) to 0, or after a transfer to the other run's.
    """

    def _initialise(self, generator: np.random.Generator) -> None:
        directions = generator.standard_normal((self.dimension, FEATURES), np.float32)
        phases = generator.uniform(0, 2 * math.pi, FEATURES).astype(np.float32)
        self._directions, self._phases = (torch.from_numpy(each).to(self.device) for each in (directions, phases))
        self._length, self._scale = torch.zeros((), device=self.device), torch.ones((), device=self.device)
        self.weights = torch.zeros(FEATURES, dtype=torch.float64, device=self.device)
        self._prior = torch.zeros_like(self.weights)

    def learn(
        self,
        text: FloatArray,
        pairs: FramePairs,
        labels: FloatArray,
        dynamics: tuple[FloatArray, FloatArray, FloatArray],
        generator: np.random.Generator,
    ) -> AdapterLearning:
        """See `FrameAdapter.learn`. The dynamics are ignored, and nothing is drawn."""
        wanted = self._checked_labels(labels, len(pairs)).double()
        raw = torch.cat([raw_returns(*chunk) for chunk in self._chunks(text, pairs)])
        if not self._length:
            _, frames, shown = self._batch(text, pairs, np.arange(len(pairs)))
            variance = frames[shown.flatten()].var(0, correction=0).sum()
            self._length.copy_((_LENGTH * (2 * variance).sqrt()).clamp(min=1e-6))
            self._scale.copy_(raw.diff(dim=1).square().mean().sqrt().clamp(min=1e-6))
        features = torch.cat([self._mean_features(*chunk[1:]) for chunk in self._chunks(text, pairs)])
        differences, offsets = features[:, 1] - features[:, 0], (raw / self._scale).double().diff(dim=1)[:, 0]
        self.weights.copy_(self._fitted(differences, offsets, wanted))
        loss = functional.binary_cross_entropy_with_logits(offsets + differences @ self.weights, wanted)
        margins = self._held_out_margins(differences, offsets, wanted)
        held_out = torch.stack((torch.zeros_like(margins), margins), dim=1)
        return self._decide(float(loss), math.nan, accuracy(raw, wanted), accuracy(held_out, wanted))

    def _held_out_margins(self, differences: Tensor, offsets: Tensor, wanted: Tensor) -> Tensor:
        """Return of the second segment minus that of the first (n,) by weights fitted without the pair's fold."""
        margins, folds = offsets.clone(), self._folds(len(wanted))
        for fold in range(min(self.config.folds, len(wanted))):
            out = folds == fold
            margins[out] += differences[out] @ self._fitted(differences[~out], offsets[~out], wanted[~out])
        return margins

    def _fitted(self, differences: Tensor, offsets: Tensor, wanted: Tensor) -> Tensor:
        """The weights (FEATURES,) that minimize the penalized Bradley–Terry loss of n pairs, the prior's for none.

        Differences (n, FEATURES) are the second segment's features minus the first's, offsets (n,) the same of r / s.
        """
        penalty = _PENALTY * differences.square().sum(1).mean()

        def loss(values: DoubleArray) -> tuple[float, DoubleArray]:
            weights = torch.from_numpy(values).to(self.device)
            logits, change = offsets + differences @ weights, weights - self._prior
            entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
            gradient = (torch.sigmoid(logits) - wanted) @ differences + penalty * change
            return float(entropy + penalty / 2 * change @ change), gradient.cpu().numpy()

        start = self._prior.cpu().numpy()
        if not len(wanted) or not penalty:
            return self._prior.clone()
        found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-6})
        return torch.from_numpy(found.x).to(self.device)

    def _learned_returns(self, text: Tensor, frames: Tensor, shown: Tensor) -> Tensor:
        learned = self._mean_features(frames, shown) @ self.weights
        return (raw_returns(text, frames, shown) / self._scale + learned).float()

    def _mean_features(self, frames: Tensor, shown: Tensor) -> Tensor:
        """Mean features (..., FEATURES) float64 of segments that show some, `shown` (..., F), of the frames (K, D)."""
        features = torch.cos(frames @ (self._directions / self._length) + self._phases)
        return features[shown].mean(-2).double()

    def state(self) -> dict[str, Tensor]:
        """See `FrameAdapter`."""
        fixed = {"directions": self._directions, "phases": self._phases, "length": self._length, "scale": self._scale}
        return fixed | {"weights": self.weights, "prior": self._prior, "accepted": self._accepted}

    def _passed_on(self) -> dict[str, Tensor]:
        return self.state() | {"prior": self.weights.clone()}

    def _kind(self) -> str:
        return f"kernel {self.dimension}-{FEATURES}"
