"""How large a sanity check is: its tasks, and the VLM that it checks."""

from dataclasses import dataclass
from typing import Any

from prefvlm_core.domains.registry import MAZES
from prefvlm_core.domains.tasks import PAPER_TASKS
from prefvlm_core.vlm.pretraining.recordings import RECORDED_STEPS

UNTRAINED = "random"
"""The network of TinyLIV with random weights, beside every model for contrast."""


@dataclass(frozen=True)
class SanityPlan:
    """The size of a sanity check."""

    tasks: tuple[str, ...]
    trajectories: int
    """Trajectories of mixed quality per task and draw, at least 12: adapters learn from pairs of two thirds and
    are judged on pairs of the rest."""
    draws: int
    """Independent draws of trajectories, pairs and initial adapters per task, at least 2."""
    stride: int
    """Environment steps from one frame that the VLM sees to the next, a multiple of 5."""
    model: str = "tinyliv2"
    """The VLM that is checked."""
    film_steps: int = RECORDED_STEPS
    """Environment steps, a multiple of 5, of the episodes along which rewards and values are followed, in which the
    expert should succeed."""

    @property
    def models(self) -> tuple[str, str]:
        """The VLM and, for contrast, an untrained network."""
        return self.model, UNTRAINED


PLANS = {
    "quick": SanityPlan(("window-open-v3", "button-press-v3"), trajectories=24, draws=3, stride=10),
    "laptop": SanityPlan(PAPER_TASKS, trajectories=24, draws=6, stride=10),
    "paper": SanityPlan(PAPER_TASKS, trajectories=60, draws=10, stride=5),
}
_MAZE: Any = {"stride": 10, "model": "tinyliv2-maze", "film_steps": 400}
MAZE_PLANS = {
    "quick": SanityPlan(("point-maze-u", "maze-two-goals"), trajectories=12, draws=2, **_MAZE),
    "laptop": SanityPlan(MAZES, trajectories=24, draws=4, **_MAZE),
    "paper": SanityPlan(MAZES, trajectories=60, draws=10, **_MAZE),
}
"""The same for the mazes (extra `navigation`)."""
