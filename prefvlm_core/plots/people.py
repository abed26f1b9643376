"""What the reward learned from a person's answers: its values along an expert's episode, after each session."""

from __future__ import annotations

import numpy as np
import pandas
import scipy.stats
import seaborn
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.registry import domain_of, sizes_of
from prefvlm_core.plots.layout import (
    CurveEnd,
    Row,
    label_curve_ends,
    make_footer,
    make_panels,
    task_title,
    text_width,
)
from prefvlm_core.plots.style import REFERENCE_COLOR, method_color, project_style
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.runs.directory import RunDirectory

STEPS = 100
"""Environment steps of the episode; the experts of the papers' tasks have succeeded by then."""
_SEED = 20260701  # of the episode; any will do, since training's episodes have other seeds


def rewards_along_expert(directory: RunDirectory) -> pandas.DataFrame:
    """The learned reward after each session of a run, along one episode of the task's scripted expert.

    One row per session and step, columns task, profile, session, step, reward (the ensemble's mean, -1 to 1) and
    true_reward; empty until reward learning has seen the first session.
    """
    config = directory.config
    sessions = directory.read_session_rewards()
    if not sessions:
        return pandas.DataFrame(columns=["task", "profile", "session", "step", "reward", "true_reward"])
    repeat = config.action_repeat
    observations, actions, true_rewards = _expert_episode(config.task, min(STEPS // repeat, config.horizon), repeat)
    generators = [np.random.default_rng(0)]
    sizes = sizes_of(config.task)
    ensemble = RewardEnsemble(
        config.reward, sizes.observation + sizes.action, generators, torch.device("cpu"), config.task
    )
    tables = []
    for session, values in sessions.items():
        ensemble.networks.values.copy_(values.unsqueeze(0))
        with torch.no_grad():
            members = ensemble.of_run(0).member_rewards(torch.cat((observations, actions), -1))
        rewards = members.mean(0).numpy()
        steps = repeat * np.arange(1, len(rewards) + 1)
        columns = {"session": session, "step": steps, "reward": rewards, "true_reward": true_rewards}
        tables.append(pandas.DataFrame({"task": config.task, "profile": config.profile, **columns}))
    return pandas.concat(tables, ignore_index=True)


def rank_correlations(table: pandas.DataFrame) -> pandas.Series:
    """Spearman's rank correlation of learned and true reward along the episode, by session."""
    return pandas.Series(
        {
            session: float(scipy.stats.spearmanr(rows["reward"], rows["true_reward"]).statistic)
            for session, rows in table.groupby("session")
        }
    )


@project_style
def draw_rewards_along_expert(table: pandas.DataFrame) -> Figure:
    """The rewards of `rewards_along_expert` against step, each scaled to 0..1, after the first, the middle and the last
    session beside the true one; below, their rank correlation with it after each session. Raises `PrefVLMError` for an
    empty table."""
    if table.empty:
        raise PrefVLMError(
            "The reward has not learned from any session yet: answer the pairs of the first one, then draw again."
        )
    task, correlations = str(table["task"].iloc[0]), rank_correlations(table)
    sessions = list(correlations.index)
    shown = dict.fromkeys([sessions[0], sessions[len(sessions) // 2], sessions[-1]])
    footer = make_footer(
        table["profile"], [task], pandas.Series([1]), "an expert's episode, rewards scaled to their extremes", ""
    )
    names = ["true reward", *(f"after session {session}" for session in shown)]
    after = text_width(names) + 0.16
    titles = ["learned reward along an expert's episode", "its rank correlation with the true reward"]
    rows = [Row([titles[0]], 1.2, 0.4, after, below=0.4), Row([titles[1]], 0.9, 0.4, after)]
    figure, (along, by_session) = make_panels(rows, footer, left=0.02)
    shades = seaborn.light_palette(method_color("pebble"), len(shown) + 1)[1:]  # the first is nearly white
    true = table[table["session"] == sessions[-1]]
    curves = {"true reward": (true["true_reward"], to_rgb(REFERENCE_COLOR), "--")}
    for session, shade in zip(shown, shades, strict=True):
        curves[f"after session {session}"] = (table[table["session"] == session]["reward"], to_rgb(shade), "-")
    ends = []
    for name, (rewards, color, dashes) in curves.items():
        along.axes.plot(true["step"], scaled := _scaled(rewards), color=color, ls=dashes, lw=1.2)
        ends.append(CurveEnd(name, color, true["step"].iloc[-1], scaled.iloc[-1]))
    along.axes.set(xlabel="environment step", ylabel="reward, scaled", xlim=(0, true["step"].iloc[-1]))
    label_curve_ends(along.axes, ends)
    by_session.axes.plot(sessions, correlations, marker="o", ms=3, color=method_color("pebble"))
    by_session.axes.axhline(0, color=REFERENCE_COLOR, lw=0.6)
    by_session.axes.set(xlabel="session", ylabel="Spearman's ρ", ylim=(-1.1, 1.1), xticks=sessions)
    return figure


def rank_correlations_in_words(table: pandas.DataFrame) -> str:
    """What `rewards_along_expert` says, in one sentence."""
    correlations = rank_correlations(table)
    first, last = correlations.index[0], correlations.index[-1]
    task = task_title(str(table["task"].iloc[0]))
    return (
        f"Along an expert's episode of {task} the learned reward ranks the steps like the true one with "
        f"ρ = {correlations[first]:.2f} after session {first} and ρ = {correlations[last]:.2f} after session {last}."
    )


def _scaled(values: pandas.Series) -> pandas.Series:
    """Scaled to 0..1 between the extremes; 0 if all values are equal."""
    span = float(values.max() - values.min())
    return (values - values.min()) / (span or 1.0)


def _expert_episode(task: str, steps: int, action_repeat: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Observations (steps, O) as training sees them, actions (steps, A) and true rewards (steps,) of an expert."""
    environment = Environment(task, steps, goal_visible=True, action_repeat=action_repeat)
    expert = Expert(task, 0.0, np.random.default_rng(_SEED))
    observation = environment.reset(_SEED)
    observations, actions, rewards = [], [], []
    for step in range(steps):
        action = expert(observation, step)
        # The expert needs the goal, training hides it.
        observations.append(domain_of(task).without_goal(observation).astype(np.float32))
        actions.append(action)
        observation, reward, _ = environment.step(action)
        rewards.append(reward)
    return torch.from_numpy(np.stack(observations)), torch.from_numpy(np.stack(actions)), np.array(rewards)
