"""The estimate of memory against what training really holds."""

from typing import Any

import numpy as np
import pytest

from prefvlm_core.config.memory import memory_needed
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.methods import run_config
from prefvlm_core.vlm.adapters import Adapters
from prefvlm_core.vlm.labeller import fresh_adapters

PART = "the adapters (adapter.hidden, adapter.output, adapter.folds)"


@pytest.mark.parametrize(
    ("model", "dimension", "most"), [("tinyliv2", 128, 1.0), ("goal:random", 128, 1.0), ("liv", 1_024, 1.26)]
)
@pytest.mark.parametrize("changes", [{}, {"adapter.residual": True}, {"adapter.folds": 9, "adapter.hidden": 64}])
def test_adapters_need_what_their_networks_hold(
    model: str, dimension: int, most: float, changes: dict[str, Any]
) -> None:
    config = run_config("button-press-v3", "prefvlm", 0, "quick", changes | {"vlm.model": model})
    adapters = fresh_adapters(config.adapter, dimension, sizes_of(config.task).action, np.random.default_rng(0))
    assert isinstance(adapters, Adapters)
    held = 4 * adapters.values.nbytes  # with the gradient and Adam's two moments of each parameter
    estimate = memory_needed(config)[PART]
    assert held <= estimate <= most * held
