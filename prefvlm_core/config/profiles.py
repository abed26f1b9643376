"""The profiles, each given by the fields in which it differs from the defaults, which are those of profile `paper`."""

from __future__ import annotations

from typing import Any

from prefvlm_core.common.errors import unknown_name

PROFILES: dict[str, dict[str, Any]] = {
    "paper": {},
    "laptop": {
        "total_steps": 6_000,
        "horizon": 50,
        "action_repeat": 5,  # the hand moves 5 cm per action instead of 1 cm: tasks need a sixth of the updates
        "sac.hidden_layers": 2,
        "sac.width": 128,
        "sac.batch_size": 128,
        "sac.actor_learning_rate": 1e-3,
        "sac.critic_learning_rate": 1e-3,
        "sac.target_rate": 0.02,
        "sac.target_update_every": 1,
        "sac.critic_norm": True,
        "sac.standardise": True,
        "exploration.random_steps": 250,
        "exploration.entropy_steps": 250,
        "reward.hidden_layers": 2,
        "reward.width": 128,
        "reward.learning_rate": 1e-3,
        "reward.batch_size": 64,
        "reward.inputs": "relations",
        "reward.standardise": True,
        "reward.stop_on": "human",
        "feedback.budget": 64,
        "feedback.first_session_queries": 16,
        "feedback.schedule": "even",
        "feedback.session_every": 250,
        "feedback.paired_start": True,
        "feedback.segment_length": 10,  # 50 environment steps, as in the papers
        "feedback.teacher_rationality": 5.0,  # a step's reward is the mean of 5 environment steps, not their sum
        "feedback.teacher_discount": 0.59,  # 0.9 ** 5
        "vlm.model": "tinyliv2",
        "vlm.queries": 20,
        "filter.human_selection": "uncertain-pool",
        "adapter.dynamics_weight": 4.0,  # the papers sum the squared error over the action's 4 dimensions
        "filter.beta_max": 0.0,  # with RIME's 3 and 1, nine of ten labels are clean and no more accurate than all are
        "filter.beta_min": 0.0,
        "evaluation.every": 500,
        "evaluation.episodes": 10,
        "evaluation.final_episodes": 10,
    },
}
PROFILES["quick"] = PROFILES["laptop"] | {"total_steps": 3_000, "evaluation.episodes": 5}
"""Maps each profile to the dotted fields in which it differs from the defaults."""
SUMMARIES = {
    "quick": "minutes, to see that everything works",
    "laptop": "hours on a laptop's cores, for evidence",
    "paper": "days on a GPU, at the papers' scale",
}
"""A line on each profile, from small to large."""
FIRST_EDITION = {
    "sac.critic_norm": False,
    "sac.standardise": False,
    "reward.inputs": "state-action",
    "reward.standardise": False,
    "reward.stop_on": "all",
    "feedback.budget": 200,
    "feedback.first_session_queries": 40,
    "feedback.schedule": "fixed",
    "feedback.session_queries": 11,
    "feedback.session_every": 300,
    "feedback.paired_start": False,
    "feedback.teacher_rationality": 1.0,
    "feedback.teacher_discount": 0.9,
    "vlm.model": "tinyliv",
    "filter.human_selection": "uncertain",
    "adapter.dynamics_weight": 1.0,
    "evaluation.every": 1_000,
    "evaluation.episodes": 20,
    "evaluation.final_episodes": 50,
}
"""What `laptop` was when the first comparison was trained. Experiments whose runs are still those say so."""


def check_profile(name: str) -> str:
    """Return `name` if it is a profile, else raise `PrefVLMError` with a suggestion."""
    if not isinstance(name, str) or name not in PROFILES:
        raise unknown_name("profile", name, PROFILES)
    return name
