"""The pairs of one session, with the VLM's labels, the filter's decisions and the true labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prefvlm_core.common.arrays import BoolArray, DoubleArray, FloatArray, IntArray
from prefvlm_core.preferences.filters import Filter, Partition


@dataclass(frozen=True)
class LabelledPool:
    """n pairs that the VLM has labeled and the filter has sorted."""

    starts: IntArray
    """First steps of both segments, (n, 2)."""
    new: BoolArray
    """Whether a pair was drawn in this session, (n,); the others are pairs of earlier sessions, labeled again."""
    labels: FloatArray
    """The VLM's P(second preferred), 0, 1/2 or 1, (n,)."""
    zero_shot: FloatArray
    """Segment returns by the frozen VLM, (n, 2)."""
    divergences: DoubleArray
    """Divergences of the labels from the reward ensemble's prediction, in nats, (n,)."""
    partition: Partition
    """The filter's decision about each label."""
    truth: DoubleArray
    """P(second preferred) by the true reward, 0, 1/2 or 1, (n,); used for the log and the metrics only."""

    @property
    def sorted_as(self) -> IntArray:
        """The index into `log.PARTITIONS` of each pair, (n,)."""
        return 1 + np.argmax(self.partition, axis=0)  # index 0 stands for labels that are not filtered

    @property
    def used_labels(self) -> FloatArray:
        """The labels as reward learning uses them: the opposite where the filter flips, (n,)."""
        return np.where(self.partition.flipped, 1 - self.labels, self.labels).astype(np.float32)

    def metrics(self, kl_filter: Filter) -> dict[str, float]:
        """Accuracies and fractions for metrics.csv; accuracies leave out pairs whose true returns tie."""
        labels, decided = self.labels, self.labels != 0.5
        clean, flipped, uncertain = self.partition
        return {
            "vlm_accuracy": self._accuracy(self.zero_shot[:, 1] > self.zero_shot[:, 0], np.ones_like(decided)),
            "adapted_vlm_accuracy": self._accuracy(labels, decided),
            "vlm_equal_fraction": _fraction(~decided),
            "clean_accuracy": self._accuracy(labels, clean & decided),
            "flipped_accuracy": self._accuracy(1 - labels, flipped),
            "uncertain_accuracy": self._accuracy(labels, uncertain),
            "clean_fraction": _fraction(clean),
            "flipped_fraction": _fraction(flipped),
            "uncertain_fraction": _fraction(uncertain),
            "tau_lower": kl_filter.lower,
            "tau_upper": kl_filter.upper,
        }

    def _accuracy(self, said: FloatArray | BoolArray, where: BoolArray) -> float:
        counted = where & (self.truth != 0.5)
        return _fraction(said[counted] == self.truth[counted])


def _fraction(true: BoolArray) -> float:
    """The fraction of a mask that is true; nan for an empty one, of a session whose pairs got no answer."""
    return float(true.mean()) if len(true) else math.nan
