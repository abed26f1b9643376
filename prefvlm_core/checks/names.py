"""Whether every name in a config is known. No registry imports torch or MuJoCo, so that the answer comes at once."""

from __future__ import annotations

from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.registry import check_horizon
from prefvlm_core.methods import METHODS
from prefvlm_core.preferences.filters import FILTERS
from prefvlm_core.preferences.selection import HUMAN_SELECTIONS, SELECTIONS
from prefvlm_core.preferences.teachers import HUMAN, TEACHERS
from prefvlm_core.reward.inputs import inputs_of
from prefvlm_core.reward.learners import LEARNERS
from prefvlm_core.vlm import VLMS


def check_names(config: RunConfig) -> None:
    """Raise `PrefVLMError`, with a suggestion, for the first name in a config that no registry knows.

    The config does not check them itself, so that a stored run stays readable where the user's notebook that registered
    its task, teacher or model has not been run.
    """
    check_horizon(config.task, config.horizon, config.action_repeat)
    METHODS.check(config.method)
    if config.feedback.teacher != HUMAN:
        TEACHERS.check(config.feedback.teacher)
    SELECTIONS.check(config.feedback.sampling)
    HUMAN_SELECTIONS.check(config.filter.human_selection)
    FILTERS.check(config.filter.mode)
    LEARNERS.check(config.reward.learning)
    inputs_of(config.reward.inputs, config.task)
    if config.vlm.simulated_accuracy is None and config.vlm.endpoint is None:
        VLMS.check(config.vlm.model)
