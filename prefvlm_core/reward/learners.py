"""The ways in which a reward ensemble can learn, by the name that `reward.learning` gives."""

from prefvlm_core.common.registry import Registry
from prefvlm_core.reward.learning import MakeLearner, PlainLearner
from prefvlm_core.reward.rime import RIMELearner
from prefvlm_core.reward.surf import SURFLearner

LEARNERS: Registry[MakeLearner] = Registry(
    "reward.learning", {"plain": PlainLearner, "surf": SURFLearner, "rime": RIMELearner}
)
"""`reward.learning` -> the learner, made from a `LearningSetting`."""
