"""What the fleets of a profile cost: steps, labels, frames, memory and disk, counted from their configs, and hours, by
multiplying how often each part of a training takes place by how long it takes once (`timings`).

Counted are the parts that docs/explanation/cost.md lists. Not counted are the start of a fleet, the state entropy of
exploration, checkpoints, and what single methods add (SURF's pseudo-labels, RIME's warm start, MRN's meta-updates).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from prefvlm_core.common.machine import in_bytes
from prefvlm_core.config.memory import memory_needed, replay_bytes
from prefvlm_core.config.run import RunConfig
from prefvlm_core.experiments.timings import Timings
from prefvlm_core.vlm import uses_vlm

EXPECTED_EPOCHS = 0.5
"""Passes over the labels until reward learning stops early, as a fraction of `reward.max_epochs`, and the fraction of
the VLM's labels that a filter keeps: about the means of the published runs of profile laptop."""
EXPECTED_KEPT = 0.65


@dataclass(frozen=True)
class Work:
    """How often each part takes place in a whole run."""

    evaluation_episodes: int
    updates: int
    """Gradient updates of the agent between its steps."""
    frames: float
    """Different frames that are expected to be drawn and embedded."""
    reward_updates: float
    reward_steps: float
    """Steps that the reward ensemble evaluates: the replay at each session, each step of the pairs that are filtered
    once, and the candidates of disagreement sampling."""
    adapted_frames: float
    """Frames that are read and adapted, in all sessions together."""
    adapter_updates: int
    judged_pairs: float
    """Human-labeled pairs that the adapters judge in all sessions together, about half the budget in each."""


@functools.cache
def work_of(config: RunConfig) -> Work:
    """The work of one run. Random choices are counted by what is expected of them."""
    steps, evaluation = config.total_steps, config.evaluation
    before_last = (steps - 1) // evaluation.every
    ends, feedback, adapter, embeds = _session_steps(config), config.feedback, config.adapter, uses_vlm(config)
    adapts = adapter.enabled and embeds
    later_updates = adapter.later_updates * (len(ends) - 1)
    looks = [config.horizon * episodes for episodes in _coverage(_Drawing.of(config), tuple(ends))]
    labels = _labels(config, len(ends))
    reward_updates = sum(
        math.ceil(count / config.reward.batch_size) * max(1.0, EXPECTED_EPOCHS * config.reward.max_epochs)
        for count in labels
        if count >= 1
    )
    candidates = 0 if config.vlm.labels else feedback.budget * feedback.candidates * 2 * feedback.segment_length
    every_frame = config.reward.source == "vlm" or config.reward.embedded
    frames = (steps if every_frame else (looks[-1] if looks else 0)) / config.vlm.frame_stride if embeds else 0.0
    relabeled = looks if config.vlm.relabel else [look / len(looks) for look in looks]
    return Work(
        evaluation_episodes=before_last * evaluation.episodes + evaluation.final_episodes,
        updates=max(0, steps - config.exploration.random_steps) // config.sac.update_every,
        frames=frames,
        reward_updates=reward_updates,
        reward_steps=sum(ends) + sum(relabeled) + candidates,
        adapted_frames=sum(relabeled) / config.vlm.frame_stride if adapts and config.vlm.labels else 0.0,
        adapter_updates=adapter.first_updates + later_updates if adapts and ends and adapter.kind == "mlp" else 0,
        judged_pairs=len(ends) * max(1, feedback.budget // 2) if adapts else 0,
    )


def seconds_by_part(configs: Sequence[RunConfig], timings: Timings) -> dict[str, float]:
    """Seconds that a fleet takes on one core, by part."""
    first, runs = configs[0], len(configs)
    work = {config: work_of(config) for config in configs}
    learned = [config for config in configs if config.reward.source == "learned"]
    adapted = [config for config in configs if config.adapter.enabled and uses_vlm(config)]
    own = work[first]  # what all runs of a fleet have in common
    environments = runs * timings.environment_step(first)
    acting = timings.acting(first, runs)
    reset = sum(config.feedback.reset_updates for config in learned)
    return {
        "environment": first.total_steps * (environments + acting + timings.storing(first, runs)),
        "sac": own.updates * timings.update(first, runs) + reset * timings.update(first, 1),
        "evaluation": own.evaluation_episodes * first.horizon * (environments + acting),
        "frames": sum(work[config].frames * timings.frame(config) for config in configs if uses_vlm(config)),
        "reward": sum(
            work[config].reward_updates * timings.reward_update(config)
            + work[config].reward_steps * timings.reward_step(config)
            for config in learned
        ),
        "adapters": sum(
            work[config].adapter_updates * timings.adapter_update(config)
            + work[config].judged_pairs * timings.judged_pair(config)
            + work[config].adapted_frames * timings.adapted_frame(config)
            for config in adapted
        ),
    }


@dataclass(frozen=True)
class FleetCost:
    """What one fleet costs."""

    runs: int
    agent_steps: int
    environment_steps: int
    """Those of training and of evaluation."""
    human_labels: int
    frames: float
    memory: int
    """Bytes beside the programs: what `memory_needed` counts."""
    disk: int
    """Bytes while it trains: the frames' embeddings and the replay's checkpoint."""
    seconds: Mapping[str, float]
    """Those of one core by part."""


def fleet_cost(configs: Sequence[RunConfig], timings: Timings, timed: bool = True) -> FleetCost:
    """What a fleet of `configs` costs; without seconds unless `timed`."""
    work = {config: work_of(config) for config in configs}
    steps = sum(config.total_steps for config in configs)
    evaluated = sum(work[config].evaluation_episodes * config.horizon for config in configs)
    cached = {(config.vlm.model, config.vlm.shows): timings.dimension(config) for config in configs if uses_vlm(config)}
    embedded = steps * sum(8 + 2 * dimension for dimension in cached.values())
    return FleetCost(
        runs=len(configs),
        agent_steps=steps,
        environment_steps=(steps + evaluated) * configs[0].action_repeat,
        human_labels=sum(config.feedback.budget for config in configs if config.reward.source == "learned"),
        frames=sum(each.frames for each in work.values()),
        memory=sum(sum(memory_needed(config).values()) for config in configs),
        disk=sum(map(replay_bytes, configs)) + embedded,
        seconds=seconds_by_part(configs, timings) if timed else {},
    )


def table_of(fleets: Iterable[Sequence[RunConfig]], timings: Timings, cores: int = 0) -> str:
    """A table of what fleets cost, those of one kind together; with hours on so many `cores` unless these are 0."""
    kinds: dict[str, list[FleetCost]] = {}
    for configs in fleets:
        kinds.setdefault(_kind(configs), []).append(fleet_cost(configs, timings, cores > 0))
    costs = [cost for of_kind in kinds.values() for cost in of_kind]
    header = f"{'fleets by VLM':<22}{'fleets':>7}{'runs':>6}{'agent steps':>13}{'env. steps':>13}{'labels':>10}"
    header += f"{'frames':>13}{'memory':>10}{'disk':>10}" + f"{'core hours':>12}" * (cores > 0)
    lines = [header, *(_line(kind, of_kind) for kind, of_kind in kinds.items()), _line("all", costs)]
    lines += ["Memory (beside the programs) and disk are those of the largest fleet."]
    if cores:
        seconds = [sum(cost.seconds.values()) for cost in costs]
        hours = max(max(seconds), sum(seconds) / cores) / 3600
        shares = (f"{part} {sum(cost.seconds[part] for cost in costs) / sum(seconds):.0%}" for part in costs[0].seconds)
        lines += [f"About {hours:.1f} hours on {cores} cores like this one, one fleet on each: {', '.join(shares)}."]
    return "\n".join(lines)


def _line(name: str, costs: Sequence[FleetCost]) -> str:
    cells = [
        f"{len(costs):>7}{sum(cost.runs for cost in costs):>6}",
        f"{sum(cost.agent_steps for cost in costs):>13,}{sum(cost.environment_steps for cost in costs):>13,}",
        f"{sum(cost.human_labels for cost in costs):>10,}{round(sum(cost.frames for cost in costs)):>13,}",
        f"{in_bytes(max(cost.memory for cost in costs)):>10}{in_bytes(max(cost.disk for cost in costs)):>10}",
        f"{sum(sum(cost.seconds.values()) for cost in costs) / 3600:>12.2f}" if costs[0].seconds else "",
    ]
    return f"{name:<22}" + "".join(cells)


def _kind(configs: Sequence[RunConfig]) -> str:
    """The models that see the frames of a fleet, or what its runs learn from where none does."""
    if models := sorted({config.vlm.model for config in configs if uses_vlm(config)}):
        return models[0] if len(models) == 1 else f"{models[0]} and others"
    return "none" if any(config.reward.source == "learned" for config in configs) else "none, true rewards"


def _session_steps(config: RunConfig) -> list[int]:
    """The step of each feedback session."""
    if config.reward.source != "learned":
        return []
    return list(range(config.first_session_step, config.total_steps, config.feedback.session_every))


def _labels(config: RunConfig, sessions: int) -> Iterable[float]:
    """The number of labels from which reward learning learns in each session, about."""
    feedback, kept = config.feedback, 1.0 if config.filter.mode == "none" else EXPECTED_KEPT
    for session in range(sessions):
        human = feedback.first_session_queries + session * float(feedback.session_queries)
        if feedback.schedule == "even":
            rest = feedback.budget - feedback.first_session_queries
            human = feedback.first_session_queries + session * rest / max(1, sessions - 1)
        yield min(feedback.budget, human) + (kept * config.vlm.queries * session if config.vlm.labels else 0)


class _Drawing(NamedTuple):
    """From where a run draws the VLM's pairs, and how many in each session."""

    horizon: int
    length: int
    recent_episodes: int
    first: int
    later: int

    @staticmethod
    def of(config: RunConfig) -> _Drawing:
        """The VLM is asked from the second session on; adapters look at the human's pairs of the first one."""
        feedback, later = config.feedback, config.vlm.queries if config.vlm.labels else 0
        human = feedback.first_session_queries if config.adapter.enabled else 0
        first = human if feedback.budget else later
        return _Drawing(config.horizon, feedback.segment_length, feedback.recent_episodes, first, later)


@functools.cache
def _coverage(drawing: _Drawing, ends: tuple[int, ...]) -> list[float]:
    """How many episodes' worth of steps the pairs show that were drawn up to each of the sessions at `ends`.

    A segment begins anywhere in its episode with equal probability, and its episode is any of the recent ones.
    """
    horizon, length = drawing.horizon, drawing.length
    holding = np.minimum.reduce([np.arange(1, horizon + 1), np.arange(horizon, 0, -1), np.full(horizon, length)])
    starts, count = np.unique(np.minimum(holding, horizon - length + 1), return_counts=True)
    chance = starts / (horizon - length + 1)  # that a segment of the episode holds a step
    drawn, covered = np.zeros(ends[-1] // horizon if ends else 0), []
    seen = np.zeros_like(drawn)  # steps of each episode
    for number, end in enumerate(ends):
        recent = slice(max(0, end // horizon - drawing.recent_episodes), end // horizon)
        segments = 2 * (drawing.later if number else drawing.first)
        drawn[recent] += segments / max(1, recent.stop - recent.start)
        seen[recent] = (1 - np.exp(-np.outer(drawn[recent], chance))) @ count
        covered.append(float(seen.sum() / horizon))
    return covered
