"""prefvlm: preference-based reinforcement learning with a vision-language model and few human labels.

An open, reproducible companion to PrefVLM (arXiv 2502.01616). Read `train.py` top to bottom to see the whole method.

What most notebooks and scripts need is offered here: `from prefvlm_core import load_metrics, run_config, train`. Each
name is imported when it is first asked for, so that `prefvlm --help` does not wait for torch and MuJoCo.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors, which cannot follow `_HOMES`
    from prefvlm_core.config.profiles import PROFILES as PROFILES
    from prefvlm_core.config.run import Execution as Execution
    from prefvlm_core.config.run import RunConfig as RunConfig
    from prefvlm_core.labelling.widget import Labeller as Labeller
    from prefvlm_core.methods import METHODS as METHODS
    from prefvlm_core.methods import run_config as run_config
    from prefvlm_core.runs.stored import load_labels as load_labels
    from prefvlm_core.runs.stored import load_metrics as load_metrics
    from prefvlm_core.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "Execution": "prefvlm_core.config.run",
    "Labeller": "prefvlm_core.labelling.widget",
    "METHODS": "prefvlm_core.methods",
    "PROFILES": "prefvlm_core.config.profiles",
    "RunConfig": "prefvlm_core.config.run",
    "load_labels": "prefvlm_core.runs.stored",
    "load_metrics": "prefvlm_core.runs.stored",
    "run_config": "prefvlm_core.methods",
    "train": "prefvlm_core.train",
}
"""Public name -> the module that defines it."""

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
