"""Who labels in the human's place: the frozen model, the adapted model, or a simulated one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.replay import RunReplay
from prefvlm_core.common.arrays import FloatArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import RunConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.runs.directory import ADAPTERS_FILE
from prefvlm_core.runs.published import published_runs
from prefvlm_core.vlm.adapters import Adapters
from prefvlm_core.vlm.encoder import RunEncoder
from prefvlm_core.vlm.simulated import simulated_returns

TIE_MARGIN = 0.5
"""Where ties are allowed: returns closer than this times the standard deviation of all returns of the session."""


class Judgement(NamedTuple):
    """What a label source makes of pairs."""

    returns: FloatArray
    """Its return of both segments, (n, 2)."""
    zero_shot: FloatArray
    """The frozen model's, (n, 2)."""


class LabelSource(Protocol):
    """Gives returns to pairs of one run, and may learn from the human's labels."""

    def judge(self, starts: IntArray) -> Judgement:
        """Returns of pairs (n, 2)."""
        ...

    def adapt(self, human: PreferenceBuffer, recent: IntArray, generator: np.random.Generator) -> dict[str, float]:
        """Learn from all labels of the human so far, and from the actions in pairs that were asked recently, (n, 2).

        Returns columns for metrics.csv.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Every tensor that `adapt` changes, by name; copy into them to restore."""
        ...

    def save(self, folder: Path) -> None:
        """Store in a run's folder what was learned and another run can start from."""
        ...


class FrozenVLM:
    """The model as it is: the return of a segment is the sum of the cosines of text and frames (PrefVLM §4.1)."""

    def __init__(self, encoder: RunEncoder) -> None:
        self.encoder = encoder

    def judge(self, starts: IntArray) -> Judgement:
        """See `LabelSource`."""
        returns = self.encoder.zero_shot_returns(self.encoder.frames(starts))
        return Judgement(returns, returns)

    def adapt(self, human: PreferenceBuffer, recent: IntArray, generator: np.random.Generator) -> dict[str, float]:
        """A frozen model learns nothing."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """See `LabelSource`."""
        return {}

    def save(self, folder: Path) -> None:
        """Nothing was learned."""


class AdaptedVLM(FrozenVLM):
    """The model with adapters that learn from the human's labels (PrefVLM §4.3)."""

    def __init__(self, encoder: RunEncoder, adapters: Adapters, stopwatch: Stopwatch) -> None:
        super().__init__(encoder)
        self.adapters, self.stopwatch = adapters, stopwatch

    def judge(self, starts: IntArray) -> Judgement:
        """See `LabelSource`; the frozen returns where cross-validation refused the adapters."""
        frames = self.encoder.frames(starts)
        zero_shot = self.encoder.zero_shot_returns(frames)
        return Judgement(np.asarray(self.adapters.returns(self.encoder.text, frames)), zero_shot)

    def adapt(self, human: PreferenceBuffer, recent: IntArray, generator: np.random.Generator) -> dict[str, float]:
        """See `LabelSource`. Ties teach nothing; without `recent` pairs the human's show the actions."""
        with self.stopwatch("adapters"):
            decided = human.labels != 0.5
            starts, labels = human.starts[decided], human.labels[decided]
            if not len(starts):
                return {}
            frames = self.encoder.frames(starts)
            recent = recent if len(recent) else starts
            dynamics = self.encoder.dynamics(recent, self.encoder.frames(recent))
            learning = self.adapters.learn(self.encoder.text, frames, labels, dynamics, generator)
        return {
            "adapter_preference_loss": learning.preference_loss,
            "adapter_dynamics_loss": learning.dynamics_loss,
            "adapter_accepted": float(learning.accepted),
        }

    def state(self) -> dict[str, Tensor]:
        """See `LabelSource`."""
        return self.adapters.state()

    def save(self, folder: Path) -> None:
        """See `LabelSource`."""
        self.adapters.save(folder / ADAPTERS_FILE, self.encoder.fingerprint)


class SimulatedVLM:
    """A model that is right with a given probability, whatever a segment looks like; it sees no frames."""

    def __init__(self, replay: RunReplay, config: RunConfig, accuracy: float) -> None:
        self.replay, self.accuracy = replay, accuracy
        self.seed, self.length = config.seed, config.feedback.segment_length

    def judge(self, starts: IntArray) -> Judgement:
        """See `LabelSource`."""
        truth = self.replay.true_labels(starts, self.length)
        returns = simulated_returns(starts, truth, self.accuracy, self.seed)
        return Judgement(returns, returns)

    def adapt(self, human: PreferenceBuffer, recent: IntArray, generator: np.random.Generator) -> dict[str, float]:
        """A simulated model learns nothing."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """See `LabelSource`."""
        return {}

    def save(self, folder: Path) -> None:
        """Nothing was learned."""


def make_label_source(
    config: RunConfig,
    replay: RunReplay,
    encoder: RunEncoder | None,
    generator: np.random.Generator,
    stopwatch: Stopwatch,
    results: Path,
) -> LabelSource | None:
    """The label source that a config names; None where no VLM labels. `generator` draws fresh adapters.

    Raises `PrefVLMError` where the adapters of another run are asked for that are not there or do not fit.
    """
    if not config.vlm.labels:
        return None
    if config.vlm.simulated_accuracy is not None:
        return SimulatedVLM(replay, config, config.vlm.simulated_accuracy)
    assert encoder is not None
    if not config.adapter.enabled:
        return FrozenVLM(encoder)
    return AdaptedVLM(encoder, _adapters(config, encoder, generator, results), stopwatch)


def _adapters(config: RunConfig, encoder: RunEncoder, generator: np.random.Generator, results: Path) -> Adapters:
    """Fresh adapters, or those of the run that `adapter.source` names (transfer of PrefVLM and ROVED)."""
    dimension, device = len(encoder.text), torch.device("cpu")
    if not config.adapter.source:
        return Adapters(config.adapter, dimension, generator, device)
    path = results / config.adapter.source / ADAPTERS_FILE
    if not path.exists():
        missing = f"adapter.source is {config.adapter.source}, but there is no {path}"
        if config.adapter.source in published_runs(results / config.adapter.source.split("/")[0]):
            raise PrefVLMError(
                f"{missing}: of that run only the tables are published; train it again in another results folder and "
                "copy the file from there."
            )
        raise PrefVLMError(f"{missing}; train that run first.")
    return Adapters.read(path, encoder.fingerprint, config.adapter, dimension, device)


def labels_of(returns: FloatArray, ties: str) -> FloatArray:
    """P(second preferred) (n,) that returns (n, 2) say: 0 or 1, and unless `ties` is "none" 1/2 where they are
    close."""
    difference = returns[:, 1] - returns[:, 0]
    labels = (difference > 0).astype(np.float32)
    if ties != "none":
        labels[np.abs(difference) < TIE_MARGIN * returns.std()] = 0.5
    return labels
