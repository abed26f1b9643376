"""One episode, frame by frame: what the camera sees, and what every reward says of it, in any disturbed scene."""

from __future__ import annotations

from pathlib import Path

import ipywidgets
import pandas
from matplotlib.colors import to_rgb

from prefvlm_core.config.profiles import check_profile
from prefvlm_core.domains.perturbations import CLEAN, EVERYTHING, INTENSITIES, STRENGTHS, Perturbation, perturbation_of
from prefvlm_core.domains.registry import DOMAINS, domain_of, main_tasks
from prefvlm_core.explore import films
from prefvlm_core.explore.choosing import results_folder, run_table
from prefvlm_core.explore.picture import Explorer, Picture, drop_down, encode, row, sentence_html, table_html
from prefvlm_core.plots.layout import CurveEnd, label_curve_ends
from prefvlm_core.plots.sanity import TRUE_COLOR, VLM_COLOR
from prefvlm_core.plots.style import X_TITLES, method_color, project_style
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.vlm import TINYLIV_NAMES, VisionLanguageModel, load
from prefvlm_core.vlm.pretraining.recordings import FRAME_EVERY, RECORDED_STEPS
from prefvlm_core.vlm.texts import task_text

CLEAN_SCENE, NO_RUN = "clean", "no run"
COLORS = {
    films.ZERO_SHOT: VLM_COLOR,
    films.ADAPTED: method_color("prefvlm"),
    films.LEARNED: method_color("pebble"),
    films.TRUE: TRUE_COLOR,
}
FRAME_PIXELS = 300


def offered_tasks() -> list[str]:
    """The tasks that the domains at hand are compared on."""
    domains = [domain for domain in DOMAINS.values() if domain.installed]
    return [task for domain in domains for task in main_tasks(next(iter(domain.tasks)))]


def scaled(scores: pandas.DataFrame) -> pandas.DataFrame:
    """Each score of an episode between its extremes, 0 to 1; 0 where it never changes."""
    span = scores.max() - scores.min()
    return (scores - scores.min()) / span.where(span > 0, 1)


class Curves:
    """The scores of an episode against the environment step, each between its extremes, with a cursor."""

    def __init__(self) -> None:
        self._picture = Picture(height=1.7, right=0.95)
        self.view = self._picture.view

    @project_style
    def show_scores(self, scores: pandas.DataFrame, first_success: int | None) -> None:
        """Draw anew; a dotted line at the first success, if there is one."""
        axes = self._picture.axes
        axes.clear()
        axes.set(xlim=(0, RECORDED_STEPS), ylim=(-0.04, 1.04), yticks=(0, 0.5, 1))
        axes.set_xlabel(X_TITLES["step"])
        axes.set_ylabel("scaled to its extremes")
        ends = []
        for name, values in scaled(scores).items():
            axes.plot(values.index, values, color=COLORS[name], lw=1.2)
            ends.append(CurveEnd(str(name), to_rgb(COLORS[str(name)]), values.index[-1], values.iloc[-1]))
        if first_success is not None:
            axes.axvline(first_success, color="#666666", lw=0.8, ls=(0, (1, 1.2)))
        self._cursor = axes.axvline(FRAME_EVERY, color="#444444", lw=0.8)
        label_curve_ends(axes, ends)

    def show_step(self, step: int) -> None:
        """Move the cursor to an environment step."""
        self._cursor.set_xdata([step, step])
        self._picture.draw()


class EpisodeExplorer(Explorer):
    """An episode of a scripted expert, a noisy one, random actions or a stored policy, to scrub through.

    Args:
        profile: Whose run folders are offered. Published tables hold no networks: without folders there are no stored
            policies, learned rewards and adapted scores.
        results: Folder of the runs; empty: the project's.

    Raises:
        PrefVLMError: For an unknown profile, and where frames cannot be rendered.
    """

    def __init__(self, profile: str = "laptop", results: str | Path = "") -> None:
        super().__init__()
        self._profile, self._results = check_profile(profile), results_folder(results)
        self._models: dict[str, VisionLanguageModel] = {}
        self.task = drop_down("task", offered_tasks())
        self.run = drop_down("run", [NO_RUN], "500px")
        self.behavior = drop_down("who acts", [], "240px")
        seed = {"style": {"description_width": "80px"}, "layout": {"width": "180px"}}
        self.seed = ipywidgets.BoundedIntText(0, min=0, max=9_999, description="initial state", **seed)
        self.model = drop_down("VLM", TINYLIV_NAMES)
        self.model.value = "tinyliv2"
        self.factor = drop_down("scene", [CLEAN_SCENE], "240px")
        self.strength = drop_down("strength", STRENGTHS, "190px")
        self.strength.value = "strong"
        self.step = ipywidgets.IntSlider(
            FRAME_EVERY,
            min=FRAME_EVERY,
            max=RECORDED_STEPS,
            step=FRAME_EVERY,
            description="step",
            style={"description_width": "70px"},
            layout={"width": "620px", "max_width": "100%"},
        )
        self.numbers, self.words = ipywidgets.HTML(), ipywidgets.HTML()
        size = {"width": f"{FRAME_PIXELS}px", "height": f"{FRAME_PIXELS}px"}
        self.frame = ipywidgets.Image(format="png", layout=size)
        self._curves, self._camera, self._eyes = Curves(), films.Camera(FRAME_PIXELS), films.Camera(64)
        beside = ipywidgets.VBox([self.numbers, self.words], layout={"max_width": "500px", "padding": "0 0 0 16px"})
        scene = row(self.model, self.factor, self.strength)
        lists = [row(self.task, self.behavior, self.seed), self.run, scene]
        self._arrange("episode", [*lists, self.step, ipywidgets.HBox([self.frame, beside]), self._curves.view])
        self._filling = False
        self._choose_task()
        self.task.observe(lambda _change: self._choose_task(), "value")
        self.run.observe(lambda _change: self._choose_run(), "value")
        for each in (self.behavior, self.seed):
            each.observe(lambda _change: self._play(), "value")
        for each in (self.model, self.factor, self.strength):
            each.observe(lambda _change: self._look(), "value")
        self.step.observe(lambda _change: self._show_step(), "value")

    @property
    def scene(self) -> Perturbation:
        """What is changed in the scene; another initial state has another change of the same kind."""
        if self.factor.value == CLEAN_SCENE:
            return CLEAN
        return perturbation_of(self.factor.value, self.strength.value, self.seed.value)

    def _choose_task(self) -> None:
        found = films.runs_with_weights(self.task.value, self._profile, self._results)
        self._runs: dict[str, RunDirectory | None] = {NO_RUN: None}
        for each in run_table(found, self._profile).itertuples():
            self._runs[f"{each.setting}, seed {each.seed}"] = each.run
        self._filling = True
        self.run.options = list(self._runs)
        factors = domain_of(self.task.value).factors
        scenes = [CLEAN_SCENE, *factors, *([EVERYTHING] if set(factors) == set(INTENSITIES) else [])]
        self.factor.options, self.factor.value = scenes, self.factor.value if self.factor.value in scenes else scenes[0]
        self._filling = False
        self.run.layout.display = "" if found else "none"
        self._choose_run()

    def _choose_run(self) -> None:
        if self._filling:
            return
        run, chosen = self._runs[self.run.value], self.behavior.value
        options = [*films.behaviors(self.task.value), *([films.POLICY] if run else [])]
        self._filling = True
        self.behavior.options = options
        self.behavior.value = chosen if chosen in options else options[0]
        if run and run.config.vlm.model in TINYLIV_NAMES:
            self.model.value = run.config.vlm.model
        self._filling = False
        self._play()

    def _play(self) -> None:
        """Play the episode that is asked for."""
        if self._filling:
            return
        run = self._runs[self.run.value]
        self._played = films.play_behavior(self.task.value, self.behavior.value, self.seed.value, run)
        self._look()

    def _look(self) -> None:
        """Look at the same episode in another scene, or with other eyes."""
        if self._filling:
            return
        name, run = self.model.value, self._runs[self.run.value]
        self.strength.disabled = self.factor.value == CLEAN_SCENE
        if name not in self._models:
            self._models[name] = load(name)
        frames = self._rendered(self._eyes.see, self._played.episodes, slice(None), self.scene)
        self._scores = films.scores(self._played, frames, self._models[name], run)
        successes = self._played.episodes.successes[0]
        first_success = int(successes.argmax()) + 1 if successes.any() else None
        self._frames: dict[int, bytes] = {}
        self._curves.show_scores(self._scores, first_success)
        self.words.value = self._sentences(first_success)
        self._show_step()

    def _show_step(self) -> None:
        step = self.step.value
        if step not in self._frames:
            shown = step // FRAME_EVERY - 1
            seen = self._rendered(self._camera.see, self._played.episodes, slice(shown, shown + 1), self.scene)
            self._frames[step] = encode(seen[0])
        self.frame.value = self._frames[step]
        self.numbers.value = table_html(_in_words(self._scores, step))
        self._curves.show_step(step)

    def _sentences(self, first_success: int | None) -> str:
        success = f"First success at step {first_success} (dotted)." if first_success else "No step is a success."
        said = [f"“{task_text(self.task.value)}”. {success}"]
        run = self._runs[self.run.value]
        if len(self._runs) == 1:
            said.append(
                f"Policies, learned rewards and adapted scores need a run folder with weights on this task below "
                f"{self._results / self._profile}; published tables hold none."
            )
        elif run is not None and films.ADAPTED not in self._scores:
            said.append(f"The run has no adapters in use on top of {self.model.value}.")
        if run is not None and films.LEARNED not in self._scores:
            said.append("The run has no learned reward of states.")
        return sentence_html(said[0]) + sentence_html(" ".join(said[1:]), soft=True)


def _in_words(scores: pandas.DataFrame, step: int) -> pandas.DataFrame:
    """The scores at a step, between their smallest and largest ones, as texts."""
    columns = {f"step {step}": scores.loc[step], "smallest": scores.min(), "largest": scores.max()}
    return pandas.DataFrame(columns).map(lambda value: f"{value:.3f}".replace("-", "−"))
