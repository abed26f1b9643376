"""Sources of labels in place of the human: the frozen VLM, the adapted VLM, or a simulated one.

A model behind an endpoint is one as well, see `vlm.endpoint.source`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.replay import RunReplay
from prefvlm_core.common.arrays import BoolArray, FloatArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import AdapterConfig, RunConfig
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.runs.directory import ADAPTERS_FILE
from prefvlm_core.runs.published import published_runs
from prefvlm_core.vlm.adaptation import FrameAdapter
from prefvlm_core.vlm.adapters import Adapters
from prefvlm_core.vlm.encoder import RunEncoder
from prefvlm_core.vlm.kernel_adapters import KernelAdapters
from prefvlm_core.vlm.simulated import SIMULATED, SimulatedModel

TIE_MARGIN = 0.5
"""Difference of returns below which a pair is a tie, where ties are allowed, as a multiple of the standard deviation of
all returns of the session."""
ADAPTERS: dict[str, type[FrameAdapter]] = {"mlp": Adapters, "kernel": KernelAdapters}
"""Maps `adapter.kind` to the class that learns from human labels."""
CPU = torch.device("cpu")
CHUNK = 256
"""Segments whose frames are looked up at once: in the paper's schedule, the embeddings of all pairs that are labeled
again in the last session would take 17 GB."""


class Judgement(NamedTuple):
    """The returns that a label source gives to pairs."""

    returns: FloatArray
    """The source's returns of both segments, (n, 2), from which labels follow; nan for pairs without an answer."""
    zero_shot: FloatArray
    """The returns by the frozen model, (n, 2), for comparison."""

    @property
    def answered(self) -> BoolArray:
        """Which pairs have returns, (n,)."""
        return np.asarray(~np.isnan(self.returns).any(axis=1))

    def of(self, chosen: BoolArray) -> Judgement:
        """The returns of the pairs that the mask `chosen` (n,) marks."""
        return Judgement(self.returns[chosen], self.zero_shot[chosen])


class LabelSource(ABC):
    """Judges pairs of one run by the returns of their segments. One that learns from the human's labels overrides the
    rest too."""

    @abstractmethod
    def judge(self, starts: IntArray) -> Judgement:
        """The returns of both segments of pairs `starts` (n, 2); the last `vlm.queries` of them are new."""

    def columns(self) -> dict[str, float]:
        """Columns for metrics.csv about what was judged so far."""
        return {}

    def adapt(self, human: PreferenceBuffer, recent: IntArray, generator: np.random.Generator) -> dict[str, float]:
        """Learn from all labels of the human so far, and from the actions in recently labeled pairs `recent` (n, 2).

        Returns columns for metrics.csv.
        """
        return {}

    def state(self) -> dict[str, Tensor]:
        """Every tensor that `adapt` changes, by name; copy into them to restore."""
        return {}

    def save(self, folder: Path) -> None:  # noqa: B027 -- nothing to store unless something is learned
        """Store in a run's folder what was learned, so that another run can start from it."""


class FrozenVLM(LabelSource):
    """The frozen model: a segment's return is the sum of the cosines of the text and its frames (PrefVLM §4.1).

    These returns never change, so each segment's is computed once and kept; after a resume, once more.
    """

    def __init__(self, encoder: RunEncoder) -> None:
        self.encoder = encoder
        self._kept = np.full(len(encoder.replay.rewards), np.nan, np.float32)
        """Returns by the first step of a segment, nan where none was asked for."""

    def judge(self, starts: IntArray) -> Judgement:
        """See `LabelSource`."""
        returns = self._zero_shot(starts)
        return Judgement(returns, returns)

    def _zero_shot(self, starts: IntArray) -> FloatArray:
        """The frozen model's returns (n, 2) of pairs (n, 2)."""
        for chunk in _chunks(starts[np.isnan(self._kept[starts])]):
            self._kept[chunk] = self.encoder.zero_shot_returns(self.encoder.frames(chunk))
        return self._kept[starts]


class AdaptedVLM(FrozenVLM):
    """The model with adapters that learn from the human's labels (PrefVLM §4.3)."""

    def __init__(self, encoder: RunEncoder, adapters: FrameAdapter, stopwatch: Stopwatch) -> None:
        super().__init__(encoder)
        self.adapters, self.stopwatch = adapters, stopwatch

    def judge(self, starts: IntArray) -> Judgement:
        """See `LabelSource`. If cross-validation rejected the adapters, the returns are the frozen model's.

        The segments of all pairs are sorted, so that a chunk holds those that overlap: each frame is adapted once,
        however many pairs show it, but for those at the edges of chunks.
        """
        text, returns = self.encoder.text, np.empty(len(self._kept), np.float32)
        for chunk in _chunks(starts):
            frames, shown = self.encoder.distinct_frames(chunk)
            returns[chunk] = self.adapters.segment_returns(text, frames, shown)
        return Judgement(returns[starts], self._zero_shot(starts))

    def adapt(self, human: PreferenceBuffer, recent: IntArray, generator: np.random.Generator) -> dict[str, float]:
        """See `LabelSource`. Ties are left out; without `recent` pairs, the actions are those in the human's pairs."""
        with self.stopwatch("adapters"):
            decided = human.labels != 0.5
            starts, labels = human.starts[decided], human.labels[decided]
            if not len(starts):
                return {}
            recent = recent if len(recent) else starts
            dynamics = self.encoder.dynamics(recent, self.encoder.frames(recent))
            pairs = self.encoder.frame_pairs(starts)
            learning = self.adapters.learn(self.encoder.text, pairs, labels, dynamics, generator)
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


class SimulatedVLM(LabelSource):
    """A model that knows the truth and errs on purpose, without looking at frames (see `vlm.simulated`)."""

    def __init__(self, model: SimulatedModel) -> None:
        self.model = model

    def judge(self, starts: IntArray) -> Judgement:
        """See `LabelSource`."""
        returns = self.model.returns(starts)
        return Judgement(returns, returns)


def make_label_source(
    config: RunConfig,
    replay: RunReplay,
    encoder: RunEncoder | None,
    generator: np.random.Generator,
    stopwatch: Stopwatch,
    results: Path,
) -> LabelSource | None:
    """The label source that a config asks for; None if no VLM labels pairs.

    `encoder` is needed for models that look at frames; `generator` initializes fresh adapters; the adapters of another
    run are read from its folder in `results`. Raises `PrefVLMError` if these are missing or do not fit.
    """
    if not config.vlm.labels:
        return None
    if config.vlm.simulated_accuracy is not None:
        return SimulatedVLM(SIMULATED[config.vlm.simulated_kind](config, replay, config.vlm.simulated_accuracy))
    assert encoder is not None
    if not config.adapter.enabled:
        return FrozenVLM(encoder)
    dimension = len(encoder.text)
    if config.adapter.source:
        adapters = source_adapters(config, encoder.fingerprint, dimension, results, replay.device)
    else:
        action_size = sizes_of(config.task).action
        adapters = fresh_adapters(config.adapter, dimension, action_size, generator, replay.device)
    return AdaptedVLM(encoder, adapters, stopwatch)


def fresh_adapters(
    config: AdapterConfig, dimension: int, action_size: int, generator: np.random.Generator, device: torch.device = CPU
) -> FrameAdapter:
    """Adapters that have learned nothing yet, for embeddings of length `dimension`."""
    return ADAPTERS[config.kind](config, dimension, action_size, generator, device)


def source_adapters(
    config: RunConfig, fingerprint: str, dimension: int, results: Path, device: torch.device = CPU
) -> FrameAdapter:
    """The adapters of the run that `adapter.source` names (transfer, as in PrefVLM and ROVED).

    `fingerprint` and `dimension` are those of the model's embeddings. Raises `PrefVLMError` if the adapters are missing
    or do not fit.
    """
    path = results / config.adapter.source / ADAPTERS_FILE
    if not path.exists():
        missing = f"adapter.source is {config.adapter.source}, but there is no {path}"
        if config.adapter.source in published_runs(results / config.adapter.source.split("/")[0]):
            raise PrefVLMError(
                f"{missing}: of that run only the tables are published; train it again in another results folder and "
                "copy the file from there."
            )
        raise PrefVLMError(f"{missing}; train that run first.")
    kind = ADAPTERS[config.adapter.kind]
    return kind.read(path, fingerprint, config.adapter, dimension, sizes_of(config.task).action, device)


def labels_of(returns: FloatArray, ties: str) -> FloatArray:
    """Labels P(second preferred) (n,) that follow from returns (n, 2).

    They are 0 or 1 and, unless `ties` is "none", 1/2 where the returns are close (see `TIE_MARGIN`).
    """
    difference = returns[:, 1] - returns[:, 0]
    labels = (difference > 0).astype(np.float32)
    if ties != "none" and len(returns):
        labels[(np.abs(difference) < TIE_MARGIN * returns.std()) | (difference == 0)] = 0.5
    return labels


def _chunks(starts: IntArray) -> Iterator[IntArray]:
    """The segments that differ among `starts` (...), in ascending order, `CHUNK` at a time."""
    segments = np.unique(starts)
    return (segments[first : first + CHUNK] for first in range(0, len(segments), CHUNK))
