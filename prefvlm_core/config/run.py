"""The config of a run, how the run is named by its content, and how it is executed.

A `RunConfig` holds every choice that is meant to change a run's numbers. Whatever else can change them is recorded in
the run's manifest: the weights of the VLM, late answers and timeouts (from `Execution`), versions and machine. Values
come from four layers, applied in this order, each of which states only its differences: the dataclass defaults (those
of profile `paper`), the profile, the method's recipe (`methods.py`), and the changes of the user.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefvlm_core.common.errors import PrefVLMError, check_path, unknown_name
from prefvlm_core.common.machine import usable_cores
from prefvlm_core.common.registry import check_part_of_path, import_plugin
from prefvlm_core.config import fields
from prefvlm_core.config.combinations import check_together
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
from prefvlm_core.config.limits import EndpointLimits
from prefvlm_core.config.profiles import check_profile
from prefvlm_core.config.view import ViewConfig

if TYPE_CHECKING:
    import torch

PROCESSES_PER_CORE = 4
"""Largest number of threads, of workers or of jobs per core: more can only be a typing error, and would stop the
machine."""

CONFIG_VERSION = 1
"""To be increased whenever the meaning of stored configs changes: that of a default, or of what a field does."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines one training run, which is named by a hash of it."""

    task: str = dataclasses.field(metadata=fields.PER_RUN)
    """Name of the task, which decides the domain, for example drawer-close-v3."""
    method: str = dataclasses.field(metadata=fields.PER_RUN)
    """Name of the method, a recipe in `methods.py`, for example pebble."""
    seed: int = dataclasses.field(metadata=fields.PER_RUN | {"least": 0, "most": fields.LARGEST_SEED})
    """Seed of all random numbers of the run (0 to 2^63 - 1)."""
    profile: str
    """Name of the profile from which the values came: quick, laptop or paper."""
    total_steps: int = fields.count(1_000_000, most=10**15)
    """Actions of the run (a multiple of the horizon). Every field counts actions; each is held for `action_repeat`
    environment steps."""
    horizon: int = fields.count(500)
    """Actions per episode (with `action_repeat` 1, Meta-World allows at most 500)."""
    action_repeat: int = fields.count(1)
    """Environment steps for which each action is held; its reward is the mean of theirs. Figures count environment
    steps."""
    sac: SACConfig = fields.group(SACConfig)
    exploration: ExplorationConfig = fields.group(ExplorationConfig)
    reward: RewardConfig = fields.group(RewardConfig)
    surf: SURFConfig = fields.group(SURFConfig, per_run=True)
    rime: RIMEConfig = fields.group(RIMEConfig, per_run=True)
    mrn: MRNConfig = fields.group(MRNConfig, per_run=True)
    feedback: FeedbackConfig = fields.group(FeedbackConfig, per_run=True)
    vlm: VLMConfig = fields.group(VLMConfig, per_run=True)
    filter: FilterConfig = fields.group(FilterConfig, per_run=True)
    adapter: AdapterConfig = fields.group(AdapterConfig, per_run=True)
    evaluation: EvaluationConfig = fields.group(EvaluationConfig)
    view: ViewConfig = fields.group(ViewConfig, per_run=True)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def hash(self) -> str:
        """The `content_hash` of all fields."""
        return content_hash(flatten(dataclasses.asdict(self)), default_fields())

    @property
    def run_id(self) -> str:
        """The name of the run, `<profile>/<task>/<method>/<seed>-<hash>`, which is also its folder below `results/`."""
        return f"{self.profile}/{self.task}/{self.method}/{self.seed}-{self.hash}"

    @property
    def first_session_step(self) -> int:
        """The number of actions before the first feedback session, which ends exploration."""
        return self.exploration.random_steps + self.exploration.entropy_steps

    @property
    def segment_margin(self) -> int:
        """Actions that the episode must have before and after each segment, because SURF's crops reach into them."""
        return self.surf.window if self.reward.learning == "surf" else 0

    def to_json(self) -> str:
        """The config and its version as canonical JSON, with sorted keys."""
        return json.dumps({"version": CONFIG_VERSION, **dataclasses.asdict(self)}, sort_keys=True, indent=1)

    @staticmethod
    def from_json(text: str) -> RunConfig:
        """Inverse of `to_json`; missing fields take their defaults.

        Raises `PrefVLMError` for another config version and for unknown fields; `retired.read_stored_config` reads
        configs of earlier releases too.
        """
        return from_fields(read_fields(text))


IDENTITY = ("task", "method", "seed", "profile")
"""The fields without a default."""


@functools.cache
def default_fields() -> dict[str, Any]:
    """The default of every field, by dotted name; those in `IDENTITY` hold placeholders."""
    return flatten(dataclasses.asdict(RunConfig("drawer-close-v3", "pebble", 0, "paper")))


def content_hash(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The first 8 hex digits of the SHA-256 of the config version and the dotted fields that differ from `defaults`.

    A later release can therefore add a field without renaming stored runs, if its default keeps the old behavior.
    """
    non_default = {name: value for name, value in values.items() if name in IDENTITY or value != defaults[name]}
    return hashlib.sha256(json.dumps([CONFIG_VERSION, non_default], sort_keys=True).encode()).hexdigest()[:8]


def read_fields(text: str) -> dict[str, Any]:
    """The dotted fields of a stored config in JSON.

    Raises `PrefVLMError` for another config version and for a config without the fields in `IDENTITY`.
    """
    values = json.loads(text)
    version = values.pop("version", None)
    if version != CONFIG_VERSION:
        raise PrefVLMError(
            f"The config was written by config version {version}, this package reads version {CONFIG_VERSION}: "
            "install the matching prefvlm, or move the old results away."
        )
    flat = flatten(values)
    if missing := [name for name in IDENTITY if name not in flat]:
        raise PrefVLMError(f"The config lacks {', '.join(missing)}.")
    return flat


def from_fields(values: Mapping[str, Any]) -> RunConfig:
    """A config from dotted fields; missing ones take their defaults. Raises the errors of `replace`."""
    return _with(default_fields(), values)


@dataclass(frozen=True)
class Execution(EndpointLimits):
    """How and where runs are trained. Nothing here is part of a run's identity.

    Raises `PrefVLMError` for a value that is not allowed, and if there is no module `plugin`.
    """

    results: str = "results"
    """Folder of all runs."""
    device: str = "auto"
    """Device of the learner: cpu, cuda, or auto, which is cuda if available."""
    workers: int = 0
    """Number of processes that step environments, at most four per core (0: one less than the cores, but at least 1).
    Unless it is 1, agents on a CPU with more cores learn on while they are evaluated."""
    vlm_weights: str = ""
    """Checkpoint file of a VLM that does not come with the package (liv, decisionnce, open_clip:<model>). Models that
    do come with it may be trained beside that one."""
    scratch: str = ""
    """Folder for the embeddings of frames while a fleet is trained, for example on the machine's own disk, or env:NAME
    for the folder in the environment variable NAME; what is missing in it is made again (empty: the fleet's folder
    among the results)."""
    threads: int = 1
    """Number of torch threads of the learner, at most four per core; results are bit-identical only for the same
    number."""
    checkpoint_seconds: float = 60.0
    """Wall seconds after which the next end of an episode writes a checkpoint."""
    progress: bool = True
    """Whether a progress bar shows the time left."""
    keep_replay: bool = False
    """Whether the folder of a finished run keeps all that it has seen (replay.safetensors, about 1 kB an
    action)."""
    tensorboard: bool = False
    """Whether the metrics are written as curves for TensorBoard too, into the folder of the run, while it is trained
    (needs prefvlm[tensorboard])."""
    labels: str = dataclasses.field(default="", repr=False)  # not shown, since it may hold a password
    """Database URL of the label queue of teacher `human`, or env:NAME for the URL in the environment variable NAME
    (empty: SQLite file labels.sqlite in the results folder)."""
    label_timeout: float = math.inf
    """Seconds that a session of teacher `human` waits before it continues with the answers so far (inf: no limit)."""
    late_answers: bool = False
    """Whether only the first session of teacher `human` waits; later ones leave unanswered pairs open to the next."""
    clip_trace: bool = False
    """Whether the clips of teacher `human` show the path of the gripper or ball, from a white dot to a yellow one."""
    plugin: str = ""
    """Module that registers your own teachers, methods or models, imported before names are checked (empty: none)."""

    def torch_device(self) -> torch.device:
        """The learner's device. Raises `PrefVLMError` if it is cuda and torch finds none."""
        import torch

        found = torch.cuda.is_available()
        if self.device == "cuda" and not found:
            raise PrefVLMError("device is cuda, but torch finds no CUDA device here; use cpu or auto.")
        return torch.device(("cuda" if found else "cpu") if self.device == "auto" else self.device)

    def cache_folder(self, fleet: Path) -> Path:
        """Where a fleet, whose folder among the results is `fleet`, keeps what can be made again.

        Raises `PrefVLMError` where `scratch` names an environment variable that is not set.
        """
        scratch, variable = self.scratch, self.scratch.removeprefix("env:")
        if variable != scratch and not (scratch := os.environ.get(variable, "")):
            raise PrefVLMError(f"scratch is {self.scratch}, but the environment variable {variable} is not set.")
        if not scratch:
            return fleet
        place = hashlib.sha256(str(fleet.resolve()).encode()).hexdigest()[:12]  # two results folders may hold one fleet
        return Path(scratch) / f"{fleet.name}-{place}"

    def __post_init__(self) -> None:
        for name, kind in fields.types_of(Execution).items():  # what is as good as the type that is declared
            value = getattr(self, name)
            if kind is float and type(value) is int:
                object.__setattr__(self, name, float(min(value, 2**63)))
            elif kind is str and isinstance(value, Path):
                object.__setattr__(self, name, str(value))
        fields.check_types(self)
        check_path("results", self.results)
        if self.device not in ("auto", "cpu", "cuda"):
            raise unknown_name("device", self.device, ("auto", "cpu", "cuda"))
        for name, least in (("workers", 0), ("threads", 1)):
            fields.check_number(name, getattr(self, name), least, PROCESSES_PER_CORE * usable_cores())
        fields.check_number("checkpoint_seconds", self.checkpoint_seconds)
        self.check_endpoint_limits()
        if not self.label_timeout >= 0:
            raise PrefVLMError(f"label_timeout must be at least 0 seconds, got {self.label_timeout}.")
        if self.plugin:
            import_plugin(self.plugin)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted names: {"sac": {"width": 64}} becomes {"sac.width": 64}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def replace(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A copy of `config` with dotted fields changed; it is checked once, when complete.

    Raises `PrefVLMError` for an unknown field, suggesting the closest one, and for a value that is not allowed.
    """
    return _with(flatten(dataclasses.asdict(config)), changes)


def _with(known: Mapping[str, Any], changes: Mapping[str, Any]) -> RunConfig:
    """The config whose dotted fields have the values of `changes` and, for all others, those of `known`."""
    for name in changes:
        if name not in known:
            raise unknown_name("parameter", name, known)
    values: dict[str, Any] = {}
    for name, value in (dict(known) | dict(changes)).items():
        if isinstance(known[name], float) and type(value) is int:
            fields.check_number(name, value, -fields.MOST, fields.MOST)  # floats have no room for every integer
            value = float(value)  # 1 and 1.0 are the same run and must hash alike
        group, _, leaf = name.rpartition(".")
        (values.setdefault(group, {}) if group else values)[leaf] = value
    types_of = fields.types_of(RunConfig)
    is_group = {name: dataclasses.is_dataclass(kind) for name, kind in types_of.items()}
    return RunConfig(**{name: types_of[name](**value) if is_group[name] else value for name, value in values.items()})


def _check(config: RunConfig) -> None:
    """Raise `PrefVLMError` for the first field whose value is not allowed, alone or together with others."""
    fields.check_types(config)
    check_part_of_path("task", config.task)
    check_part_of_path("method", config.method)
    check_profile(config.profile)
    fields.check_bounds(config)
    check_together(config)
