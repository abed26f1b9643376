"""prefvlm: preference-based reinforcement learning with a vision-language model and few human labels.

An open, reproducible companion to PrefVLM (arXiv 2502.01616). To see the whole method, read `train.py` from top to
bottom.

It offers what most notebooks and scripts need: `from prefvlm_core import load_metrics, run_config, train`. Each name is
imported on first use, so that `prefvlm --help` does not wait for torch and MuJoCo.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors, which cannot follow `_HOMES`
    from prefvlm_core.config.profiles import PROFILES as PROFILES
    from prefvlm_core.config.run import Execution as Execution
    from prefvlm_core.config.run import RunConfig as RunConfig
    from prefvlm_core.domains.domain import Domain as Domain
    from prefvlm_core.domains.gymnasium_domain import GymnasiumDomain as GymnasiumDomain
    from prefvlm_core.domains.registry import DOMAINS as DOMAINS
    from prefvlm_core.experiments.arms import Arm as Arm
    from prefvlm_core.experiments.grids import EXPERIMENTS as EXPERIMENTS
    from prefvlm_core.experiments.grids import Grid as Grid
    from prefvlm_core.experiments.plan import evaluations as evaluations
    from prefvlm_core.labelling.own_clips import label_pairs as label_pairs
    from prefvlm_core.labelling.widget import Labeller as Labeller
    from prefvlm_core.methods import METHODS as METHODS
    from prefvlm_core.methods import Method as Method
    from prefvlm_core.methods import run_config as run_config
    from prefvlm_core.preferences.filters import FILTERS as FILTERS
    from prefvlm_core.preferences.selection import HUMAN_SELECTIONS as HUMAN_SELECTIONS
    from prefvlm_core.preferences.selection import SELECTIONS as SELECTIONS
    from prefvlm_core.preferences.teachers import TEACHERS as TEACHERS
    from prefvlm_core.reward.inputs import REWARD_INPUTS as REWARD_INPUTS
    from prefvlm_core.reward.learners import LEARNERS as LEARNERS
    from prefvlm_core.runs.stored import load_labels as load_labels
    from prefvlm_core.runs.stored import load_metrics as load_metrics
    from prefvlm_core.train import train as train
    from prefvlm_core.vlm import VLMS as VLMS
    from prefvlm_core.vlm.goal_pictures import register_goal_pictures as register_goal_pictures
    from prefvlm_core.vlm.texts import register_task_text as register_task_text

__version__ = "0.1.0"

_HOMES = {
    "Arm": "prefvlm_core.experiments.arms",
    "DOMAINS": "prefvlm_core.domains.registry",
    "Domain": "prefvlm_core.domains.domain",
    "EXPERIMENTS": "prefvlm_core.experiments.grids",
    "Execution": "prefvlm_core.config.run",
    "FILTERS": "prefvlm_core.preferences.filters",
    "Grid": "prefvlm_core.experiments.grids",
    "GymnasiumDomain": "prefvlm_core.domains.gymnasium_domain",
    "HUMAN_SELECTIONS": "prefvlm_core.preferences.selection",
    "LEARNERS": "prefvlm_core.reward.learners",
    "Labeller": "prefvlm_core.labelling.widget",
    "METHODS": "prefvlm_core.methods",
    "Method": "prefvlm_core.methods",
    "PROFILES": "prefvlm_core.config.profiles",
    "REWARD_INPUTS": "prefvlm_core.reward.inputs",
    "RunConfig": "prefvlm_core.config.run",
    "SELECTIONS": "prefvlm_core.preferences.selection",
    "TEACHERS": "prefvlm_core.preferences.teachers",
    "VLMS": "prefvlm_core.vlm",
    "evaluations": "prefvlm_core.experiments.plan",
    "label_pairs": "prefvlm_core.labelling.own_clips",
    "load_labels": "prefvlm_core.runs.stored",
    "load_metrics": "prefvlm_core.runs.stored",
    "register_goal_pictures": "prefvlm_core.vlm.goal_pictures",
    "register_task_text": "prefvlm_core.vlm.texts",
    "run_config": "prefvlm_core.methods",
    "train": "prefvlm_core.train",
}
"""Maps each public name to the module that defines it."""

__all__ = ["__version__", *_HOMES]


class _Package(ModuleType):
    """This package, with its public names imported on demand."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module prefvlm_core.train would bind it here, over the function of the same name.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package
