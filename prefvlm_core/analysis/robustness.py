"""What a disturbed scene does to the VLM's labels and values, measured on the same episodes drawn again and again.

Three readers see each disturbed scene: the *zero-shot* model, adapters that learned from labels given *before* the
change, on clean frames, and adapters that learned from labels of the same pairs given *under* it.
"""

import itertools
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefvlm_core.analysis.sanity import (
    HUMAN_LABELS,
    EmbeddedTask,
    PlayedTask,
    RecordedTask,
    draw_pairs,
    dynamics,
    embed,
    play_task,
)
from prefvlm_core.analysis.vlm_quality import value_order
from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.machine import one_thread
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import EVERYTHING, INTENSITIES, STRENGTHS, perturbation_of
from prefvlm_core.domains.registry import domain_of, task_number
from prefvlm_core.domains.tasks import PAPER_TASKS
from prefvlm_core.vlm import VisionLanguageModel
from prefvlm_core.vlm.adaptation import FrameAdapter
from prefvlm_core.vlm.frame_pairs import FramePairs
from prefvlm_core.vlm.labeller import fresh_adapters
from prefvlm_core.vlm.pretraining.recordings import at_frames, expert_episodes, play

MODEL = "tinyliv2"
"""The VLM that is disturbed."""
CLEAN_SCENE = "clean"
FACTORS = (*INTENSITIES, EVERYTHING)
ZERO_SHOT, BEFORE, UNDER = READERS = ("zero-shot", "adapted before", "adapted under it")
MEASURES = ("accuracy", "value_order")
COLUMNS = ("task", "draw", "factor", "strength", "reader", *MEASURES)

_SEED = 20261125  # of everything recorded here; no model is trained or chosen on it
_TEST_PAIRS = 500
_STRIDE = 10  # environment steps from one frame that the VLM sees to the next
_EXPERT_NOISE = 0.2


@dataclass(frozen=True)
class RobustnessPlan:
    """The size of the measurement."""

    tasks: tuple[str, ...]
    trajectories: int
    """Trajectories of mixed quality per task and draw, at least 12; see `sanity_plans.SanityPlan`."""
    draws: int
    """Independent draws of trajectories, films, perturbations and initial adapters per task, at least 2."""
    films: int
    """Episodes of the expert per task and draw."""
    strengths: tuple[str, ...] = ("strong", "mild", "extreme")
    """In the order in which they are measured."""


PLANS = {
    "quick": RobustnessPlan(("button-press-v3",), trajectories=12, draws=2, films=2, strengths=("strong",)),
    "laptop": RobustnessPlan(
        ("window-open-v3", "window-close-v3", "door-close-v3", "button-press-v3"),
        trajectories=24,
        draws=2,
        films=4,
    ),
    "paper": RobustnessPlan(PAPER_TASKS, trajectories=60, draws=10, films=10),
}


class Batch(NamedTuple):
    """What is measured in one go: every factor at one strength, and the clean scene, in one draw of a task."""

    task: str
    draw: int
    strength: str

    @property
    def scenes(self) -> list[tuple[str, str]]:
        """Factor and strength of each scene; the clean one, the first, has no strength."""
        return [(CLEAN_SCENE, ""), *((factor, self.strength) for factor in FACTORS)]


def batches(plan: RobustnessPlan) -> list[Batch]:
    """The batches of a plan, one strength after the other."""
    every = itertools.product(plan.strengths, plan.tasks, range(plan.draws))
    return [Batch(task, draw, strength) for strength, task, draw in every]


@one_thread()
def measure(batch: Batch, plan: RobustnessPlan, model: VisionLanguageModel) -> pd.DataFrame:
    """One row per scene and reader, columns `COLUMNS`.

    accuracy is the fraction of 500 held-out pairs ordered as by the true return; value_order is the mean over films of
    `value_order` of a reader's values from an expert's start to its success. In a draw, all scenes show the
    same episodes, and all readers are asked the same pairs.
    """
    task, draw, _ = batch
    played, films = play_task(task, plan.trajectories, _SEED + draw), _expert_films(task, draw, plan.films)
    seed = draw * len(domain_of(task).tasks) + task_number(task)  # another scene in every draw of every task
    rows = []
    before: FrameAdapter | None = None
    with closing(FrameRenderer(task)) as renderer:
        for factor, strength in tqdm(batch.scenes, desc=f"{task}, draw {draw}", unit="scene", leave=False):
            if factor != CLEAN_SCENE:
                renderer.look(perturbation=perturbation_of(factor, strength, seed))
            seen = _see(model, renderer, played)
            shown = [model.encode_image(renderer.render(*film)) for film in films]
            under = _taught(seen, draw)
            before = before or under
            for reader, adapters in zip(READERS, (_untaught(seen, draw), before, under), strict=True):
                measured = _accuracy(adapters, seen, draw), _value_order(adapters, seen.text, shown)
                rows.append((task, draw, factor, strength, reader, *measured))
    return pd.DataFrame(rows, columns=COLUMNS)


def _see(model: VisionLanguageModel, renderer: FrameRenderer, played: PlayedTask) -> EmbeddedTask:
    return embed(model, RecordedTask(played.mixed.seen_by(renderer), played.explored.seen_by(renderer)))


def _expert_films(task: str, draw: int, count: int) -> list[tuple[FloatArray, FloatArray]]:
    """Snapshots (F, S) and scenes (F, C) of the expert's episodes up to its success, of those in which it succeeds."""
    generator, films = np.random.default_rng((_SEED, draw, task_number(task))), []
    played = play(task, expert_episodes(task, _EXPERT_NOISE, count, generator))
    for successes, snapshots, scene in zip(at_frames(played.successes), played.snapshots, played.scenes, strict=True):
        if successes.any():
            length = int(successes.argmax()) + 1
            films.append((snapshots[:length], np.repeat(scene[None], length, axis=0)))
    return films


def _untaught(seen: EmbeddedTask, draw: int) -> FrameAdapter:
    return fresh_adapters(AdapterConfig(), len(seen.text), seen.actions.shape[-1], np.random.default_rng(draw))


def _taught(seen: EmbeddedTask, draw: int) -> FrameAdapter:
    """Adapters that learned from labels of two thirds of the trajectories, or were rejected and do nothing."""
    adapters, generator = _untaught(seen, draw), np.random.default_rng((draw, 1))
    learned = np.arange(len(seen.features) * 2 // 3)
    frames, truth = draw_pairs(seen, learned, HUMAN_LABELS, _STRIDE, generator)
    adapters.learn(seen.text, FramePairs.of(frames), truth, dynamics(seen, _STRIDE), generator)
    return adapters


def _accuracy(adapters: FrameAdapter, seen: EmbeddedTask, draw: int) -> float:
    judged = np.arange(len(seen.features) * 2 // 3, len(seen.features))
    frames, truth = draw_pairs(seen, judged, _TEST_PAIRS, _STRIDE, np.random.default_rng((draw, 2)))
    returns = adapters.returns(seen.text, frames)
    return float(((returns[:, 1] > returns[:, 0]) == truth).mean())


def _value_order(adapters: FrameAdapter, text: FloatArray, films: list[FloatArray]) -> float:
    """Mean over films (F, D); nan where the expert never succeeded. A frame's value is the return of that frame."""
    pairs = [np.repeat(film[:, None, None], 2, axis=1) for film in films]
    orders = [value_order(adapters.returns(text, frames)[:, 0]) for frames in pairs]
    return float(np.mean(orders)) if orders else np.nan


def pictures(task: str, seed: int = 0) -> dict[tuple[str, str], ImageArray]:
    """What the VLM sees of the same moment in each scene: factor and strength -> a frame (64, 64, 3), RGB."""
    generator = np.random.default_rng((_SEED, task_number(task)))
    played = play(task, [(Expert(task, 0.0, generator), _SEED)])
    shown = played.snapshots[:, played.snapshots.shape[1] // 4]
    frames = {}
    with closing(FrameRenderer(task)) as renderer:
        for factor in (CLEAN_SCENE, *FACTORS):
            for strength in STRENGTHS if factor != CLEAN_SCENE else ("",):
                if strength:
                    renderer.look(perturbation=perturbation_of(factor, strength, seed))
                frames[factor, strength] = renderer.render(shown, played.scenes)[0]
    return frames
