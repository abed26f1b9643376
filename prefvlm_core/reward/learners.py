"""The registry of reward learners, by the names that `reward.learning` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefvlm_core.common.registry import Registry

if TYPE_CHECKING:  # torch is imported by the learner that a run needs, since names are also checked without it
    from prefvlm_core.reward.learning import LearningSetting, MakeLearner, RewardLearner


def _plain(setting: LearningSetting) -> RewardLearner:
    from prefvlm_core.reward.learning import PlainLearner

    return PlainLearner(setting)


def _surf(setting: LearningSetting) -> RewardLearner:
    from prefvlm_core.reward.surf import SURFLearner

    return SURFLearner(setting)


def _rime(setting: LearningSetting) -> RewardLearner:
    from prefvlm_core.reward.rime import RIMELearner

    return RIMELearner(setting)


LEARNERS: Registry[MakeLearner] = Registry("reward.learning", {"plain": _plain, "surf": _surf, "rime": _rime})
"""Maps `reward.learning` to what makes the learner from a `LearningSetting`."""
