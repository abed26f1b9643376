"""The sanity check: rewards along trajectories, labels before and after adaptation, their table, words and figures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from metaworld.policies import ENV_POLICY_MAP

from prefvlm_core import vlm
from prefvlm_core.analysis import sanity
from prefvlm_core.analysis.sanity import EmbeddedTask, RecordedTask, RewardCurve
from prefvlm_core.analysis.sanity_plans import MAZE_PLANS, PLANS, SanityPlan
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.tasks import TASKS
from prefvlm_core.plots import sanity as sanity_plots
from prefvlm_core.vlm import ImageTextModel
from prefvlm_core.vlm.pretraining.recordings import Recording


class GreenSeer(ImageTextModel):
    """A stand-in model: the cosine of a frame with any text is the mean of its green channel, 0..1."""

    frame_size, fingerprint = 64, "green"

    def encode_image(self, frames):
        green = frames[..., 1].mean((1, 2)) / 255
        return np.stack([green, np.sqrt(1 - green**2)], axis=1).astype(np.float32)

    def encode_text(self, texts):
        return np.tile(np.float32([1, 0]), (len(texts), 1))


@pytest.fixture(scope="module")
def curves():
    return sanity.reward_curves("drawer-close-v3", GreenSeer())


def test_every_profile_has_a_plan_of_enough_draws():
    assert set(PLANS) == set(MAZE_PLANS) == set(PROFILES)
    for plan in (*PLANS.values(), *MAZE_PLANS.values()):
        assert plan.film_steps % 5 == 0
        assert plan.trajectories >= 12 and plan.draws >= 2 and plan.stride % 5 == 0


@pytest.mark.filterwarnings("ignore:Constant")  # the expert asks for more than the environment allows
def test_rewards_are_those_of_the_recorded_behavior(curves):
    assert [curve.behavior for curve in curves] == ["expert", "noisy expert", "random actions"]
    for curve in curves:
        assert curve.frames.shape == (40, 64, 64, 3) and curve.true_rewards.shape == (40,)
        np.testing.assert_allclose(curve.vlm_rewards, curve.frames[..., 1].mean((1, 2)) / 255, rtol=1e-5)
    # The expert once more, by hand.
    seed = int(np.random.default_rng((sanity._SEED, TASKS.index("drawer-close-v3"))).integers(2**31))
    environment, policy = Environment("drawer-close-v3", 200, goal_visible=True), ENV_POLICY_MAP["drawer-close-v3"]()
    observation, rewards, successes = environment.reset(seed), [], []
    for _ in range(200):
        action = np.clip(policy.get_action(observation), -1, 1).astype(np.float32)
        observation, reward, success = environment.step(action)
        rewards.append(reward)
        successes.append(success)
    np.testing.assert_allclose(curves[0].true_rewards, [rewards[step - 1] for step in range(5, 201, 5)])
    assert curves[0].first_success == successes.index(True) + 1
    assert curves[2].first_success is None and curves[2].true_rewards.max() < 5


def synthetic(sign: float, informative_axis: int) -> EmbeddedTask:
    """12 trajectories whose reward at step t of trajectory n is that of n plus t / 1000; it stands in one axis of the
    embeddings, times `sign`. The text is axis 0."""
    levels = np.random.default_rng(0).permutation(12)[:, None] + np.arange(200) / 1000
    angle = levels.reshape(12, 40, 5).mean(2) / 15
    features = np.zeros((12, 40, 3), np.float32)
    features[..., informative_axis] = sign * np.sin(angle)
    features[..., 2] = np.cos(angle)
    explored = np.zeros((2, 40, 3), np.float32)
    return EmbeddedTask(np.float32([1, 0, 0]), features, levels, explored, np.zeros((2, 200, 4), np.float32))


@pytest.mark.parametrize("stride", [5, 10])
def test_zero_shot_accuracy_is_1_for_a_true_reward_and_0_for_its_opposite(stride):
    config = AdapterConfig(first_updates=1)
    assert sanity.before_and_after(synthetic(1, 0), stride, 20, 0, config) == (
        1.0,
        1.0,
    )  # the guard keeps what is right
    assert sanity.before_and_after(synthetic(-1, 0), stride, 20, 0, config)[0] == 0.0


def test_adapters_learn_what_the_frozen_model_does_not_say():
    before, after = sanity.before_and_after(synthetic(-1, 0), 10, 50, 0)
    assert before == 0.0 and after > 0.9
    before, after = sanity.before_and_after(synthetic(1, 1), 10, 50, 0)
    assert 0.4 < before < 0.6 and after > 0.9  # all cosines are 0: the first segment, whatever it is


def test_torch_gets_its_threads_back():
    threads = torch.get_num_threads()
    with pytest.raises(PrefVLMError, match="got labels"):
        sanity.before_and_after(synthetic(1, 0), 10, 0, 0)
    torch.set_num_threads(2)
    sanity.embed(GreenSeer(), RecordedTask(_blank_recording(), _blank_recording()))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def _blank_recording():
    frames, actions = np.zeros((2, 40, 64, 64, 3), np.uint8), np.zeros((2, 200, 4), np.float32)
    return Recording("drawer-close-v3", frames, np.zeros((2, 200)), np.zeros((2, 200), bool), actions)


def test_inverse_dynamics_pair_frames_with_the_actions_between_them():
    seen = synthetic(1, 0)
    after_step = np.arange(5, 201, 5, dtype=np.float32)
    explored = np.tile(after_step[:, None], (2, 1, 3))
    actions = np.tile(
        np.arange(1, 201, dtype=np.float32)[:, None], (2, 1, 4)
    )  # action t leads to the state after step t
    seen = EmbeddedTask(seen.text, seen.features, seen.rewards, explored, actions)
    before, after, mean_actions = sanity.dynamics(seen, 10)
    assert before.shape == after.shape == (2 * 19, 3) and mean_actions.shape == (2 * 19, 4)
    np.testing.assert_array_equal(before[:3, 0], [10, 20, 30])
    np.testing.assert_array_equal(after[:3, 0], [20, 30, 40])
    np.testing.assert_array_equal(mean_actions[:3, 0], [15.5, 25.5, 35.5])


def test_recordings_hold_whole_episodes_and_too_few_are_rejected():
    recorded = sanity.record_task("drawer-close-v3", 12, seed=3)
    assert recorded.mixed.frames.shape == (12, 40, 64, 64, 3)
    assert recorded.explored.frames.shape == (5, 40, 64, 64, 3) and recorded.explored.actions.shape == (5, 200, 4)
    seen = sanity.embed(GreenSeer(), recorded)
    np.testing.assert_allclose(seen.explored[4, 7, 0], recorded.explored.frames[4, 7, ..., 1].mean() / 255, rtol=1e-5)
    np.testing.assert_allclose(seen.features[11, 3, 0], recorded.mixed.frames[11, 3, ..., 1].mean() / 255, rtol=1e-5)
    with pytest.raises(PrefVLMError, match="11 trajectories of 'drawer-close-v3', allowed are 12 or more"):
        sanity.record_task("drawer-close-v3", 11, seed=3)


def test_each_draw_has_recordings_and_random_weights_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(sanity, "record_task", lambda task, trajectories, seed: (task, trajectories, seed))
    seen = synthetic(1, 0)  # embeddings whose cosine rises with the true reward

    def embed(model, recorded):
        asked.append((model.fingerprint, recorded))
        return seen

    monkeypatch.setattr(sanity, "embed", embed)
    monkeypatch.setattr(
        sanity, "before_and_after", lambda seen, *how: asked.append((*asked.pop(), *how)) or (0.5, 0.75)
    )
    monkeypatch.setattr(sanity, "expert_films", lambda task, draw, count, size, steps: (draw, count, steps))
    monkeypatch.setattr(sanity, "value_orders", lambda model, films: [0.2, films[0] * films[2] / 300])
    plan = SanityPlan(("a", "b"), trajectories=12, draws=2, stride=5, film_steps=300)
    accuracies = sanity.label_accuracies(plan, labels=7)
    assert accuracies.columns.tolist() == list(sanity.ACCURACY_COLUMNS) and len(accuracies) == 8
    assert set(accuracies["zero_shot"]) == {0.5} and set(accuracies["adapted"]) == {0.75}
    np.testing.assert_allclose(accuracies["value_order"], (0.2 + accuracies["draw"]) / 2)  # the mean over films
    np.testing.assert_allclose(accuracies["episode_order"], 1)
    assert len({fingerprint for fingerprint, *_ in asked}) == 3  # tinyliv, and two untrained networks
    assert len({recorded for _, recorded, *_ in asked}) == 4
    assert {tuple(rest[:2]) for _, _, *rest in asked} == {(5, 7)}


def test_the_mazes_are_checked_as_meta_world_is():
    pytest.importorskip("gymnasium_robotics", reason="needs the extra navigation")
    model = vlm.load("tinyliv2-maze")
    of_behavior = {curve.behavior: curve for curve in sanity.reward_curves("maze-two-goals", model, steps=400)}
    expert = of_behavior["expert"]
    assert len(expert.vlm_rewards) == len(expert.frames) == len(expert.true_rewards) == 80
    first = expert.first_success
    assert first is not None and expert.true_rewards[first // 5] == 0
    along = expert.vlm_rewards[: first // 5]
    assert scipy.stats.spearmanr(along, np.arange(len(along))).statistic > 0.7
    assert expert.vlm_rewards.mean() > of_behavior["random actions"].vlm_rewards.mean()
    plan = SanityPlan(("point-maze-u",), trajectories=12, draws=2, stride=10, model="tinyliv2-maze", film_steps=200)
    found = sanity.label_accuracies(plan)
    means = found.groupby("model")[["zero_shot", "value_order", "episode_order"]].mean()
    assert len(found) == 4 and (means.loc["tinyliv2-maze"] > means.loc["random"]).all()
    assert means.loc["tinyliv2-maze", "zero_shot"] > 0.7


def accuracies(**zero_shot_and_adapted):
    rows = [
        ("tinyliv", task, draw, *pair)
        for task, pairs in zero_shot_and_adapted.items()
        for draw, pair in enumerate(pairs)
    ]
    table = pd.DataFrame(rows, columns=["model", "task", "draw", "zero_shot", "adapted"])
    return table.assign(value_order=table["adapted"] - 1, episode_order=np.nan)


def test_table_holds_means_and_t_intervals():
    draws = np.array([(0.60, 0.70), (0.65, 0.72), (0.61, 0.78)])
    (row,) = sanity.accuracy_table(accuracies(door=draws)).to_dict("records")
    assert (row["model"], row["task"], row["draws"]) == ("tinyliv", "door", 3)
    for name, values in (("zero_shot", draws[:, 0]), ("adapted", draws[:, 1]), ("gain", draws[:, 1] - draws[:, 0])):
        interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert row[name] == pytest.approx(values.mean())
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(tuple(interval))


def test_all_tasks_is_the_mean_of_independent_tasks():
    table = sanity.accuracy_table(accuracies(door=[(0.5, 0.9), (0.54, 0.9)], drawer=[(0.8, 0.9), (0.8, 0.9)]))
    assert table["task"].tolist() == ["door", "drawer", "all tasks"]
    pooled = table.iloc[2]
    assert pooled["zero_shot"] == pytest.approx(0.66)
    margin = 4.302653 * 0.02 / 2  # t(0.975, 2) times the standard error of door's mean, over 2 tasks
    assert pooled["zero_shot_high"] - pooled["zero_shot"] == pytest.approx(margin, rel=1e-6)
    assert pooled["adapted_low"] == pooled["adapted_high"] == pytest.approx(0.9)
    assert pooled["gain_low"] == pytest.approx(0.24 - margin)


def test_intervals_stay_within_what_is_possible_and_need_two_draws():
    row = sanity.accuracy_table(accuracies(door=[(0.1, 0.9), (0.9, 0.1)])).iloc[0]
    assert (row["zero_shot_low"], row["zero_shot_high"]) == (0, 1)
    assert (row["gain_low"], row["gain_high"]) == (-1, 1)
    with pytest.raises(PrefVLMError, match="1 draw of door"):
        sanity.accuracy_table(accuracies(door=[(0.5, 0.6)]))


def test_words_say_before_after_and_whether_it_may_be_chance():
    table = sanity.accuracy_table(accuracies(door=[(0.60, 0.80), (0.62, 0.80)], drawer=[(0.60, 0.62), (0.62, 0.61)]))
    said = sanity.accuracies_in_words(table, 50)
    assert said == (
        "- **tinyliv**, all tasks: 61 (58–64) % of its labels are right zero-shot and 71 (70–72) % after 50 "
        "human labels: +10 (+6 to +14) points."
    )
    unchanged = sanity.accuracy_table(accuracies(door=[(0.60, 0.62), (0.62, 0.60)]))
    assert "+0 (−25 to +25) points, which may be chance." in sanity.accuracies_in_words(unchanged)


def test_orders_are_shown_where_they_were_measured():
    table = sanity.accuracy_table(accuracies(door=[(0.60, 0.70), (0.65, 0.72)], drawer=[(0.6, 0.5), (0.6, 0.5)]))
    interval = scipy.stats.ttest_1samp([-0.3, -0.28], 0).confidence_interval(0.95)
    shown = sanity.orders_by_task(table)
    expected = f"-0.29 ({interval.low:.2f} to {interval.high:.2f})"
    assert shown.loc["door", "VOC, tinyliv"] == expected and (shown["Kendall's τ, tinyliv"] == "").all()
    assert "with ρ = -0.40, and" in sanity.orders_in_words(table.assign(episode_order=0.25))  # (-0.29 - 0.5) / 2
    assert "was not measured when" in sanity.orders_in_words(table.assign(value_order=np.nan))


def made_up_curves():
    """VLM reward that rises with the true one in "expert" (success at step 30), and falls with it elsewhere."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    true = np.linspace(0, 8, 40)
    return [
        RewardCurve("door-open-v3", "expert", frames, np.linspace(-0.2, 0.2, 40, dtype=np.float32), true, 30),
        RewardCurve("door-open-v3", "random", frames, np.linspace(0.1, -0.1, 40, dtype=np.float32), 0 * true, None),
    ]


def test_words_about_rewards():
    expert = made_up_curves()[:1]
    assert sanity.curves_in_words(expert) == (
        "- **door-open-v3**: rank correlation with the true reward 1.00; mean VLM reward: expert 0.00."
    )


def steps_of(strip):
    return [int(label.get_text().removeprefix("step ")) for label in strip.get_xticklabels()]


@pytest.mark.parametrize(
    ("success", "steps"),
    [
        (12, [5, 10, 15, 20, 25, 30]),
        (101, [5, 25, 50, 70, 95, 115]),
        (199, [5, 45, 85, 120, 160, 200]),
        (None, [5, 45, 85, 120, 160, 200]),
    ],
)
def test_pictures_show_the_way_to_the_first_success(success, steps):
    curves = [replace(curve, first_success=success) for curve in made_up_curves()[:1]]
    strip, *_ = sanity_plots.rewards_along_trajectories(curves, "quick").axes
    assert steps_of(strip) == steps


def test_pictures_are_of_the_task_whose_success_comes_last():
    quick, slow = made_up_curves()[:1], made_up_curves()[:1]
    slow = [replace(curve, task="drawer-open-v3", first_success=150) for curve in slow]
    figure = sanity_plots.rewards_along_trajectories([*quick, *slow], "quick")
    assert steps_of(figure.axes[0])[-1] == 160
    assert "pictures: drawer-open, expert" in figure.texts[0].get_text().replace("\n", " ")


def test_figure_of_rewards_draws_the_numbers_and_the_frames():
    curves = made_up_curves()
    figure = sanity_plots.rewards_along_trajectories(curves, "quick")
    strip, expert, random = figure.axes
    true, vlm, success = expert.lines
    np.testing.assert_array_equal(vlm.get_xdata(), np.arange(5, 201, 5))
    np.testing.assert_allclose(vlm.get_ydata(), np.linspace(0, 1, 40), atol=1e-6)
    np.testing.assert_allclose(true.get_ydata(), np.linspace(0, 1, 40))
    assert success.get_xdata()[0] == 30 and len(random.lines) == 2
    np.testing.assert_allclose(random.lines[1].get_ydata(), np.linspace(0.75, 0.25, 40), atol=1e-6)
    (image,) = strip.images
    # Success comes at step 30: six frames from step 5 to step 40, of those after steps 5, 10, ...
    assert steps_of(strip) == [5, 10, 20, 25, 35, 40]
    shown = np.asarray(image.get_array()).reshape(64, 6, 64, 3)
    np.testing.assert_array_equal(shown[:, 2, :-1], curves[0].frames[3, :, :-1])
    assert "pictures: door-open, expert" in figure.texts[0].get_text().replace("\n", " ")
    assert [text.get_text() for text in expert.texts] == ["door-open", "“open a door with a\nrevolving joint”"]
    with pytest.raises(PrefVLMError, match="no reward curves"):
        sanity_plots.rewards_along_trajectories([], "quick")


def test_figure_of_accuracies_draws_the_table():
    table = sanity.accuracy_table(
        accuracies(**{"door-open-v3": [(0.6, 0.7), (0.64, 0.8)], "drawer-open-v3": [(0.4, 0.9), (0.42, 0.92)]})
    )
    both = pd.concat([table, table.assign(model="random")])
    figure = sanity_plots.label_accuracy_before_and_after(both, "laptop")
    assert [axes.get_title() for axes in figure.axes] == ["tinyliv", "untrained network"]
    for axes in figure.axes:
        marks = [line for line in axes.lines if line.get_marker() in ("o", "D")]
        drawn = {(round(line.get_ydata()[0]), line.get_marker()): line.get_xdata()[0] for line in marks}
        zero_shot = {(0, "o"): 41, (1, "o"): 62, (2, "o"): 51.5}  # drawer-open learned most, all tasks come last
        assert drawn == pytest.approx(zero_shot | {(0, "D"): 91, (1, "D"): 75, (2, "D"): 83})
    assert "2 draws" in figure.texts[0].get_text()
    with pytest.raises(PrefVLMError, match="lacks the columns"):
        sanity_plots.label_accuracy_before_and_after(table.drop(columns="adapted_low"), "laptop")


@pytest.mark.parametrize("which", ["rewards", "accuracies"])
def test_no_text_leaves_the_page(which):
    if which == "rewards":
        figure = sanity_plots.rewards_along_trajectories(made_up_curves(), "paper")
    else:
        table = sanity.accuracy_table(accuracies(**{"window-close-v3": [(0.6, 0.7), (0.64, 0.8)]}))
        figure = sanity_plots.label_accuracy_before_and_after(table, "paper")
    renderer = FigureCanvasAgg(figure).get_renderer()
    page = figure.bbox
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    for box in (text.get_window_extent(renderer) for text in texts):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
