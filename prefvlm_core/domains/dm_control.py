"""Locomotion: two bodies of the DeepMind Control suite, which learn to walk and to run."""

from __future__ import annotations

from typing import Any

from prefvlm_core.domains.domain import Domain, Drawing, Sizes, World
from prefvlm_core.domains.perturbations import INTENSITIES

_OBSERVED = {"walker-walk": 24, "cheetah-run": 17}
LOCOMOTION = tuple(_OBSERVED)
"""Tasks whose result is the episode's return: the suite knows no success, and a threshold on one step says little."""


class DMControl(Domain):
    """walker-walk and cheetah-run (extra `dmc`), as B-Pref and its successors compare on them.

    The true reward is the suite's, 0 to 1 per step of 25 ms (walker) or 10 ms (cheetah), so that an episode of 1000
    steps returns at most 1000. The suite knows no success; here it is a step whose reward is at least .9. There is no
    scripted expert.
    """

    title = "DMControl"
    tasks = {  # noqa: RUF012
        "walker-walk": "a two-legged robot walking upright",
        "cheetah-run": "a two-legged cheetah robot running fast",
    }
    longest_episode = 1_000
    extra = ("dm_control", "dmc")
    distributions = ("dm-control",)
    cameras = ("side",)
    factors = tuple(INTENSITIES)
    scene, agent = "a two-legged robot on a floor, seen from the side", "the robot"
    profiles = {  # noqa: RUF012
        "quick": {"horizon": 50, "action_repeat": 5, "reward.inputs": "state-action"},
        "laptop": {
            "total_steps": 12_000,
            "horizon": 250,
            "action_repeat": 4,
            "reward.inputs": "state-action",
            "feedback.session_every": 500,
            "evaluation.every": 1_000,
        },
        "paper": {  # B-Pref's for walker-walk (command and `sac.yaml`) with SURF's 100 labels; for cheetah-run the same
            "total_steps": 500_000,
            "horizon": 1_000,
            "sac.hidden_layers": 2,
            "sac.width": 1_024,
            "sac.batch_size": 1_024,
            "sac.actor_learning_rate": 5e-4,
            "sac.critic_learning_rate": 5e-4,
            "exploration.entropy_steps": 9_000,
            "feedback.budget": 100,
            "feedback.first_session_queries": 10,
            "feedback.session_queries": 10,
            "feedback.session_every": 20_000,
            "reward.max_epochs": 50,
        },
    }

    def sizes(self, task: str) -> Sizes:
        """See `Domain`."""
        return Sizes(_OBSERVED[task], action=6, snapshot=9, scene=1)

    def world(self, task: str, goal_visible: bool) -> World:
        """See `Domain`. There is no goal."""
        from prefvlm_core.domains.dm_control_world import DMControlWorld

        return DMControlWorld(task)

    def drawing(self, task: str, size: int, goal_marker: bool) -> Drawing:
        """See `Domain`. The camera follows the body."""
        from prefvlm_core.domains.dm_control_world import model_from_the_side, restore
        from prefvlm_core.domains.model_drawing import ModelDrawing

        model: Any = model_from_the_side(task)
        return ModelDrawing(model, restore, model.nq, size, goal_marker)
