"""The groups of fields of a `RunConfig`, one per part of the method. Defaults are those of profile `paper`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    """Discount per step."""
    target_rate: float = 0.005
    """Polyak rate of the target critics."""
    target_update_every: int = 2
    """Gradient updates between two target updates."""
    update_every: int = 1
    """Steps between two gradient updates."""


@dataclass(frozen=True)
class ExplorationConfig:
    """What happens before the first feedback session (PEBBLE §4.1; step counts of ROVED)."""

    random_steps: int = 1_000
    """Steps with uniform random actions; learning starts after them."""
    entropy_steps: int = 5_000
    """Steps that follow, rewarded by the k-NN state entropy (0 = none)."""
    neighbours: int = 5
    """k of the k-nearest-neighbour entropy estimate."""
    bonus: float = 0.0
    """RUNE: weight of the members' standard deviation in the agent's reward, at step 0 (RUNE: 0.05; 0 = none)."""
    bonus_decay: float = 1e-5
    """RUNE: fraction by which that weight falls per step (the original code's default)."""


@dataclass(frozen=True)
class RewardConfig:
    """Reward ensemble (B-Pref `reward_model.py`; ROVED reports the same network)."""

    source: Literal["true", "learned", "vlm"] = "learned"
    """What the agent is rewarded with: the task's own reward, the ensemble's, or the VLM's cosine."""
    learning: Literal["plain", "surf", "rime"] = "plain"
    """How the ensemble learns from labels: as in PEBBLE, with SURF's pseudo-labels, or through RIME's denoiser."""
    standardise: bool = False
    """Whether the ensemble's inputs are standardised, anew at each session, by what the run has seen so far."""
    label_smoothing: float = 0.0
    """Where `learning` is plain: part of each label that is spread evenly over both answers, so that rewards of pairs
    that are told apart do not grow without end (fraction)."""
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
class SURFConfig:
    """Where `reward.learning` is surf: pseudo-labels and temporal crops (SURF §4; its Meta-World command)."""

    epochs: int = 20
    """Gradient updates per session, in passes over the labelled pairs; there is no early stop (`reward_update`)."""
    unlabelled_ratio: int = 10
    """Unlabelled pairs drawn per query (`inv_label_ratio`)."""
    unlabelled_batches: int = 4
    """Unlabelled pairs per gradient update, in units of `reward.batch_size` (`mu`)."""
    confidence: float = 0.99
    """Probability (fraction) that a member must give its own pseudo-label (`threshold_u`)."""
    weight: float = 1.0
    """Weight of the pseudo-labels' loss (`lambda_u`)."""
    window: int = 5
    """Steps kept before and after each segment, for crops to reach into (`dataaug_window`)."""
    crop: int = 5
    """Steps by which a crop may be longer or shorter than a segment (`crop_range`)."""


@dataclass(frozen=True)
class RIMEConfig:
    """Where `reward.learning` is rime: denoising (thresholds in `filter`) and warm start (RIME §4; its Meta-World
    command)."""

    warm_start_updates: int = 5
    """Gradient updates of the ensemble towards the state entropy per update of the exploring agent (0 = no warm start,
    and a fresh critic after the first session as in PEBBLE)."""
    minimum_epochs: int = 7
    """Passes over the labels per session, at least (the original stops after epoch index 6 at the earliest)."""
    stop_accuracy: float = 0.98
    """Training accuracy (fraction) at which a session's reward learning stops early."""
    warm_up_epochs: int = 333
    """Passes over which the step size rises to its full value (the original's rule, 5/3 of budget / session queries, at
    20 000 labels and 100 per session)."""


@dataclass(frozen=True)
class MRNConfig:
    """Bi-level updates of the reward ensemble through the critic (MRN §4; its Meta-World command)."""

    meta_every: int = 0
    """Steps between two of them, while labels remain (MRN: 10 000; 0 = never)."""
    outer_weight: float = 0.1
    """Weight of the outer loss."""


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
    """Steps between two sessions."""
    segment_length: int = 50
    """Steps per segment."""
    recent_episodes: int = 100
    """Segments are drawn from this many most recent complete episodes."""
    reset_updates: int = 100
    """Gradient updates on fresh critics right after the first session (B-Pref)."""
    sampling: Literal["uniform", "disagreement"] = "disagreement"
    """Which pairs are asked; the first session is always uniform."""
    candidates: int = 10
    """Disagreement sampling draws this many times the pairs it needs and keeps the most disputed."""
    balance: bool = False
    """Whether reward learning sees human labels so often that they are about as many as the VLM's."""
    teacher: Literal["oracle", "noisy", "mistake", "skip", "equal", "myopic", "human"] = "oracle"
    """Who answers: a scripted teacher that stands for the human (B-Pref §3), or people through the label queue."""
    teacher_rationality: float = 1.0
    """Teacher `noisy`: inverse temperature of its Bradley–Terry choice (per unit of true return)."""
    teacher_mistake: float = 0.1
    """Teacher `mistake`: probability of the wrong answer."""
    teacher_margin: float = 0.1
    """Teachers `skip` and `equal`: threshold as a fraction of the recent return, scaled to a segment."""
    teacher_discount: float = 0.9
    """Teacher `myopic`: weight of a step relative to the next one."""


@dataclass(frozen=True)
class VLMConfig:
    """The vision-language model as teacher (PrefVLM §4.1; schedule of ROVED)."""

    labels: bool = False
    """Whether the VLM labels pairs."""
    model: str = "liv"
    """Name in `vlm.load`: tinyliv, tinyliv-heldout, tinyliv-indomain, random, liv, decisionnce, open_clip:<model>."""
    simulated_accuracy: float = 0.0
    """In place of a model: the probability (fraction) with which a simulated VLM labels as the true reward would (0 =
    the model labels)."""
    queries: int = 128
    """Pairs per session that the VLM labels."""
    frame_stride: int = 1
    """Steps between two frames that the VLM sees (divides horizon and segment length)."""
    equal_within: float = 0.0
    """Label a pair 1/2 when its returns differ by less than this times the pairs' standard deviation (0 = never)."""
    keep_equal: bool = True
    """Whether reward learning sees the pairs labelled 1/2 (RL-VLM-F drops them)."""
    relabel: bool = True
    """Label and filter earlier pairs again at each session, with the VLM and reward ensemble of then."""


@dataclass(frozen=True)
class FilterConfig:
    """The KL filter (PrefVLM §4.2, after RIME; values of RIME's Meta-World runs, since PrefVLM gives none)."""

    mode: Literal["rime", "fixed", "adaptive", "calibrated", "none"] = "rime"
    """Where the thresholds come from; none keeps every label of the VLM."""
    human_selection: Literal["uncertain", "random", "disagreement"] = "uncertain"
    """Which pairs of a session go to the human: those that the filter calls uncertain, any, or further ones on which
    the ensemble's members disagree most (of `feedback.candidates` times as many, whatever the filter says)."""
    alpha: float = 0.5
    """rime: weight of rho in the lower threshold."""
    beta_max: float = 3.0
    """rime: weight of the spread of trusted divergences, at the start."""
    beta_min: float = 1.0
    """rime: that weight in the end."""
    beta_sessions: int = 20
    """rime: sessions over which the weight falls (passes over the labels where `reward.learning` is rime)."""
    lower: float = 0.7
    """fixed: divergence (nats) below which a label is kept."""
    upper: float = 6.907755278982137
    """rime, fixed: divergence (nats) above which a label is flipped; 3 ln 10 in RIME."""
    confidence: float = 0.9
    """adaptive, calibrated: probability (fraction) of being right from which a label is kept, or its opposite is."""
    soft_labels: bool = False
    """calibrated: whether labels are kept with their probability of being right, rather than as certain."""
    adaptive_minimum: int = 10
    """adaptive, calibrated: human labels needed before any label of the VLM is trusted."""


@dataclass(frozen=True)
class AdapterConfig:
    """Adapters of the frozen VLM (sizes of ROVED; the papers give no optimiser, so these values are measured ones)."""

    enabled: bool = False
    """Whether adapters are trained."""
    hidden: int = 256
    """Units of the hidden layer."""
    output: int = 64
    """Dimension of the adapted embedding."""
    residual: bool = False
    """Variant: add the adapter's output to the frozen embedding instead of replacing it."""
    learning_rate: float = 1e-3
    """Adam step size."""
    first_updates: int = 150
    """Gradient updates in the first session with human labels."""
    later_updates: int = 40
    """Gradient updates in each later session."""
    batch_pairs: int = 32
    """Human-labelled pairs per update."""
    dynamics_batch: int = 64
    """Transitions per update for the inverse-dynamics loss."""
    dynamics_weight: float = 1.0
    """Weight of the inverse-dynamics loss (0 = without it)."""
    folds: int = 4
    """Cross-validation folds that decide whether adapting helps."""
    source: str = ""
    """Transfer: run_id of the finished run whose adapters this run starts from (empty: none)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Deterministic-policy evaluation on initial states that training never sees."""

    every: int = 10_000
    """Steps between two evaluations (a multiple of the horizon)."""
    episodes: int = 10
    """Episodes per evaluation."""
    final_episodes: int = 10
    """Episodes of the last evaluation."""
    held_out_pairs: int = 200
    """Random pairs on which the reward ensemble is compared with the true reward."""
