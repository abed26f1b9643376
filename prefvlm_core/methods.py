"""The methods. Each is a recipe of the config fields in which it differs from PEBBLE. To add one, register it in
`METHODS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefvlm_core.common.errors import PrefVLMError, shown
from prefvlm_core.common.registry import Registry
from prefvlm_core.config.combinations import check_trainable
from prefvlm_core.config.profiles import PROFILES, check_profile
from prefvlm_core.config.run import RunConfig, from_fields
from prefvlm_core.domains.registry import domain_of


@dataclass(frozen=True)
class Method:
    """A recipe: the config fields that define a method, and a line that describes it."""

    summary: str
    """A description of the method in one line."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Dotted config fields applied on top of the profile, with the values of the method's paper for Meta-World."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Dotted config fields that differ in the profiles quick and laptop, whose runs and segments are far shorter."""


_PREFVLM = {"vlm.labels": True, "adapter.enabled": True, "feedback.sampling": "uniform"}
_NO_HUMAN = {"feedback.budget": 0}

METHODS: Registry[Method] = Registry(
    "method",
    {
        "sac": Method(
            "SAC on the task's true reward: the upper reference, no labels",
            {"reward.source": "true", "exploration.entropy_steps": 0} | _NO_HUMAN,
        ),
        "pebble": Method("PEBBLE: every query goes to the human (Lee et al. 2021, as in B-Pref)"),
        "surf": Method(
            "SURF: PEBBLE with pseudo-labels and temporal crops (Park et al. 2022)",
            {"reward.learning": "surf"},  # SURF's Meta-World command is the default of `surf`
            {"surf.epochs": 10, "surf.unlabelled_batches": 1, "surf.window": 1, "surf.crop": 1},
        ),
        "rune": Method(
            "RUNE: PEBBLE with a bonus where the reward ensemble disagrees (Liang et al. 2022)",
            {"exploration.bonus": 0.05},  # RUNE §5.1; its decay of 1e-5 is the default of `exploration.bonus_decay`
            {"exploration.bonus_decay": 5e-4},
        ),
        "mrn": Method(
            "MRN: PEBBLE with bi-level updates of the reward through the critic (Liu et al. 2022)",
            {"mrn.meta_every": 10_000},  # MRN's Meta-World command
            {"mrn.meta_every": 100},
        ),
        "rime": Method(
            "RIME: PEBBLE that drops and flips doubtful human labels, and starts warm (Cheng et al. 2024)",
            # RIME's Meta-World command: alpha, beta and the flipping threshold are the defaults of `filter` and `rime`.
            {"reward.learning": "rime", "filter.beta_sessions": 600},
            {"filter.beta_max": 3.0, "filter.beta_min": 1.0, "filter.beta_sessions": 60, "rime.warm_up_epochs": 18},
        ),
        "prefvlm": Method(
            "PrefVLM: the VLM labels, the KL filter sorts the labels, the human answers uncertain pairs", _PREFVLM
        ),
        "prefvlm-adaptive": Method(
            "PrefVLM with thresholds learned from the human's labels, none tuned",
            _PREFVLM | {"filter.mode": "adaptive"},
        ),
        "prefvlm-plus": Method(
            "PrefVLM without thresholds: human audits say whether and how far to trust the VLM; pairs are recent ones",
            _PREFVLM
            | {"filter.mode": "audited", "filter.human_selection": "random", "filter.human_order": "disagreement"}
            | {"adapter.kind": "kernel"}
            | {"feedback.recent_episodes": 30},  # QPA's near-policy queries (Hu et al. 2024): 30 to 60 in Meta-World
            {"feedback.recent_episodes": 10},
        ),
        "vlm-preference": Method(
            "The VLM labels all pairs, without a filter and without a human",
            _PREFVLM | _NO_HUMAN | {"filter.mode": "none", "adapter.enabled": False},
        ),
        "rlvlmf": Method(
            "RL-VLM-F style: the VLM compares single images, no human (Wang et al. 2024)",
            # RL-VLM-F's Meta-World runs. Its chat model can answer that it sees no difference; here, close returns do.
            {"vlm.labels": True, "vlm.frame_stride": 1, "vlm.queries": 40, "vlm.relabel": False, "filter.mode": "none"}
            | {"vlm.ties": "drop", "feedback.sampling": "uniform"}
            | {"feedback.segment_length": 1, "feedback.session_every": 4_000}
            | _NO_HUMAN,
            {"feedback.session_every": 600},
        ),
        "vlm-reward": Method(
            "The VLM's cosine as dense reward, without labels",
            {"reward.source": "vlm", "exploration.entropy_steps": 0} | _NO_HUMAN,
        ),
        "prefvlm-no-filter": Method(
            "PrefVLM without the filter: every VLM label is kept, the human answers random pairs",
            _PREFVLM | {"filter.mode": "none", "filter.human_selection": "random"},
        ),
        "prefvlm-random-selection": Method(
            "PrefVLM whose human answers random pairs instead of uncertain ones",
            _PREFVLM | {"filter.human_selection": "random"},
        ),
        "prefvlm-no-adaptation": Method("PrefVLM without adapters", _PREFVLM | {"adapter.enabled": False}),
        "prefvlm-no-inverse-dynamics": Method(
            "PrefVLM whose adapters learn from the human's labels only", _PREFVLM | {"adapter.dynamics_weight": 0.0}
        ),
    },
)


def layers(
    task: str,
    method: str,
    profile: str,
    changes: Mapping[str, Any] | None = None,
    profile_changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Who changes which dotted fields of the defaults: "profile", "method" and "you", where later ones prevail.

    The arguments are those of `run_config`, as are the errors.
    """
    check_profile(profile)
    if not isinstance(changes, Mapping | None):
        raise PrefVLMError(f"changes must be a dictionary such as {{'feedback.budget': 200}}, got {shown(changes)}.")
    recipe = METHODS[method]
    return {
        "profile": PROFILES[profile] | dict(domain_of(task).profiles.get(profile, {})) | dict(profile_changes or {}),
        "method": dict(recipe.changes) | ({} if profile == "paper" else dict(recipe.small)),
        "you": dict(changes or {}),
    }


def run_config(
    task: str,
    method: str,
    seed: int,
    profile: str,
    changes: Mapping[str, Any] | None = None,
    profile_changes: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The complete config of one run: the defaults, changed by the profile, the method, and the caller's `changes`.

    `profile_changes` are changes of the profile itself, which the method's recipe overrides.

    Example: `run_config("drawer-close-v3", "pebble", 0, "quick", {"feedback.budget": 200})`.
    Raises `PrefVLMError` for an unknown name or field and for a value that is not allowed.
    """
    fields: dict[str, Any] = {"task": task, "method": method, "seed": seed, "profile": profile}
    for changed in layers(task, method, profile, changes, profile_changes).values():
        fields |= changed
    config = from_fields(fields)
    check_trainable(config)
    return config
