"""The labels of one run so far: the human's, those of the VLM that the filter keeps, and the log of all of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.preferences.log import LabelLog
from prefvlm_core.preferences.pairs import PreferenceBuffer


class RunLabels:
    """All labels of one run so far."""

    def __init__(self) -> None:
        self.human = PreferenceBuffer()
        """Pairs that the human has labeled."""
        self.kept = PreferenceBuffer()
        """Pairs whose VLM label reward learning uses, flipped where the filter decided so."""
        self.asked_vlm = PreferenceBuffer()
        """Pairs that the VLM was asked about and the human was not, with the VLM's latest label."""
        self.log = LabelLog()

    def for_learning(self, judged_by_human: bool = False, reliability: float | None = None) -> PreferenceBuffer:
        """The labels that reward learning uses: the human's, followed by the VLM's.

        With `judged_by_human`, learning is judged on the human's alone, if there are any. `reliability`: probability
        with which the VLM's labels are right, where learning is to doubt them.
        """
        judged = len(self.human) if judged_by_human and len(self.human) else None
        both = PreferenceBuffer(self.human.starts, self.human.labels, judged)
        both.add(self.kept.starts, self.kept.labels)
        if reliability is not None:
            both.reliability = np.ones(len(both), np.float32)
            both.reliability[len(self.human) :] = reliability
        return both

    def newest_human(self, count: int) -> PreferenceBuffer:
        """The `count` newest pairs with human labels, or all of them if there are fewer."""
        first = max(0, len(self.human) - count)
        return PreferenceBuffer(self.human.starts[first:], self.human.labels[first:])

    def forget_vlm(self) -> None:
        """Drop the VLM's labels, because its pairs are about to be labeled again."""
        self.kept, self.asked_vlm = PreferenceBuffer(), PreferenceBuffer()

    def tensors(self) -> dict[str, Tensor]:
        """All labels and the log, for a checkpoint."""
        tensors = {"log": torch.from_numpy(self.log.rows)}
        for name in ("human", "kept", "asked_vlm"):
            buffer: PreferenceBuffer = getattr(self, name)
            tensors[f"{name}.starts"] = torch.from_numpy(buffer.starts)
            tensors[f"{name}.labels"] = torch.from_numpy(buffer.labels)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self.log.rows = tensors["log"].numpy()
        for name in ("human", "kept", "asked_vlm"):
            starts, labels = tensors[f"{name}.starts"].numpy(), tensors[f"{name}.labels"].numpy()
            setattr(self, name, PreferenceBuffer(starts, labels))
