"""The groups of fields of a `RunConfig`, one per part of the method. Defaults are those of profile `paper`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.fields import count, fraction, quantity, setting

SIMULATED_PREFIX = "simulated:"


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic; defaults are B-Pref's Meta-World setting (B-Pref `sac_metaworld.yaml`)."""

    hidden_layers: int = count(3)
    """Hidden layers of actor and critics."""
    width: int = count(256)
    """Units per hidden layer."""
    batch_size: int = count(512)
    """Transitions per gradient update."""
    actor_learning_rate: float = quantity(3e-4)
    """Adam step size of the actor."""
    critic_learning_rate: float = quantity(3e-4)
    """Adam step size of the twin critics."""
    temperature_learning_rate: float = quantity(1e-4)
    """Adam step size of the log temperature."""
    initial_temperature: float = quantity(0.1, per_run=True)
    """Entropy temperature at the start (reward units per nat)."""
    discount: float = fraction(0.99, zero=True)
    """Discount per step."""
    target_rate: float = fraction(0.005)
    """Polyak rate of the target critics."""
    target_update_every: int = count(2)
    """Gradient updates between two target updates."""
    update_every: int = count(1)
    """Steps between two gradient updates."""


@dataclass(frozen=True)
class ExplorationConfig:
    """What happens before the first feedback session (PEBBLE §4.1; step counts of ROVED)."""

    random_steps: int = count(1_000, least=0)
    """Steps with uniform random actions; learning starts after them."""
    entropy_steps: int = count(5_000, least=0, per_run=True)
    """Steps that follow, rewarded by the k-NN state entropy (0 = none)."""
    neighbours: int = count(5)
    """k of the k-nearest-neighbour entropy estimate."""
    bonus: float = quantity(0.0, zero=True, per_run=True)
    """RUNE: weight of the members' standard deviation in the agent's reward, at step 0 (RUNE: 0.05; 0 = none)."""
    bonus_decay: float = quantity(1e-5, per_run=True)
    """RUNE: fraction by which that weight falls per step (the original code's default)."""


@dataclass(frozen=True)
class RewardConfig:
    """Reward ensemble (B-Pref `reward_model.py`; ROVED reports the same network)."""

    source: Literal["true", "learned", "vlm"] = setting("learned", per_run=True)
    """What the agent is rewarded with: the task's own reward, the ensemble's, or the VLM's cosine."""
    learning: str = setting("plain", per_run=True)
    """How the ensemble learns from labels, a name in `reward.learners.LEARNERS`: plain as in PEBBLE, with the
    pseudo-labels of surf, or through the denoiser of rime."""
    standardise: bool = setting(False, per_run=True)
    """Whether the ensemble's inputs are standardised, anew at each session, by what the run has seen so far."""
    members: int = count(3)
    """Networks in the ensemble."""
    hidden_layers: int = count(3)
    """Hidden layers of each network."""
    width: int = count(256)
    """Units per hidden layer."""
    learning_rate: float = quantity(3e-4)
    """Adam step size."""
    batch_size: int = count(128)
    """Pairs per gradient update."""
    max_epochs: int = count(10)
    """Passes over the preference buffer per session, at most."""
    stop_accuracy: float = fraction(0.97)
    """Training accuracy (fraction) at which a session's reward learning stops early."""


@dataclass(frozen=True)
class SURFConfig:
    """Where `reward.learning` is surf: pseudo-labels and temporal crops (SURF §4; its Meta-World command)."""

    epochs: int = count(20)
    """Gradient updates per session, in passes over the labelled pairs; there is no early stop (`reward_update`)."""
    unlabelled_ratio: int = count(10)
    """Unlabelled pairs drawn per query (`inv_label_ratio`)."""
    unlabelled_batches: int = count(4)
    """Unlabelled pairs per gradient update, in units of `reward.batch_size` (`mu`)."""
    confidence: float = fraction(0.99)
    """Probability (fraction) that a member must give its own pseudo-label (`threshold_u`)."""
    weight: float = quantity(1.0)
    """Weight of the pseudo-labels' loss (`lambda_u`)."""
    window: int = count(5, least=0)
    """Steps kept before and after each segment, for crops to reach into (`dataaug_window`)."""
    crop: int = count(5, least=0)
    """Steps by which a crop may be longer or shorter than a segment (`crop_range`)."""


@dataclass(frozen=True)
class RIMEConfig:
    """Where `reward.learning` is rime: denoising (thresholds in `filter`) and warm start (RIME §4; its Meta-World
    command)."""

    warm_start_updates: int = count(5, least=0)
    """Gradient updates of the ensemble towards the state entropy per update of the exploring agent (0 = no warm start,
    and a fresh critic after the first session as in PEBBLE)."""
    minimum_epochs: int = count(7)
    """Passes over the labels per session, at least (the original stops after epoch index 6 at the earliest)."""
    stop_accuracy: float = fraction(0.98)
    """Training accuracy (fraction) at which a session's reward learning stops early."""
    warm_up_epochs: int = count(333)
    """Passes over which the step size rises to its full value (the original's rule, 5/3 of budget / session queries, at
    20 000 labels and 100 per session)."""


@dataclass(frozen=True)
class MRNConfig:
    """Bi-level updates of the reward ensemble through the critic (MRN §4; its Meta-World command)."""

    meta_every: int = count(0, least=0)
    """Steps between two of them, while labels remain (MRN: 10 000; 0 = never)."""
    outer_weight: float = quantity(0.1)
    """Weight of the outer loss."""


@dataclass(frozen=True)
class FeedbackConfig:
    """Feedback sessions: which pairs, how many, who answers (schedule of ROVED; teachers of B-Pref)."""

    budget: int = count(2_000, least=0)
    """Human labels (queries asked) over the whole run."""
    first_session_queries: int = count(250, least=0)
    """Human labels of the first session, asked right after exploration."""
    session_queries: int = count(32, least=0)
    """Human labels of each later session."""
    session_every: int = count(3_000)
    """Steps between two sessions."""
    segment_length: int = count(50)
    """Steps per segment."""
    recent_episodes: int = count(100)
    """Segments are drawn from this many most recent complete episodes."""
    reset_updates: int = count(100, least=0)
    """Gradient updates on fresh critics right after the first session (B-Pref)."""
    sampling: str = "disagreement"
    """Which pairs are asked: a name in `preferences.selection.SELECTIONS` (uniform, disagreement). The first session is
    always uniform."""
    candidates: int = count(10)
    """Disagreement sampling draws this many times the pairs it needs and keeps the most disputed."""
    teacher: str = "oracle"
    """Who answers: a scripted teacher that stands for the human, a name in `preferences.teachers.TEACHERS` (oracle,
    noisy, mistake, skip, equal, myopic; B-Pref §3), or human: people, through the label queue."""
    teacher_rationality: float = quantity(1.0)
    """Teacher `noisy`: inverse temperature of its Bradley–Terry choice (per unit of true return)."""
    teacher_mistake: float = fraction(0.1, zero=True)
    """Teacher `mistake`: probability of the wrong answer."""
    teacher_margin: float = quantity(0.1, zero=True)
    """Teachers `skip` and `equal`: threshold as a fraction of the recent return, scaled to a segment."""
    teacher_discount: float = fraction(0.9)
    """Teacher `myopic`: weight of a step relative to the next one."""


@dataclass(frozen=True)
class VLMConfig:
    """The vision-language model as teacher (PrefVLM §4.1; schedule of ROVED)."""

    labels: bool = False
    """Whether the VLM labels pairs."""
    model: str = "liv"
    """Name in `vlm.load`: tinyliv, tinyliv-heldout, tinyliv-indomain, random, liv, decisionnce, open_clip:<model>; or
    simulated:<p>, which labels as the true reward would with probability p, whatever a segment looks like."""
    queries: int = count(128)
    """Pairs per session that the VLM labels."""
    frame_stride: int = count(1)
    """Steps between two frames that the VLM sees (divides horizon and segment length)."""
    ties: Literal["none", "keep", "drop"] = "none"
    """Whether a pair whose returns are close (see `vlm.labeller.TIE_MARGIN`) is labeled 1/2, and whether reward
    learning then sees it: none (a label is always 0 or 1), keep, drop (as RL-VLM-F does)."""
    relabel: bool = True
    """Label and filter earlier pairs again at each session, with the VLM and reward ensemble of then."""

    @property
    def simulated_accuracy(self) -> float | None:
        """Of a simulated VLM, the probability (fraction) of being right; None for a model that looks at frames.

        Raises `PrefVLMError` for a simulated one without a probability above 0 and at most 1.
        """
        if not self.model.startswith(SIMULATED_PREFIX):
            return None
        try:
            accuracy = float(self.model.removeprefix(SIMULATED_PREFIX))
        except ValueError:
            accuracy = 0.0
        if not 0 < accuracy <= 1 or self.model != f"{SIMULATED_PREFIX}{accuracy:g}":
            raise PrefVLMError(
                f"vlm.model {self.model} must name a probability above 0 and at most 1, for example simulated:0.8."
            )
        return accuracy


@dataclass(frozen=True)
class FilterConfig:
    """The KL filter (PrefVLM §4.2, after RIME; values of RIME's Meta-World runs, since PrefVLM gives none)."""

    mode: str = "rime"
    """Where the thresholds come from, a name in `preferences.filters.FILTERS`: rime, adaptive, or none, which keeps
    every label of the VLM."""
    human_selection: str = "uncertain"
    """Which pairs of a session go to the human, a name in `preferences.selection.HUMAN_SELECTIONS`: those that the
    filter calls uncertain, or random ones."""
    alpha: float = quantity(0.5, zero=True)
    """rime: weight of rho in the lower threshold."""
    beta_max: float = quantity(3.0, zero=True)
    """rime: weight of the spread of trusted divergences, at the start."""
    beta_min: float = quantity(1.0, zero=True)
    """rime: that weight in the end."""
    beta_sessions: int = count(20)
    """rime: sessions over which the weight falls (passes over the labels where `reward.learning` is rime)."""
    upper: float = quantity(6.907755278982137)
    """rime: divergence (nats) above which a label is flipped; 3 ln 10 in RIME."""
    confidence: float = fraction(0.9)
    """adaptive: probability (fraction) of being right from which a label is kept, or its opposite is."""
    adaptive_minimum: int = count(10)
    """adaptive: human labels needed before any label of the VLM is trusted."""


@dataclass(frozen=True)
class AdapterConfig:
    """Adapters of the frozen VLM (sizes of ROVED; the papers give no optimiser, so these values are measured ones)."""

    enabled: bool = False
    """Whether adapters are trained."""
    hidden: int = count(256)
    """Units of the hidden layer."""
    output: int = count(64)
    """Dimension of the adapted embedding."""
    residual: bool = False
    """Variant: add the adapter's output to the frozen embedding instead of replacing it."""
    learning_rate: float = quantity(1e-3)
    """Adam step size."""
    first_updates: int = count(150)
    """Gradient updates in the first session with human labels."""
    later_updates: int = count(40)
    """Gradient updates in each later session."""
    batch_pairs: int = count(32)
    """Human-labelled pairs per update."""
    dynamics_batch: int = count(64)
    """Transitions per update for the inverse-dynamics loss."""
    dynamics_weight: float = quantity(1.0, zero=True)
    """Weight of the inverse-dynamics loss (0 = without it)."""
    folds: int = count(4)
    """Cross-validation folds that decide whether adapting helps."""
    source: str = ""
    """Transfer: run_id of the finished run whose adapters this run starts from (empty: none)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Deterministic-policy evaluation on initial states that training never sees."""

    every: int = count(10_000)
    """Steps between two evaluations (a multiple of the horizon)."""
    episodes: int = count(10)
    """Episodes per evaluation."""
    final_episodes: int = count(10)
    """Episodes of the last evaluation."""
    held_out_pairs: int = count(200)
    """Random pairs on which the reward ensemble is compared with the true reward."""
