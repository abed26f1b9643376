"""How much memory a fleet needs, estimated before any is taken, so that a typing error cannot stop the machine."""

from __future__ import annotations

from collections.abc import Sequence

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.machine import in_bytes
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.registry import sizes_of

_FLOAT = 4  # bytes of a float32
_EMBEDDING = 1_280  # numbers of the largest model's embedding
_SMALL_EMBEDDING = 128  # of the models that come with the package
_REWARDS = 2  # per step: the true and the learned one
_ADAM = 4  # copies of a parameter in training: itself, its gradient, and Adam's two moments


def replay_bytes(config: RunConfig) -> int:
    """Bytes of the transitions of one run, in memory or in the pieces of its checkpoint."""
    return _FLOAT * _replay_numbers(config)


def memory_needed(config: RunConfig) -> dict[str, int]:
    """Bytes that one run of a fleet needs, by part of the training, with the fields that the size depends on."""
    sac, reward, feedback, adapter = config.sac, config.reward, config.feedback, config.adapter
    sizes = sizes_of(config.task)
    step = sizes.observation + sizes.action
    parts = {
        "the replay (total_steps)": _replay_numbers(config),
        "the agent's networks (sac.width, sac.hidden_layers)": 3
        * _ADAM
        * _parameters(step, sac.width, sac.hidden_layers),
        "the agent's batches (sac.batch_size, sac.width, sac.hidden_layers)": 2
        * sac.batch_size
        * (2 * step + sac.width * sac.hidden_layers),
        "the evaluation's pairs (evaluation.held_out_pairs, feedback.segment_length)": 2
        * config.evaluation.held_out_pairs
        * feedback.segment_length
        * step,
    }
    if reward.source == "learned":
        queries = max(feedback.first_session_queries, feedback.session_queries)
        parts |= {
            "the reward ensemble (reward.members, reward.width, reward.hidden_layers)": _ADAM
            * reward.members
            * _parameters(step, reward.width, reward.hidden_layers),
            "the candidate pairs (feedback.candidates, feedback.session_queries, feedback.segment_length)": 2
            * min(queries, feedback.budget)
            * feedback.candidates
            * feedback.segment_length
            * (step + reward.width),
        }
    if reward.embedded:
        parts["the embeddings of frames (total_steps)"] = config.total_steps * _EMBEDDING
    if config.vlm.labels:
        parts["the pairs of the VLM (vlm.queries, feedback.segment_length)"] = (
            2 * config.vlm.queries * feedback.segment_length * (step + reward.width)
        )
    if adapter.enabled and config.vlm.labels and adapter.kind == "mlp":  # kernel adapters are small
        parts["the adapters (adapter.hidden, adapter.output, adapter.folds)"] = (
            _ADAM * (adapter.folds + 1) * _adapter_parameters(config)
        )
    return {part: _FLOAT * floats for part, floats in parts.items()}


def check_memory(configs: Sequence[RunConfig], available: int) -> None:
    """Raise `PrefVLMError` if a fleet of these runs needs more than `available` bytes."""
    total: dict[str, int] = {}
    for config in configs:
        for part, size in memory_needed(config).items():
            total[part] = total.get(part, 0) + size
    needed, largest = sum(total.values()), max(total, key=lambda part: total[part])
    if needed > available:
        raise PrefVLMError(
            f"Training {len(configs)} run{'s' * (len(configs) > 1)} needs about {in_bytes(needed)} of memory, most of "
            f"it for {largest}, but there are {in_bytes(available)} here."
        )


def _parameters(inputs: int, width: int, hidden_layers: int) -> int:
    """Number of parameters of a network with one output, about."""
    return width * (inputs + 2) + (hidden_layers - 1) * width * (width + 1)


def _adapter_parameters(config: RunConfig) -> int:
    """Number of parameters of an adapter of text and one of frames, and of the head that predicts actions."""
    adapter, embedding = config.adapter, _EMBEDDING
    if config.vlm.model.removeprefix("goal:").startswith(("tinyliv", "random")):
        embedding = _SMALL_EMBEDDING
    adapted = embedding if adapter.residual else adapter.output
    either = (embedding + 1) * adapter.hidden + (adapter.hidden + 1) * adapted
    return 2 * either + (2 * adapted + 1) * adapter.output + (adapter.output + 1) * sizes_of(config.task).action


def _replay_numbers(config: RunConfig) -> int:
    sizes = sizes_of(config.task)
    return config.total_steps * (sizes.observation + sizes.action + sizes.snapshot + _REWARDS)
