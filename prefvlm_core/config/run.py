"""What a run is: frozen dataclasses, the profiles, and the content hash that names a run.

A `RunConfig` is complete: everything that can change a run's numbers is in it, and nothing else (where it runs, on how
many processes, is `Execution`). Values come from three layers, each stating only what differs from the one below: the
dataclass defaults (= profile `paper`), the profile, the method's recipe (`methods.py`), then what the user asks for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.config.groups import (
    AdapterConfig,
    EvaluationConfig,
    ExplorationConfig,
    FeedbackConfig,
    FilterConfig,
    MRNConfig,
    RewardConfig,
    RIMEConfig,
    SACConfig,
    SURFConfig,
    VLMConfig,
)
from prefvlm_core.domains.metaworld import check_horizon, check_task

CONFIG_VERSION = 1
"""Raised whenever a stored config would mean something else today: a default changed, or what a field does."""


@dataclass(frozen=True)
class RunConfig:
    """One training run, complete. Its content hash is its name."""

    task: str
    """Meta-World task, for example drawer-close-v3."""
    method: str
    """Recipe in `methods.py`, for example pebble."""
    seed: int
    """Seed of everything random in the run (>= 0)."""
    profile: str
    """quick, laptop or paper: where the defaults came from."""
    total_steps: int = 1_000_000
    """Steps of the run (a multiple of the horizon). A step is one action of the agent, here and in every field."""
    horizon: int = 500
    """Steps per episode (times `action_repeat` at most 500)."""
    action_repeat: int = 1
    """Environment steps for which an action is held; a step's reward is their mean, and figures count them all."""
    sac: SACConfig = field(default_factory=SACConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    surf: SURFConfig = field(default_factory=SURFConfig)
    rime: RIMEConfig = field(default_factory=RIMEConfig)
    mrn: MRNConfig = field(default_factory=MRNConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    vlm: VLMConfig = field(default_factory=VLMConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def hash(self) -> str:
        """First 8 hex digits of the SHA-256 of the config version and of every field that differs from its default.

        So a field that a later release adds, with a default that means what went before, renames no stored run.
        """
        defaults = _defaults()
        told = {
            name: value
            for name, value in flatten(dataclasses.asdict(self)).items()
            if name in _IDENTITY or value != defaults[name]
        }
        return hashlib.sha256(json.dumps([CONFIG_VERSION, told], sort_keys=True).encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """`<profile>/<task>/<method>/<seed>-<hash>`: also the run's folder below `results/`."""
        return f"{self.profile}/{self.task}/{self.method}/{self.seed}-{self.hash}"

    @property
    def learning_starts(self) -> int:
        """Step of the first feedback session."""
        return self.exploration.random_steps + self.exploration.entropy_steps

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, with the config version."""
        return json.dumps({"version": CONFIG_VERSION, **dataclasses.asdict(self)}, sort_keys=True, indent=1)

    @staticmethod
    def from_json(text: str) -> RunConfig:
        """Inverse of `to_json`; a field that is missing has its default. Raises `PrefVLMError` for another config
        version and for unknown fields."""
        values = json.loads(text)
        version = values.pop("version", None)
        if version != CONFIG_VERSION:
            raise PrefVLMError(
                f"The config was written by config version {version}, this package reads version {CONFIG_VERSION}: "
                "install the matching prefvlm, or move the old results away."
            )
        flat = flatten(values)
        if missing := [name for name in _IDENTITY if name not in flat]:
            raise PrefVLMError(f"The config lacks {', '.join(missing)}.")
        return replace(RunConfig(**{name: flat[name] for name in _IDENTITY}), flat)


_IDENTITY = ("task", "method", "seed", "profile")


@functools.cache
def _defaults() -> dict[str, Any]:
    """Every field's default, by dotted name."""
    return flatten(dataclasses.asdict(RunConfig("drawer-close-v3", "", 0, "paper")))


PROFILES: dict[str, dict[str, Any]] = {
    "paper": {},
    "laptop": {
        "total_steps": 6_000,
        "horizon": 50,
        "action_repeat": 5,  # the hand moves 5 cm per action, not 1: tasks are solved in a sixth of the updates
        "sac.hidden_layers": 2,
        "sac.width": 128,
        "sac.batch_size": 128,
        "sac.actor_learning_rate": 1e-3,
        "sac.critic_learning_rate": 1e-3,
        "sac.target_rate": 0.02,
        "sac.target_update_every": 1,
        "exploration.random_steps": 250,
        "exploration.entropy_steps": 250,
        "reward.hidden_layers": 2,
        "reward.width": 128,
        "reward.learning_rate": 1e-3,
        "reward.batch_size": 64,
        "feedback.budget": 200,
        "feedback.first_session_queries": 40,
        "feedback.session_queries": 11,
        "feedback.session_every": 300,
        "feedback.segment_length": 10,  # 50 environment steps, as in the papers
        "vlm.model": "tinyliv",
        "vlm.queries": 20,
        "filter.beta_max": 0.0,  # with RIME's 3 and 1, nine labels in ten are called clean, no better than all are
        "filter.beta_min": 0.0,
        "evaluation.every": 1_000,
        "evaluation.episodes": 20,
        "evaluation.final_episodes": 50,
    },
}
PROFILES["quick"] = PROFILES["laptop"] | {
    "total_steps": 4_000,
    "feedback.budget": 600,
    "feedback.first_session_queries": 80,
    "feedback.session_every": 200,
    "feedback.session_queries": 31,  # until the end: on old labels alone the policy finds the errors of the reward
    "evaluation.every": 500,
    "evaluation.episodes": 5,
    "evaluation.final_episodes": 10,
}


@dataclass(frozen=True)
class Execution:
    """How and where runs are trained. Nothing here belongs to a run's identity."""

    results: str = "results"
    """Folder that holds every run."""
    device: str = "auto"
    """cpu, cuda, or auto (cuda where there is one)."""
    workers: int = 0
    """Processes that step environments (0 = cores - 1, at least 1)."""
    vlm_weights: str = ""
    """Checkpoint file of the VLM, for those that do not come with the package (liv, decisionnce, open_clip:...)."""
    threads: int = 1
    """Torch threads of the learner; results are bit-reproducible only for an equal number."""
    checkpoint_seconds: float = 60.0
    """Wall seconds between two checkpoints, taken at the next episode end."""
    progress: bool = True
    """Show a progress bar with the time left."""
    labels: str = ""
    """Teacher `human`: database URL of the label queue (empty: the SQLite file labels.sqlite in the results folder)."""
    label_timeout: float = math.inf
    """Teacher `human`: seconds that a session waits for answers; then it goes on with those it has (inf: for ever)."""
    late_answers: bool = False
    """Teacher `human`: only the first session waits; later ones use the answers given by then and leave the other
    pairs open to the next."""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise unknown_name("device", self.device, ("auto", "cpu", "cuda"))
        if self.workers < 0:
            raise PrefVLMError(f"workers must be at least 0, got {self.workers}.")
        if not self.label_timeout >= 0:
            raise PrefVLMError(f"label_timeout must be at least 0 seconds, got {self.label_timeout}.")
        if self.threads < 1:
            raise PrefVLMError(f"threads must be at least 1, got {self.threads}.")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted names: {"sac": {"width": 64}} -> {"sac.width": 64}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def replace(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A copy of `config` with dotted fields changed, checked once when complete.

    Raises `PrefVLMError` for an unknown field (with the closest known one) or a value of the wrong type.
    """
    values = dataclasses.asdict(config)
    known = flatten(values)
    for name, value in changes.items():
        if name not in known:
            raise unknown_name("parameter", name, known)
        if isinstance(known[name], float) and type(value) is int:
            value = float(value)  # 1 and 1.0 are the same run and must hash alike
        group, _, leaf = name.rpartition(".")
        (values[group] if group else values)[leaf] = value
    types_of = typing.get_type_hints(RunConfig)
    return RunConfig(
        **{name: types_of[name](**value) if isinstance(value, dict) else value for name, value in values.items()}
    )


def check_profile(name: str) -> str:
    """Returns `name`, or raises `PrefVLMError` with a suggestion."""
    if name not in PROFILES:
        raise unknown_name("profile", name, PROFILES)
    return name


def _check(config: RunConfig) -> None:
    """Raise `PrefVLMError` for the first field that is out of its range."""
    _check_types(config, "")
    check_task(config.task)
    check_profile(config.profile)
    _check_ranges(config)
    _check_relations(config)


def _check_ranges(config: RunConfig) -> None:
    for name, value in flatten(dataclasses.asdict(config)).items():
        leaf = name.rpartition(".")[2]
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            raise PrefVLMError(f"{name} must be finite, got {value}.")
        if value < 0 or (value == 0 and leaf not in _MAY_BE_ZERO):
            allowed = "at least 0" if leaf in _MAY_BE_ZERO else "at least 1" if isinstance(value, int) else "above 0"
            raise PrefVLMError(f"{name} must be {allowed}, got {value}.")
        if leaf in _FRACTIONS and value > 1:
            raise PrefVLMError(f"{name} must be at most 1, got {value}.")


def _check_relations(config: RunConfig) -> None:
    check_horizon(config.horizon, config.action_repeat)
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
    if config.filter.lower > config.filter.upper:
        raise PrefVLMError(f"filter.lower {config.filter.lower} must not exceed filter.upper {config.filter.upper}.")
    if config.filter.soft_labels and config.filter.mode != "calibrated":
        raise PrefVLMError(f"filter.soft_labels needs filter.mode calibrated, got {config.filter.mode}.")
    _check_vlm(config)
    if config.reward.source == "learned":
        _check_schedule(config)


def _check_vlm(config: RunConfig) -> None:
    if config.reward.source == "vlm" and config.learning_starts < config.horizon:
        raise PrefVLMError(
            f"exploration.random_steps must cover one episode ({config.horizon} steps): the VLM rewards whole episodes."
        )
    if config.vlm.simulated_accuracy and config.adapter.enabled:
        raise PrefVLMError(
            "vlm.simulated_accuracy looks at no frames, so adapters cannot learn; unset adapter.enabled."
        )
    if config.adapter.source and not (config.vlm.labels and config.adapter.enabled):
        raise PrefVLMError(
            f"adapter.source is {config.adapter.source}, but the run trains no adapters; set vlm.labels and "
            "adapter.enabled, or leave it empty."
        )


def _check_schedule(config: RunConfig) -> None:
    if config.reward.learning != "plain" and config.vlm.labels:
        raise PrefVLMError(
            f"reward.learning {config.reward.learning} learns from human labels only; set it to plain or unset "
            "vlm.labels."
        )
    if config.learning_starts < config.horizon:
        raise PrefVLMError(
            "exploration.random_steps + exploration.entropy_steps must cover one episode "
            f"({config.horizon} steps) before the first feedback session, got {config.learning_starts}."
        )
    if config.total_steps <= config.learning_starts:
        raise PrefVLMError(
            f"total_steps {config.total_steps} must exceed the {config.learning_starts} exploration steps, "
            "after which feedback begins."
        )
    if config.feedback.budget > 0 and not 1 <= config.feedback.first_session_queries <= config.feedback.budget:
        raise PrefVLMError(
            f"feedback.first_session_queries must be 1 to feedback.budget {config.feedback.budget}, "
            f"got {config.feedback.first_session_queries}."
        )


_MAY_BE_ZERO = {"seed", "budget", "random_steps", "entropy_steps", "first_session_queries", "session_queries"} | {
    "reset_updates",
    "teacher_mistake",
    "teacher_margin",
    "discount",
    "alpha",
    "beta_max",
    "beta_min",
    "lower",
    "dynamics_weight",
    "bonus",
    "window",
    "crop",
    "warm_start_updates",
    "meta_every",
    "equal_within",
    "label_smoothing",
    "simulated_accuracy",
}
_FRACTIONS = {"discount", "target_rate", "stop_accuracy", "teacher_mistake", "teacher_discount", "confidence"} | {
    "label_smoothing",
    "simulated_accuracy",
}


def _check_types(values: Any, prefix: str) -> None:
    for name, expected in typing.get_type_hints(type(values)).items():
        value = getattr(values, name)
        if dataclasses.is_dataclass(value):
            _check_types(value, f"{prefix}{name}.")
        elif typing.get_origin(expected) is Literal:
            if value not in typing.get_args(expected):
                raise unknown_name(f"{prefix}{name}", str(value), typing.get_args(expected))
        elif not isinstance(value, expected) or isinstance(value, bool) != (expected is bool):
            raise PrefVLMError(f"{prefix}{name} must be of type {expected.__name__}, got {value!r}.")
