"""Whether a fleet can be trained here: its names, and the machine, models and queues that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from prefvlm_core.checks.names import check_names
from prefvlm_core.common.errors import PrefVLMError, shown
from prefvlm_core.common.machine import usable_memory
from prefvlm_core.config.combinations import check_trainable
from prefvlm_core.config.fleets import check_compatible
from prefvlm_core.config.memory import check_memory
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.domains.fleet import check_main_guard
from prefvlm_core.domains.registry import domain_of
from prefvlm_core.labelling.teacher import check_queue
from prefvlm_core.preferences.teachers import HUMAN
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.tensorboard import check_tensorboard
from prefvlm_core.vlm import asks_endpoint, has_weights, load, seen_fingerprint, uses_vlm, weights_for
from prefvlm_core.vlm.endpoint.source import check_endpoint
from prefvlm_core.vlm.labeller import source_adapters


def check_start(configs: Sequence[RunConfig], execution: Execution) -> None:
    """Raise `PrefVLMError` for what would stop the training of a fleet.

    For all runs these are names that no registry knows, values with which a training cannot go on, and runs that cannot
    share a fleet. For those that are not finished they are also a package, a device or memory that this machine does
    not have, a model whose weights cannot be read, adapters to start from that are missing or do not fit, TensorBoard
    if it is asked for and not installed, and a label queue or an endpoint that does not answer.
    """
    check_main_guard()
    if isinstance(configs, RunConfig) or not all(isinstance(config, RunConfig) for config in configs):
        raise PrefVLMError(f"Training takes a list of what run_config returns, got {shown(configs)}.")
    if not isinstance(execution, Execution):
        raise PrefVLMError(f"execution must be an Execution, for example Execution(workers=2), got {shown(execution)}.")
    check_compatible(configs)
    for config in configs:
        check_names(config)
        check_trainable(config)
    if waiting := [config for config in configs if not RunDirectory(execution.results, config).finished]:
        for config in waiting:
            domain_of(config.task).check_installed()
        _check_machine(waiting, execution)
        if execution.tensorboard:
            check_tensorboard()
        if execution.vlm_weights:
            _check_weights(configs, execution.vlm_weights)
        _check_models(waiting, execution)
        if any(config.feedback.teacher == HUMAN for config in waiting):
            check_queue(execution)
        for config in waiting:  # last, because the answers are stored
            if asks_endpoint(config):
                check_endpoint(config, execution)


def _check_machine(configs: Sequence[RunConfig], execution: Execution) -> None:
    device = execution.torch_device()
    check_memory(
        configs, torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else usable_memory()
    )


def _check_weights(configs: Sequence[RunConfig], weights: str) -> None:
    """Raise `PrefVLMError` for a checkpoint file that no run of the fleet takes, finished ones included."""
    models = sorted({config.vlm.model for config in configs if uses_vlm(config)})
    if models and all(map(has_weights, models)):
        load(models[0], weights)  # refuses the file


def _check_models(configs: Sequence[RunConfig], execution: Execution) -> None:
    seeing = [config for config in configs if uses_vlm(config)]
    for name in sorted({config.vlm.model for config in seeing}):
        model = load(name, weights_for(name, execution.vlm_weights))
        for config in (config for config in seeing if config.vlm.model == name and config.adapter.source):
            dimension = len(model.encode_task(config.task))
            source_adapters(config, seen_fingerprint(model, config), dimension, Path(execution.results))
