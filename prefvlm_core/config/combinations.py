"""Which values of a config go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.registry import all_tasks, check_horizon

if TYPE_CHECKING:
    from prefvlm_core.config.run import RunConfig


def check_together(config: RunConfig) -> None:
    """Raise `PrefVLMError` for the first combination of values that is not allowed."""
    if config.task in all_tasks():  # others are refused where they are to be trained, see `checks.names`
        check_horizon(config.task, config.horizon, config.action_repeat)
    for name, steps in (("total_steps", config.total_steps), ("evaluation.every", config.evaluation.every)):
        if steps % config.horizon:
            raise PrefVLMError(f"{name} must be a multiple of horizon {config.horizon}, got {steps}.")
    if config.reward.learning == "surf" and not (
        config.surf.crop < config.feedback.segment_length <= config.horizon - 2 * config.surf.window
        and config.surf.crop <= 2 * config.surf.window
    ):
        raise PrefVLMError(
            f"surf.crop {config.surf.crop} must be below feedback.segment_length {config.feedback.segment_length} and "
            f"at most 2 surf.window, and the segment with surf.window {config.surf.window} at both ends must fit into "
            f"horizon {config.horizon}."
        )
    if config.feedback.segment_length > config.horizon:
        raise PrefVLMError(
            f"feedback.segment_length must be at most horizon {config.horizon}, got {config.feedback.segment_length}."
        )
    for name, steps in (("horizon", config.horizon), ("feedback.segment_length", config.feedback.segment_length)):
        if steps % config.vlm.frame_stride:
            raise PrefVLMError(f"vlm.frame_stride {config.vlm.frame_stride} must divide {name} {steps}.")
    _check_vlm(config)
    if config.reward.source == "learned":
        _check_schedule(config)


def check_trainable(config: RunConfig) -> None:
    """Raise `PrefVLMError` for values with which a training could begin, but not go on.

    A config itself may have them, so that the folder of a run that ended so stays readable.
    """
    exploration, horizon = config.exploration, config.horizon
    if exploration.random_steps < horizon and (config.reward.source == "vlm" or config.reward.embedded):
        raise PrefVLMError(
            f"exploration.random_steps must cover one episode ({horizon} actions), got {exploration.random_steps}: the "
            "agent learns after them, and the VLM's frames give rewards to whole episodes only."
        )
    if not exploration.random_steps:
        raise PrefVLMError(
            "exploration.random_steps must be at least 1, got 0: learning starts after them and needs a step."
        )
    adapter = config.adapter
    learns_dynamics = adapter.enabled and adapter.kind == "mlp" and adapter.dynamics_weight > 0
    if config.vlm.labels and learns_dynamics and config.feedback.segment_length == config.vlm.frame_stride:
        raise PrefVLMError(
            f"feedback.segment_length {config.feedback.segment_length} with vlm.frame_stride {config.vlm.frame_stride} "
            "leaves one frame of a segment, but adapters learn dynamics from two; lower vlm.frame_stride, or set "
            "adapter.dynamics_weight to 0."
        )


def _check_vlm(config: RunConfig) -> None:
    embeds = not (config.vlm.simulated_accuracy or config.vlm.endpoint)
    if not embeds and (config.adapter.enabled or config.reward.source == "vlm"):
        raise PrefVLMError(
            f"vlm.model {config.vlm.model} gives no embeddings, so it can neither be adapted nor reward single "
            "actions; unset adapter.enabled and set reward.source to learned."
        )
    if config.vlm.endpoint and config.vlm.shows != "frame":
        raise PrefVLMError(
            f"vlm.model {config.vlm.model} sees several frames of a segment side by side, so it sees motion already; "
            "set vlm.shows to frame."
        )
    if config.reward.embedded:
        _check_embedded(config, embeds)
    if config.vlm.endpoint and config.vlm.labels and config.vlm.ties == "none" and config.vlm.question != "done":
        raise PrefVLMError(f"vlm.model {config.vlm.model} can find segments equal; set vlm.ties to drop or keep.")
    if config.adapter.source and not (config.vlm.labels and config.adapter.enabled):
        raise PrefVLMError(
            f"adapter.source is {config.adapter.source}, but the run trains no adapters; set vlm.labels and "
            "adapter.enabled, or leave it empty."
        )


def _check_schedule(config: RunConfig) -> None:
    if config.reward.learning in ("surf", "rime") and config.vlm.labels:
        raise PrefVLMError(
            f"reward.learning {config.reward.learning} learns from human labels only; set it to plain or unset "
            "vlm.labels."
        )
    if config.first_session_step < config.horizon:
        raise PrefVLMError(
            "exploration.random_steps + exploration.entropy_steps must cover one episode "
            f"({config.horizon} actions) before the first feedback session, got {config.first_session_step}."
        )
    if config.total_steps <= config.first_session_step:
        raise PrefVLMError(
            f"total_steps {config.total_steps} must exceed the {config.first_session_step} actions of exploration, "
            "after which feedback begins."
        )
    if not config.feedback.budget and not config.vlm.labels:
        raise PrefVLMError(
            "feedback.budget is 0 and vlm.labels is off, so that the reward would learn from no label at all; set one "
            "of them, or reward.source to true or vlm."
        )
    if config.feedback.budget > 0 and not 1 <= config.feedback.first_session_queries <= config.feedback.budget:
        raise PrefVLMError(
            f"feedback.first_session_queries must be 1 to feedback.budget {config.feedback.budget}, "
            f"got {config.feedback.first_session_queries}."
        )


def _check_embedded(config: RunConfig, embeds: bool) -> None:
    if not embeds:
        raise PrefVLMError(
            f"reward.inputs embedding needs embeddings, but vlm.model {config.vlm.model} gives none; choose another."
        )
    if config.vlm.frame_stride != 1:
        raise PrefVLMError(
            "reward.inputs embedding needs the frame after every action, but vlm.frame_stride is "
            f"{config.vlm.frame_stride}; set it to 1."
        )
    if config.exploration.bonus or config.mrn.meta_every or config.reward.learning == "rime":
        raise PrefVLMError(
            "reward.inputs embedding knows rewards only after an episode, but exploration.bonus, mrn.meta_every and "
            "reward.learning rime ask for those of single batches; unset them."
        )
