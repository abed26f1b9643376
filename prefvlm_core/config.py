"""What a run is: frozen dataclasses, the profiles, and the content hash that names a run.

A `RunConfig` is complete: everything that can change a run's numbers is in it, and nothing else (where it runs, on how
many processes, is `Execution`). Values come from three layers, each stating only what differs from the one below: the
dataclass defaults (= profile `paper`), the profile, the method's recipe (`methods.py`), then what the user asks for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefvlm_core.envs import check_task
from prefvlm_core.errors import PrefVLMError, unknown_name

CONFIG_VERSION = 1
"""Raised whenever an old stored config would mean something else today."""


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic; defaults are B-Pref's Meta-World setting (B-Pref `sac_metaworld.yaml`)."""

    hidden_layers: int = 3
    """Hidden layers of actor and critics."""
    width: int = 256
    """Units per hidden layer."""
    batch_size: int = 512
    """Transitions per gradient update."""
    actor_learning_rate: float = 3e-4
    """Adam step size of the actor."""
    critic_learning_rate: float = 3e-4
    """Adam step size of the twin critics."""
    temperature_learning_rate: float = 1e-4
    """Adam step size of the log temperature."""
    initial_temperature: float = 0.1
    """Entropy temperature at the start (reward units per nat)."""
    discount: float = 0.99
    """Discount per environment step."""
    target_rate: float = 0.005
    """Polyak rate of the target critics."""
    target_update_every: int = 2
    """Gradient updates between two target updates."""
    update_every: int = 1
    """Environment steps between two gradient updates."""


@dataclass(frozen=True)
class ExplorationConfig:
    """What happens before the first feedback session (PEBBLE §4.1; step counts of ROVED)."""

    random_steps: int = 1_000
    """Environment steps with uniform random actions; learning starts after them."""
    entropy_steps: int = 5_000
    """Environment steps that follow, rewarded by the k-NN state entropy (0 = none)."""
    neighbours: int = 5
    """k of the k-nearest-neighbour entropy estimate."""


@dataclass(frozen=True)
class RewardConfig:
    """Reward ensemble (B-Pref `reward_model.py`; ROVED reports the same network)."""

    source: Literal["true", "learned"] = "learned"
    """What the agent is rewarded with: the task's own reward, or the ensemble's."""
    members: int = 3
    """Networks in the ensemble."""
    hidden_layers: int = 3
    """Hidden layers of each network."""
    width: int = 256
    """Units per hidden layer."""
    learning_rate: float = 3e-4
    """Adam step size."""
    batch_size: int = 128
    """Pairs per gradient update."""
    max_epochs: int = 10
    """Passes over the preference buffer per session, at most."""
    stop_accuracy: float = 0.97
    """Training accuracy (fraction) at which a session's reward learning stops early."""


@dataclass(frozen=True)
class FeedbackConfig:
    """Feedback sessions: which pairs, how many, who answers (schedule of ROVED; teachers of B-Pref)."""

    budget: int = 2_000
    """Human labels (queries asked) over the whole run."""
    first_session_queries: int = 250
    """Human labels of the first session, asked right after exploration."""
    session_queries: int = 32
    """Human labels of each later session."""
    session_every: int = 3_000
    """Environment steps between two sessions."""
    segment_length: int = 50
    """Environment steps per segment."""
    recent_episodes: int = 100
    """Segments are drawn from this many most recent complete episodes."""
    reset_updates: int = 100
    """Gradient updates on fresh critics right after the first session (B-Pref)."""
    sampling: Literal["uniform", "disagreement"] = "disagreement"
    """Which pairs are asked; the first session is always uniform."""
    candidates: int = 10
    """Disagreement sampling draws this many times the pairs it needs and keeps the most disputed."""
    teacher: Literal["oracle", "noisy", "mistake", "skip", "equal", "myopic"] = "oracle"
    """Scripted teacher that stands for the human (B-Pref §3)."""
    teacher_rationality: float = 1.0
    """Teacher `noisy`: inverse temperature of its Bradley–Terry choice (per unit of true return)."""
    teacher_mistake: float = 0.1
    """Teacher `mistake`: probability of the wrong answer."""
    teacher_margin: float = 0.1
    """Teachers `skip` and `equal`: threshold as a fraction of the recent return, scaled to a segment."""
    teacher_discount: float = 0.9
    """Teacher `myopic`: weight of a step relative to the next one."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Deterministic-policy evaluation on initial states that training never sees."""

    every: int = 10_000
    """Environment steps between two evaluations (a multiple of the horizon)."""
    episodes: int = 10
    """Episodes per evaluation."""
    final_episodes: int = 10
    """Episodes of the last evaluation."""
    held_out_pairs: int = 200
    """Random pairs on which the reward ensemble is compared with the true reward."""


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
    """Environment steps of the run (a multiple of the horizon)."""
    horizon: int = 500
    """Environment steps per episode (1 to 500)."""
    sac: SACConfig = field(default_factory=SACConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def hash(self) -> str:
        """First 8 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """`<profile>/<task>/<method>/<seed>-<hash>`: also the run's folder below `results/`."""
        return f"{self.profile}/{self.task}/{self.method}/{self.seed}-{self.hash}"

    @property
    def learning_starts(self) -> int:
        """Environment step of the first feedback session."""
        return self.exploration.random_steps + self.exploration.entropy_steps

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, with the config version."""
        return json.dumps({"version": CONFIG_VERSION, **dataclasses.asdict(self)}, sort_keys=True, indent=1)

    @staticmethod
    def from_json(text: str) -> RunConfig:
        """Inverse of `to_json`. Raises `PrefVLMError` for another config version, unknown or missing fields."""
        values = json.loads(text)
        version = values.pop("version", None)
        if version != CONFIG_VERSION:
            raise PrefVLMError(
                f"The config was written by config version {version}, this package reads version {CONFIG_VERSION}: "
                "install the matching prefvlm, or move the old results away."
            )
        flat = flatten(values)
        base = RunConfig(**{name: flat[name] for name in ("task", "method", "seed", "profile")})
        if missing := flatten(dataclasses.asdict(base)).keys() - flat:
            raise PrefVLMError(f"The config lacks {', '.join(sorted(missing))}.")
        return replace(base, flat)


PROFILES: dict[str, dict[str, Any]] = {
    "paper": {},
    "laptop": {
        "total_steps": 80_000,
        "horizon": 250,
        "sac.hidden_layers": 2,
        "sac.width": 128,
        "sac.batch_size": 128,
        "sac.actor_learning_rate": 1e-3,
        "sac.critic_learning_rate": 1e-3,
        "sac.target_rate": 0.02,
        "sac.target_update_every": 1,
        "sac.update_every": 2,
        "exploration.random_steps": 1_000,
        "exploration.entropy_steps": 1_500,
        "reward.hidden_layers": 2,
        "reward.width": 128,
        "reward.learning_rate": 1e-3,
        "reward.batch_size": 64,
        "reward.max_epochs": 20,
        "feedback.budget": 400,
        "feedback.first_session_queries": 40,
        "feedback.session_queries": 20,
        "feedback.session_every": 2_500,
        "evaluation.every": 5_000,
        "evaluation.episodes": 20,
        "evaluation.final_episodes": 50,
    },
}
PROFILES["quick"] = PROFILES["laptop"] | {
    "total_steps": 20_000,
    "exploration.entropy_steps": 1_000,
    "feedback.budget": 100,
    "feedback.session_queries": 10,
    "feedback.session_every": 2_000,
    "evaluation.every": 2_500,
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
    threads: int = 1
    """Torch threads of the learner; results are bit-reproducible only for an equal number."""
    checkpoint_seconds: float = 60.0
    """Wall seconds between two checkpoints, taken at the next episode end."""
    progress: bool = True
    """Show a progress bar with the time left."""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise unknown_name("device", self.device, ("auto", "cpu", "cuda"))
        if self.workers < 0:
            raise PrefVLMError(f"workers must be at least 0, got {self.workers}.")
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
        if not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            raise PrefVLMError(f"{name} must be finite, got {value}.")
        if value < 0 or (value == 0 and leaf not in _MAY_BE_ZERO):
            allowed = "at least 0" if leaf in _MAY_BE_ZERO else "at least 1" if isinstance(value, int) else "above 0"
            raise PrefVLMError(f"{name} must be {allowed}, got {value}.")
        if leaf in _FRACTIONS and value > 1:
            raise PrefVLMError(f"{name} must be at most 1, got {value}.")


def _check_relations(config: RunConfig) -> None:
    if config.horizon > 500:
        raise PrefVLMError(f"horizon must be 1 to 500 (Meta-World's own limit), got {config.horizon}.")
    for name, steps in (("total_steps", config.total_steps), ("evaluation.every", config.evaluation.every)):
        if steps % config.horizon:
            raise PrefVLMError(f"{name} must be a multiple of horizon {config.horizon}, got {steps}.")
    if config.feedback.segment_length > config.horizon:
        raise PrefVLMError(
            f"feedback.segment_length must be at most horizon {config.horizon}, got {config.feedback.segment_length}."
        )
    if config.reward.source == "learned":
        if config.learning_starts < config.horizon:
            raise PrefVLMError(
                "exploration.random_steps + exploration.entropy_steps must cover one episode "
                f"({config.horizon} steps) before the first feedback session, got {config.learning_starts}."
            )
        if 0 < config.feedback.budget < config.feedback.first_session_queries:
            raise PrefVLMError(
                f"feedback.budget {config.feedback.budget} is smaller than the first session "
                f"(feedback.first_session_queries {config.feedback.first_session_queries})."
            )


_MAY_BE_ZERO = {"seed", "budget", "random_steps", "entropy_steps", "session_queries", "reset_updates"} | {
    "teacher_mistake",
    "teacher_margin",
    "discount",
}
_FRACTIONS = {"discount", "target_rate", "stop_accuracy", "teacher_mistake", "teacher_discount"}


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
