"""Explorers for notebooks: stored results under the fingers, without any training. One call shows one explorer."""

from prefvlm_core.explore.episodes import EpisodeExplorer
from prefvlm_core.explore.labels import LabelExplorer
from prefvlm_core.explore.runs import RunExplorer
from prefvlm_core.explore.thresholds import ThresholdExplorer

__all__ = ["EpisodeExplorer", "LabelExplorer", "RunExplorer", "ThresholdExplorer"]
