"""The registry of reward learners, by the names that `reward.learning` takes."""

from prefvlm_core.common.registry import Registry
from prefvlm_core.reward.learning import MakeLearner, PlainLearner
from prefvlm_core.reward.rime import RIMELearner
from prefvlm_core.reward.surf import SURFLearner

LEARNERS: Registry[MakeLearner] = Registry(
    "reward.learning", {"plain": PlainLearner, "surf": SURFLearner, "rime": RIMELearner}
)
"""Maps `reward.learning` to what makes the learner from a `LearningSetting`."""
