"""The groups of fields of a `RunConfig`, one per part of the method. The defaults are those of profile `paper`.

The docstring of each field is also its help text on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.config.fields import count, fraction, quantity, setting

SIMULATED_VLMS = ("simulated", "simulated-segments", "simulated-features")
"""Kinds of simulated VLMs (`vlm.simulated.SIMULATED`). A model's name is one of them, a colon and a probability."""
ENDPOINT_PREFIX = "endpoint:"
"""What the names of models behind an endpoint begin with; the name that the endpoint knows follows."""


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic. The defaults are those of B-Pref for Meta-World (`sac_metaworld.yaml`)."""

    hidden_layers: int = count(3, most=100)
    """Number of hidden layers of the actor and of each critic."""
    width: int = count(256)
    """Units per hidden layer."""
    batch_size: int = count(512)
    """Transitions of each run per gradient update."""
    actor_learning_rate: float = quantity(3e-4)
    """Learning rate of the actor (Adam)."""
    critic_learning_rate: float = quantity(3e-4)
    """Learning rate of the twin critics (Adam)."""
    temperature_learning_rate: float = quantity(1e-4)
    """Learning rate of the log temperature (Adam)."""
    initial_temperature: float = quantity(0.1, per_run=True)
    """Initial entropy temperature, in units of reward per nat."""
    discount: float = fraction(0.99, zero=True)
    """Discount factor per action."""
    target_rate: float = fraction(0.005)
    """Fraction by which the target critics move toward the critics at each target update."""
    target_update_every: int = count(2)
    """Gradient updates from one target update to the next."""
    update_every: int = count(1)
    """Actions from one gradient update to the next."""
    critic_norm: bool = False
    """Whether the critics normalize each layer before its ReLU (layer normalization without parameters)."""
    standardise: bool = False
    """Whether actor and critics see standardized observations, by the mean and standard deviation so far, which are
    renewed at the end of each episode."""


@dataclass(frozen=True)
class ExplorationConfig:
    """Exploration before the first feedback session (PEBBLE §4.1; lengths of ROVED), and RUNE's bonus after it."""

    random_steps: int = count(1_000, least=0)
    """Uniform random actions at the start of a run; learning starts after them."""
    entropy_steps: int = count(5_000, least=0, per_run=True)
    """Actions after the random ones that are rewarded by the k-nearest-neighbor state entropy (0: none)."""
    neighbours: int = count(5)
    """Number k of neighbors in the k-nearest-neighbor estimate of the state entropy."""
    bonus: float = quantity(0.0, zero=True, per_run=True)
    """Initial weight of RUNE's bonus, the standard deviation over the ensemble's members (RUNE: 0.05; 0: no bonus)."""
    bonus_decay: float = quantity(1e-5, per_run=True)
    """Fraction by which the weight of RUNE's bonus decays per action (default of RUNE's code)."""


@dataclass(frozen=True)
class RewardConfig:
    """The reward ensemble. The defaults are those of B-Pref (`reward_model.py`); ROVED reports the same network."""

    source: Literal["true", "learned", "vlm"] = setting("learned", per_run=True)
    """Source of the agent's reward: true (the task's own), learned (the reward ensemble), or vlm (the VLM's cosine of
    frame and text)."""
    learning: str = setting("plain", per_run=True)
    """How the ensemble learns from labels, a name in `reward.learners.LEARNERS`: plain (as in PEBBLE), surf (with
    pseudo-labels and crops) or rime (with a denoiser)."""
    inputs: str = "state-action"
    """What the ensemble sees of an action, a name in `reward.inputs.REWARD_INPUTS`: state-action (as in the papers),
    relations (the observation, and the positions of hand and object relative to each other) or embedding (the VLM's of
    the frame after the action, and nothing of the state)."""
    standardise: bool = setting(False, per_run=True)
    """Whether the ensemble's inputs are standardized, at each session by the mean and standard deviation so far."""
    members: int = count(3, most=1_000)
    """Number of networks in the ensemble."""
    hidden_layers: int = count(3, most=100)
    """Number of hidden layers of each network."""
    width: int = count(256)
    """Units per hidden layer."""
    learning_rate: float = quantity(3e-4)
    """Learning rate of the ensemble (Adam)."""
    batch_size: int = count(128)
    """Labeled pairs per gradient update of each member."""
    max_epochs: int = count(10)
    """Largest number of passes over the labels per session."""
    stop_accuracy: float = fraction(0.97)
    """Training accuracy (a fraction) above which a session's reward learning stops early."""
    stop_on: Literal["all", "human"] = setting("all", per_run=True)
    """The labels on which that accuracy is measured: all that are learned from, or human ones. Kept labels of a VLM
    agree with the ensemble from the start, so that all of them together end learning after a pass or two."""

    @property
    def embedded(self) -> bool:
        """Whether the ensemble sees frames, through the VLM's eyes."""
        return self.inputs == "embedding" and self.source == "learned"


@dataclass(frozen=True)
class SURFConfig:
    """Pseudo-labels and temporal crops, if `reward.learning` is surf (SURF §4; defaults of its Meta-World command).

    The names in parentheses are those of SURF's code.
    """

    epochs: int = count(20)
    """Passes over the labeled pairs per session, without early stopping (`reward_update`)."""
    unlabelled_ratio: int = count(10)
    """Unlabeled pairs drawn per query (`inv_label_ratio`)."""
    unlabelled_batches: int = count(4)
    """Unlabeled pairs per gradient update, in multiples of `reward.batch_size` (`mu`)."""
    confidence: float = fraction(0.99)
    """Smallest probability that a member must give to a pseudo-label to learn from it (`threshold_u`)."""
    weight: float = quantity(1.0)
    """Weight of the loss on pseudo-labels (`lambda_u`)."""
    window: int = count(5, least=0)
    """Actions kept before and after each segment, into which crops may reach (`dataaug_window`)."""
    crop: int = count(5, least=0)
    """Largest number of actions by which a crop is longer or shorter than a segment (`crop_range`)."""


@dataclass(frozen=True)
class RIMEConfig:
    """Denoising and warm start, if `reward.learning` is rime (RIME §4; defaults of its Meta-World command).

    The denoiser's thresholds are in `filter`.
    """

    warm_start_updates: int = count(5, least=0)
    """Gradient updates of the ensemble on the state entropy per update of the exploring agent (0: no warm start, and as
    in PEBBLE a fresh critic after the first session)."""
    minimum_epochs: int = count(7)
    """Smallest number of passes over the labels per session (RIME's code stops after epoch index 6 at the earliest)."""
    stop_accuracy: float = fraction(0.98)
    """Training accuracy (a fraction) above which a session's reward learning stops early."""
    warm_up_epochs: int = count(333)
    """Passes over the labels during which the learning rate rises to its full value (RIME's rule, 5/3 of the budget
    divided by the queries per session, at 20 000 labels and 100 per session)."""


@dataclass(frozen=True)
class MRNConfig:
    """Bi-level updates of the reward ensemble through the critic (MRN §4; defaults of its Meta-World command)."""

    meta_every: int = count(0, least=0)
    """Actions from one of MRN's meta-updates to the next, until the budget is spent (MRN: 10 000; 0: none)."""
    outer_weight: float = quantity(0.1)
    """Weight of the outer loss, the Bradley–Terry loss on the critics' values."""


@dataclass(frozen=True)
class FeedbackConfig:
    """Feedback sessions: which pairs are asked, how many, and who answers (schedule of ROVED; teachers of B-Pref)."""

    budget: int = count(2_000, least=0)
    """Queries to the human over the whole run, answered or skipped."""
    first_session_queries: int = count(250, least=0)
    """Queries to the human in the first session, which directly follows exploration."""
    session_queries: int = count(32, least=0)
    """Queries to the human in each later session, if `schedule` is fixed."""
    session_every: int = count(3_000)
    """Actions from one session to the next."""
    schedule: Literal["fixed", "even"] = "fixed"
    """How later sessions spend the budget: fixed (`session_queries` in each until it is spent, as in the papers) or
    even (in equal parts to the end of the run; what a session finds no pairs for is added to the next one)."""
    paired_start: bool = False
    """Whether all methods and budgets of one seed begin with the same pairs. Those of the first session and all that is
    random about adapters then have random streams of their own, and more queries begin with the same pairs as fewer."""
    segment_length: int = count(50)
    """Actions per segment (at most the horizon)."""
    recent_episodes: int = count(100)
    """Number of most recent complete episodes from which segments are drawn."""
    reset_updates: int = count(100, least=0)
    """Extra gradient updates of the agent directly after the first session, when its critics are fresh (B-Pref)."""
    sampling: str = "disagreement"
    """How pairs are chosen for the human in sessions without labels of the VLM, a name in
    `preferences.selection.SELECTIONS`: uniform, disagreement or same-stage. The first session is always uniform."""
    candidates: int = count(10)
    """Random pairs that disagreement and same-stage sampling draw per query, to choose from."""
    teacher: str = "oracle"
    """Who answers queries: human (people, through the label queue) or a scripted teacher in their place, a name in
    `preferences.teachers.TEACHERS`: oracle, noisy, mistake, skip, equal or myopic (B-Pref §3)."""
    teacher_rationality: float = quantity(1.0)
    """Inverse temperature of the Bradley–Terry choice of teacher `noisy`, per unit of true return."""
    teacher_mistake: float = fraction(0.1, zero=True)
    """Probability that teacher `mistake` gives the wrong answer."""
    teacher_margin: float = quantity(0.1, zero=True)
    """Threshold of the teachers `skip` and `equal`, as a fraction of the recent return scaled to a segment."""
    teacher_discount: float = fraction(0.9)
    """Weight of an action relative to the next one for teacher `myopic`."""


@dataclass(frozen=True)
class VLMConfig:
    """The vision-language model as a source of labels (PrefVLM §4.1; schedule of ROVED)."""

    labels: bool = False
    """Whether the VLM labels pairs."""
    model: str = "liv"
    """Name of the VLM, an entry of `vlm.VLMS`: tinyliv, tinyliv-heldout, tinyliv-indomain, their second generation
    tinyliv2, tinyliv2-heldout, tinyliv2-indomain, tinyliv2-maze (for the mazes), random, liv, decisionnce,
    open_clip:<model>, efficientnet or goal:<model>; endpoint:<model>, a large model behind the OpenAI-compatible
    endpoint that the environment variable PREFVLM_ENDPOINT names; or simulated:<p>, simulated-segments:<p> or
    simulated-features:<p>, which look at no frames but order a pair as the true reward does with probability p: they
    misjudge pairs, segments, or whatever looks alike."""
    queries: int = count(128)
    """New pairs that the VLM labels per session."""
    frame_stride: int = count(1)
    """Actions from one frame that the VLM sees to the next (a divisor of the horizon and of the segment length)."""
    shows: Literal["frame", "difference"] = "frame"
    """What the VLM sees of a step: frame (the one after its action) or difference (how that frame differs from the one
    before the action, as half the change around mid-gray: it shows motion, which no single frame does)."""
    ties: Literal["none", "keep", "drop"] = "none"
    """Treatment of pairs to which the VLM gives close returns (see `vlm.labeller.TIE_MARGIN`): none (they are labeled 0
    or 1 like all others), keep (they are labeled 1/2) or drop (they are labeled 1/2, but reward learning does not use
    them, as in RL-VLM-F)."""
    relabel: bool = True
    """Whether earlier pairs are labeled and filtered again at each session, with the current VLM and ensemble."""
    question: Literal["pair", "rating", "done"] = "pair"
    """What a model behind an endpoint is asked: pair (which of two segments is better, as in RL-VLM-F), rating (how far
    one segment gets, from 0 to 10) or done (whether one segment ends with the task done, of which the log probability
    counts, as in TOPReward)."""
    strip_frames: int = count(4, most=32)
    """Frames of a segment, evenly spaced, that a model behind an endpoint sees side by side in one image."""
    strip_pixels: int = count(224, least=16, most=1024)
    """Height and width of each of these frames, in pixels."""

    @property
    def endpoint(self) -> str | None:
        """The name of a model behind an endpoint; None for other models. Raises `PrefVLMError` if it is empty."""
        if not self.model.startswith(ENDPOINT_PREFIX):
            return None
        if not (name := self.model.removeprefix(ENDPOINT_PREFIX)).strip():
            raise PrefVLMError(f"vlm.model {self.model} must name a model, for example endpoint:gemma3:4b.")
        return name

    @property
    def simulated_accuracy(self) -> float | None:
        """The probability that a simulated VLM, of any kind, is right; None for a model that looks at frames.

        Raises `PrefVLMError` for an unknown kind, and for a name without a probability above 0 and at most 1.
        """
        if not self.model.startswith(SIMULATED_VLMS[0]):
            return None
        if self.simulated_kind not in SIMULATED_VLMS:
            raise unknown_name("simulated VLM", self.simulated_kind, SIMULATED_VLMS)
        try:
            accuracy = float(self.model.removeprefix(f"{self.simulated_kind}:"))
        except ValueError:
            accuracy = 0.0
        if not 0 < accuracy <= 1 or self.model != f"{self.simulated_kind}:{accuracy:g}":
            raise PrefVLMError(
                f"vlm.model {self.model} must name a probability above 0 and at most 1, for example "
                f"{self.simulated_kind}:0.8."
            )
        return accuracy

    @property
    def simulated_kind(self) -> str:
        """What the name of a simulated VLM says before the colon, one of `SIMULATED_VLMS`."""
        return self.model.partition(":")[0]


@dataclass(frozen=True)
class FilterConfig:
    """The KL filter (PrefVLM §4.2, after RIME). PrefVLM gives no values; the defaults are RIME's for Meta-World."""

    mode: str = "rime"
    """Source of the thresholds, a name in `preferences.filters.FILTERS`: rime, adaptive (learned from the human's
    labels), audited (none: all labels of the VLM are kept while the human finds it right at least as often as the
    ensemble, and reward learning doubts them by how often the human found them wrong) or none (every label is kept)."""
    human_selection: str = "uncertain"
    """Which pairs may go to the human, a name in `preferences.selection.HUMAN_SELECTIONS`: uncertain (the session's new
    pairs that the filter finds uncertain), uncertain-pool (those of earlier sessions too) or random (any new pairs)."""
    human_order: Literal["random", "disagreement"] = "random"
    """Which of these pairs go to the human first: random ones, or those on which the members of the reward ensemble
    disagree most, as PEBBLE chooses its own."""
    alpha: float = quantity(0.5, zero=True)
    """Weight of rho, the largest trusted divergence, in the lower threshold of `rime`."""
    beta_max: float = quantity(3.0, zero=True)
    """Initial weight of the standard deviation of the trusted divergences in the lower threshold of `rime`."""
    beta_min: float = quantity(1.0, zero=True)
    """Final weight of the standard deviation of the trusted divergences in the lower threshold of `rime`."""
    beta_sessions: int = count(20)
    """Sessions over which the weight of the standard deviation falls from `beta_max` to `beta_min` in `rime` (or passes
    over the labels if `reward.learning` is rime)."""
    upper: float = quantity(6.907755278982137)
    """Divergence in nats above which `rime` flips a label; 3 ln 10 as in RIME."""
    confidence: float = fraction(0.9)
    """Probability of being right above which `adaptive` keeps a label, and of being wrong above which it flips it."""
    adaptive_minimum: int = count(10)
    """Number of human labels on the VLM's pairs before `adaptive` keeps or flips any label of the VLM."""


@dataclass(frozen=True)
class AdapterConfig:
    """Adapters of the frozen VLM (sizes of ROVED). The papers give no optimizer; its values are measured."""

    enabled: bool = False
    """Whether adapters are trained."""
    kind: Literal["mlp", "kernel"] = "mlp"
    """What adapts the embeddings: mlp (the papers' networks) or kernel (a logistic regression on random features of the
    frames, which learns in milliseconds, without inverse dynamics; of the fields below it uses folds and source)."""
    hidden: int = count(256)
    """Units of each adapter's hidden layer."""
    output: int = count(64)
    """Dimension of the adapted embedding."""
    residual: bool = False
    """Whether the adapter's output is added to the frozen embedding instead of replacing it."""
    learning_rate: float = quantity(1e-3)
    """Learning rate of the adapters (Adam)."""
    first_updates: int = count(150)
    """Gradient updates in the first session with human labels."""
    later_updates: int = count(40)
    """Gradient updates in each later session."""
    batch_pairs: int = count(32)
    """Human-labeled pairs per gradient update."""
    dynamics_batch: int = count(64)
    """Transitions per gradient update for the inverse-dynamics loss."""
    dynamics_weight: float = quantity(1.0, zero=True)
    """Weight of the inverse-dynamics loss (0: it is left out)."""
    folds: int = count(4, least=2)
    """Number of cross-validation folds (at least 2), which decide whether the adapters are used."""
    source: str = ""
    """run_id of the finished run whose adapters this run starts from, for transfer (empty: none)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation of the deterministic policy from initial states that training never sees."""

    every: int = count(10_000)
    """Actions from one evaluation to the next (a multiple of the horizon)."""
    episodes: int = count(10)
    """Episodes per evaluation, except the last."""
    final_episodes: int = count(10)
    """Episodes of the last evaluation."""
    held_out_pairs: int = count(200)
    """Number of random pairs on which the reward ensemble is compared with the true reward at each evaluation."""
