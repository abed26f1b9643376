"""What all kinds of adapters share: checks of their inputs, the guard against harmful ones, and transfer between runs.

The guard is an addition to PrefVLM: adapters that learned from few labels can be worse than the model beneath them, so
cross-validation on the human labels decides in each session whether they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.common.arrays import FloatArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.tensors import check_tensors, copy_tensors
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.runs.files import damaged, read_tensors, write_tensors
from prefvlm_core.vlm.frame_pairs import FramePairs

RETURN_SCALE = 50.0
"""Return = 50 x mean cosine, the sum over the 50 steps of the paper's segments at any stride."""
CHUNK = 64
"""Pairs evaluated at once, which bounds memory."""


class AdapterLearning(NamedTuple):
    """The outcome of one session of learning; nan if there were no data for a value."""

    preference_loss: float
    """Bradley–Terry loss, nats per pair, mean over the session's updates."""
    dynamics_loss: float
    """Mean squared error of the predicted actions, mean over the session's updates."""
    zero_shot_accuracy: float
    """Fraction of the human labels other than 1/2 with which the frozen embeddings agree; equal returns count half."""
    adapted_accuracy: float
    """The same for the adapted embeddings; each pair is evaluated by adapters that never learned from it."""
    accepted: bool
    """Whether the adapted embeddings are used from now on."""


class FrameAdapter(ABC):
    """What learns from human labels to give better returns to frames than the frozen model. Subclasses add the rest.

    Args:
        config: See `AdapterConfig`.
        dimension: D, the length of the frozen embeddings.
        action_size: A, the numbers of an action.
        generator: Draws the initial parameters.
        device: The device on which it learns.
    """

    def __init__(
        self,
        config: AdapterConfig,
        dimension: int,
        action_size: int,
        generator: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.config, self.dimension, self.action_size, self.device = config, dimension, action_size, device
        self._accepted = torch.tensor(False)
        self._initialise(generator)

    @abstractmethod
    def _initialise(self, generator: np.random.Generator) -> None:
        """Draw the initial parameters."""

    @abstractmethod
    def learn(
        self,
        text: FloatArray,
        pairs: FramePairs,
        labels: FloatArray,
        dynamics: tuple[FloatArray, FloatArray, FloatArray],
        generator: np.random.Generator,
    ) -> AdapterLearning:
        """Learn from all human labels so far, then decide whether the adapters are used.

        Args:
            text: Embedding of the task, (D,).
            pairs: All n pairs so far, with their frames. New pairs must follow earlier ones, so that every pair stays
                in its fold.
            labels: Human labels, P(second preferred), 0, 1/2 or 1, (n,).
            dynamics: Embeddings (m, D) of frames, (m, D) of the frames that followed, and (m, A) the mean actions in
                between.
            generator: Draws the batches.

        Raises:
            PrefVLMError: For shapes that do not match, without labels, and for values that are not finite.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All tensors that learning changes, by name."""

    @abstractmethod
    def _learned_returns(self, text: Tensor, frames: Tensor, shown: Tensor) -> Tensor:
        """Returns (...) of segments by what was learned, with arguments like those of `segment_returns`."""

    @abstractmethod
    def _passed_on(self) -> dict[str, Tensor]:
        """The tensors, named as in `state`, from which another run starts."""

    @abstractmethod
    def _kind(self) -> str:
        """What runs must have in common to share tensors, in words."""

    @property
    def accepted(self) -> bool:
        """Whether `returns` uses what was learned."""
        return bool(self._accepted)

    def returns(self, text: FloatArray, frames: FloatArray) -> FloatArray:
        """Segment returns (n, 2) of text (D,) and frames (n, 2, F, D), those of the frozen model unless accepted.

        Raises `PrefVLMError` as `learn` does.
        """
        if frames.ndim != 4 or frames.shape[1::2] != (2, self.dimension):
            raise self._misshapen(text, frames.shape)
        returns = []
        for chunk in np.split(frames, range(CHUNK, len(frames), CHUNK)):
            shown = np.arange(chunk[..., 0].size).reshape(chunk.shape[:3])
            returns.append(self.segment_returns(text, chunk.reshape(-1, self.dimension), shown))
        return np.concatenate(returns)

    def segment_returns(self, text: FloatArray, frames: FloatArray, shown: IntArray) -> FloatArray:
        """Returns (...) of text (D,) and segments that show some of the frames (K, D): `shown` (..., F) says which.

        They are those of the frozen model unless accepted. A frame that several segments show is adapted once. Raises
        `PrefVLMError` as `learn` does.
        """
        of_segments = self._learned_returns if self.accepted else raw_returns
        return of_segments(*self._checked(text, frames), self._index(shown)).cpu().numpy()

    def _decide(
        self, preference_loss: float, dynamics_loss: float, zero_shot: float, adapted: float
    ) -> AdapterLearning:
        """The guard: adapters are used if they agree with held-out labels at least as often as the frozen model."""
        self._accepted.fill_(adapted >= zero_shot)
        return AdapterLearning(preference_loss, dynamics_loss, zero_shot, adapted, self.accepted)

    def _folds(self, pairs: int) -> Tensor:
        """The cross-validation fold of each pair, (pairs,)."""
        return torch.arange(pairs, device=self.device) % self.config.folds

    def _tensor(self, array: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)

    def _index(self, array: IntArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _batch(self, text: FloatArray, pairs: FramePairs, chosen: IntArray) -> tuple[Tensor, Tensor, Tensor]:
        """Text (D,), the frames (K, D) that the pairs `chosen` (m,) show, and which of them they show, (m, 2, F)."""
        frames, shown = pairs.batch(chosen)
        return *self._checked(text, frames), self._index(shown)

    def _chunks(
        self, text: FloatArray, pairs: FramePairs, chosen: IntArray | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of all pairs, or of those `chosen` (m,), in their order."""
        indices = np.arange(len(pairs)) if chosen is None else chosen
        return (self._batch(text, pairs, indices[first : first + CHUNK]) for first in range(0, len(indices), CHUNK))

    def _checked(self, text: FloatArray, frames: FloatArray) -> tuple[Tensor, Tensor]:
        if text.shape != (self.dimension,) or frames.shape[1:] != (self.dimension,):
            raise self._misshapen(text, frames.shape)
        if not (np.isfinite(text).all() and np.isfinite(frames).all()):
            raise PrefVLMError("The embeddings of text or frames hold NaN or infinity; adapters cannot use them.")
        return self._tensor(text), self._tensor(frames)

    def _misshapen(self, text: FloatArray, frames: tuple[int, ...]) -> PrefVLMError:
        return PrefVLMError(
            f"These adapters take text ({self.dimension},) and frames (n, 2, F, {self.dimension}) or "
            f"(K, {self.dimension}), got {text.shape} and {frames}."
        )

    def _checked_labels(self, labels: FloatArray, pairs: int) -> Tensor:
        if labels.shape != (pairs,) or not pairs or not np.isin(labels, (0, 0.5, 1)).all():
            raise PrefVLMError(
                f"Adapters learn from one label 0, 1/2 or 1 for each of at least one pair, got labels {labels.shape} "
                f"for {pairs} pairs."
            )
        return self._tensor(labels)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        copy_tensors(tensors, self.state())

    def save(self, path: Path, backbone: str) -> None:
        """Store what was learned for other runs; `backbone` is the `fingerprint` of the model beneath."""
        write_tensors(path, self._passed_on(), self._description(backbone))

    @classmethod
    def read(
        cls, path: Path, backbone: str, config: AdapterConfig, dimension: int, action_size: int, device: torch.device
    ) -> Self:
        """Adapters that start from what `save` stored; they are used from the start if they were in use there.

        Raises `PrefVLMError` for a damaged file, and for adapters of another backbone, of other sizes or not finite.
        """
        adapters = cls(config, dimension, action_size, np.random.default_rng(0), device)
        stored = read_tensors(path)
        for name, wanted in adapters._description(backbone).items():
            if (found := stored.metadata.get(name)) != wanted:
                raise PrefVLMError(f"The adapters in {path} have {name} '{found}', but this run needs '{wanted}'.")
        try:
            check_tensors(stored.tensors, adapters._passed_on())
        except PrefVLMError as error:
            raise damaged(path, str(error).removesuffix(".")) from error
        if not all(tensor.isfinite().all() for tensor in stored.tensors.values()):
            raise damaged(path, "it holds NaN or infinity")
        adapters.load(adapters.state() | stored.tensors)
        return adapters

    def _description(self, backbone: str) -> dict[str, str]:
        return {"backbone": backbone, "networks": self._kind(), "folds": str(self.config.folds)}


def raw_returns(text: Tensor, frames: Tensor, shown: Tensor) -> Tensor:
    """Returns (...) by the frozen embeddings of segments that show some, `shown` (..., F), of the frames (K, D)."""
    return RETURN_SCALE * functional.cosine_similarity(frames, text, dim=-1)[shown].mean(-1)


def accuracy(returns: Tensor, labels: Tensor) -> float:
    """Fraction of labels other than 1/2 with which returns (n, 2) agree; equal returns count half; nan without any."""
    agreement = torch.sign(returns[:, 1] - returns[:, 0]) * torch.sign(labels - 0.5)
    return float(((agreement + 1) / 2)[labels != 0.5].mean())
