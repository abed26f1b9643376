"""The shipped notebooks, each executed once on the stored runs of profile laptop (07 on runs of its own): what they
compute equals the stored tables, every figure is shown and saved, nothing is complained about."""

import functools
import json
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from builders.notebooks import NOTEBOOKS, Executed, execute

from prefvlm_core.analysis.robustness_tables import scene_title
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.experiments.fleets import configs_of, plan
from prefvlm_core.experiments.plan import finished_runs

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
INTERACTIVE = ("00_explore",)
"""Notebooks without an experiment: they train nothing, write no figure, and the answers are those of who uses them."""
STORED = NOTEBOOKS.parent / "results" / "laptop"
SMALLER = {
    "07_human_labeling": """
from prefvlm_core.experiments import arms, grids
grids.EXPERIMENTS["07_human_labeling"]["quick"] = grids.Grid({"drawer-close-v3": arms.people(750, 50, 10)}, [0])
""",
}
"""What would take minutes, made small before the notebook opens its experiment."""


@pytest.fixture(scope="session")
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Executed]:
    """By name, a shipped notebook after its execution; two at a time, and only those that a test asks for."""

    def run(name: str) -> Executed:
        parameters: dict[str, object] = {"profile": "laptop", "train": False}
        if name == "07_human_labeling":
            parameters = {"profile": "quick", "results": folders[name] / "results", "annotator": "script"}
        if name in INTERACTIVE:
            parameters = {"profile": "laptop"}
        return execute(name, folders[name], parameters, SMALLER.get(name, ""))

    asked = [name for name in NAMES if any(name in item.name for item in request.session.items)]
    folders = {name: tmp_path_factory.mktemp(name) for name in asked}
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run, name) for name in asked}
    return lambda name: futures[name].result()


def stored(name: str, experiment: str) -> pd.DataFrame:
    """The experiment's rows of `results/laptop/<name>.csv`."""
    table = pd.read_csv(STORED / f"{name}.csv", keep_default_na=False, na_values={"success_low": [""]})
    return table[table["experiment"] == experiment]


def check_success(table: pd.DataFrame, experiment: str) -> None:
    """Every row of a notebook's summary is the stored one, and none is left out."""
    mine, theirs = (rows.set_index(["task", "arm"])["success"] for rows in (table, stored("table", experiment)))
    assert set(mine.index) == set(theirs.index)
    np.testing.assert_allclose(mine, theirs.reindex(mine.index), atol=5.1e-5)  # the file has four decimals


@functools.cache
def scores_of(experiment: str) -> tuple[pd.Series, dict[tuple[str, str], str]]:
    """Success in the last three evaluations by (arm, task, seed), and (arm, task) -> what it is compared with."""
    planned = {run.config.run_id: run for run in plan(experiment, "laptop")}
    scores = {}
    for path in (STORED / "metrics").glob("*/*.csv"):
        rows = pd.read_csv(path, usecols=["seed", "hash", "step", "success"], dtype={"hash": str})
        for (seed, name), of_run in rows.sort_values("step").groupby(["seed", "hash"]):
            run = planned.get(f"laptop/{path.parent.name}/{path.stem}/{seed}-{name}")
            if run is not None:
                scores[run.arm.display_name(run.config), path.parent.name, seed] = of_run["success"].tail(3).mean()
    against = {(run.arm.display_name(run.config), run.config.task): run.arm.against for run in planned.values()}
    return pd.Series(scores).sort_index(), against


def check_gaps(run: Executed, experiment: str, variable: str = "gaps") -> None:
    """Every arm that shares runs with the one that it is compared with has the mean over tasks of their mean
    differences, in the notebook's table and in its words; intervals are those of the stored table."""
    scores, against = scores_of(experiment)
    table = run.table(variable).query("task == @ALL_TASKS").set_index("arm")
    kept = (
        pd.read_csv(STORED / "planned.csv").query("experiment == @experiment and task == @ALL_TASKS").set_index("arm")
    )
    means: dict[str, list[float]] = {}
    for (arm, task), other in against.items():
        if (arm, task) in scores and (other, task) in scores:
            pairs = (scores[arm, task] - scores[other, task]).dropna()
            if len(pairs):
                means.setdefault(arm, []).append(pairs.mean())
    truth = {arm: np.mean(of_tasks) for arm, of_tasks in means.items()}
    compared = {arm: other for (arm, _), other in against.items() if other}
    assert set(table.index) == set(kept.index) == set(truth)
    if not truth:  # nothing is stored yet
        return
    assert table["mean"].to_dict() == pytest.approx(truth)
    np.testing.assert_allclose(table[["low", "high"]], kept.loc[table.index, ["low", "high"]], atol=5.1e-5)
    for arm, mean in table["mean"].items():  # not of `truth`: the last digit decides how half a point is rounded
        (line,) = [line for line in run.said().splitlines() if line.startswith(f"- **{arm}** ") and "*" in line[4:]]
        assert f"{100 * mean:+z.0f}".replace("-", "−") in line and f"*{compared[arm]}*" in line
        decided = table.loc[arm, "low"] > 0 or table.loc[arm, "high"] < 0
        assert (" ends " in line) == decided


def shown(experiment: str, **values: str) -> bool:
    """Whether the stored runs of an experiment have pairs to draw, of arms with these values in these columns."""
    rows = pd.read_csv(STORED / "planned.csv", keep_default_na=False).query("experiment == @experiment")
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return len(rows) > 0


def check_rates(rates: pd.DataFrame, experiment: str) -> None:
    """An arm's errors are those of its tasks together."""
    by_task = stored("labels", experiment)
    assert set(rates["arm"]) == set(by_task["arm"])
    for row in rates.to_dict("records"):
        tasks = by_task[by_task["arm"] == row["arm"]]
        assert row["labels"] == tasks["labels"].sum()
        assert row["error"] == pytest.approx((tasks["labels"] * tasks["error"]).sum() / row["labels"], abs=1e-4)


# ---- every notebook


def stored_of(number: str, tasks: str) -> bool:
    """Whether runs of an experiment on tasks with such a name are stored."""
    (name,) = (name for name in NAMES if name.startswith(number))
    return any(tasks in run.config.task for run in finished_runs(name, "laptop", STORED.parent))


def stored_in_words(name: str) -> str:
    """What the notebook has to say of how many runs are stored."""
    planned, finished = len(configs_of(name, "laptop")), len(finished_runs(name, "laptop", STORED.parent))
    if finished == planned:
        return f"All {planned} runs of {name} in profile laptop are stored."
    return f"{planned - finished} of {planned} runs of {name} in profile laptop are missing and left out."


FIGURES: dict[str, dict[str, int]] = {
    "00_explore": {},
    "01_sanity_check": {"The VLM's reward": 1, "How many of its labels": 1, "What the KL filter makes": 1},
    "02_learning_curves": {
        **{"Success against environment steps": 1, "Success against human labels": 1, "What labels are worth": 2},
        **{"Where every method ends": 1},
    },
    "03_filter_ablation": {
        **{"How often labels are right": 1, "What the filter keeps": 1, "Right and wrong labels": 1},
        **{"What it is worth": 1},
    },
    "04_threshold_sensitivity": {"Where every setting ends": 1, "What every setting does": 1},
    "05_transfer": {
        **({"What transfer gains": 1} if shown("05_transfer") else {}),
        "How often the labels": 1,
    },
    "06_component_ablation": {
        "Where every variant ends": 1,
        **({"Can the method do it": 1} if shown("06_component_ablation", against="human only", group="") else {}),
        **{"Which errors can": 1, "How often the labels": 1},
        **({"What if the reward sees": 1} if shown("06_component_ablation", group="inputs") else {}),
    },
    "07_human_labeling": {"What the reward learned": 1},
    "08_noisy_teacher": {"Success": 1, "The reward that each method learned": 1},
    "09_vlm_backbones": {
        **{"How many labels are right": 1, "Where labels are hard": 1, "Whether values follow": 1},
        **{"What label accuracy is worth": 1},
    },
    "10_visual_robustness": {
        **{"What the VLM sees": 1, "What happens to its labels": 1},
        **({"What happens to policies": 1} if shown("10_visual_robustness") else {}),
    },
    "11_other_domains": {
        **(
            {"Mazes: success": 1, "Mazes: runs of one seed": 1, "Mazes: how often": 1}
            if stored_of("11", "maze")
            else {}
        ),
        "Mazes: whether the VLM's reward": 2,
        **({"Legs: return": 2} if stored_of("11", "walker") else {}),
        "Legs: what the VLM": 1,
    },
    "12_multi_stage": (
        {
            **{"Success by the number": 1, "The claim by the number": 1, "The VLM's labels": 1},
            **{"Which pairs to ask": 1, "How long segments": 1},
        }
        if stored_of("12", "maze")
        else {}
    ),
}
"""Notebook -> beginning of a heading -> figures shown below it."""


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_shown_below_its_heading_and_saved(
    executed: Callable[[str], Executed], name: str, tmp_path: Path
) -> None:
    run = executed(name)
    shown = {heading: count for heading, count in run.pictures().items() if count}
    expected = FIGURES[name]
    assert len(shown) == len(expected)
    for (heading, count), (beginning, wanted) in zip(shown.items(), expected.items(), strict=True):
        assert heading.startswith(beginning) and count == wanted
    profile = "quick" if name == "07_human_labeling" else "laptop"
    if not expected:
        assert not (run.folder / profile).exists()
        return
    drawn = {path.name for path in (run.folder / profile).iterdir()}
    assert len(drawn) == 2 * sum(expected.values())
    assert all(file.startswith(name) for file in drawn)
    if profile == "laptop":
        assert drawn == {path.name for path in (NOTEBOOKS.parent / "figures" / profile).glob(f"{name}*")}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_complained_about(executed: Callable[[str], Executed], name: str) -> None:
    for output in executed(name).outputs():
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


@pytest.mark.parametrize("name", [name for name in NAMES if name not in INTERACTIVE])
def test_the_last_cell_answers_in_words(executed: Callable[[str], Executed], name: str) -> None:
    *_, last, _ = executed(name).cells  # the very last one stores the variables for these tests
    assert any("text/markdown" in output.get("data", {}) for output in last.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_every_heading_is_followed_by_a_sentence(name: str) -> None:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    for cell in cells:
        if cell.cell_type == "markdown":
            heading, *text = cell.source.splitlines()
            assert heading.startswith("#") and len(" ".join(text).split()) >= 5, heading


def test_every_notebook_has_a_test_of_its_numbers() -> None:
    assert {f"test_numbers_of_{name}" for name in NAMES} <= set(globals()) and set(FIGURES) == set(NAMES)


# ---- each notebook


def test_numbers_of_00_explore(executed: Callable[[str], Executed]) -> None:
    """What the explorers say when they are opened, as the notebook keeps it."""
    notebook = nbformat.read(executed("00_explore").folder / "executed.ipynb", as_version=4)
    widgets = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    shown = [widget["state"] for widget in widgets]
    said = " ".join(re.sub("<[^>]*>", " ", state["value"]) for state in shown if state["_model_name"] == "HTMLModel")
    said = " ".join(said.split())
    rows = pd.read_parquet(STORED / "labels" / "button-press-v3" / "prefvlm-1000.parquet")
    first = ("button-press-v3", "prefvlm", 1000)  # whose labels are shown before anything is chosen
    configs = configs_of("01_sanity_check", "laptop")
    (mine,) = [config for config in configs if (config.task, config.method, config.seed) == first]
    rows = rows[rows["hash"] == mine.run_id.rpartition("-")[2]]
    of_vlm = rows[rows["teacher"] == "vlm"]
    assert f" all {len(of_vlm)} " in said and f"label 1 of {len(rows)} " in said
    human = (rows["teacher"] == "human").sum()
    assert f"pairs (the run: {human})" in said
    assert "mean over tasks of the mean over seeds" in said and "“push and open a window”" in said
    pictures = [state for state in shown if state["_model_name"] == "ImageModel"]
    assert len(pictures) == 6  # four figures, a frame, and room for clips


def test_numbers_of_01_sanity_check(executed: Callable[[str], Executed]) -> None:
    run = executed("01_sanity_check")
    check_rates(run.table("rates"), "01_sanity_check")
    accuracies = run.table("accuracies").set_index(["model", "task"])
    draws = pd.read_csv(STORED / "sanity" / "accuracies.csv").groupby(["model", "task"])
    for column in ("zero_shot", "adapted"):
        by_task = draws[column].mean()
        np.testing.assert_allclose(accuracies[column].drop(ALL_TASKS, level="task").sort_index(), by_task)
        np.testing.assert_allclose(
            accuracies[column].xs(ALL_TASKS, level="task").sort_index(), by_task.groupby("model").mean()
        )
    assert len(by_task) == 2 * 8 and set(draws.size()) == {6}
    orders = draws[["value_order", "episode_order"]].mean().loc[("tinyliv2", "door-close-v3")]
    (shown,) = [o.data["text/html"] for o in run.outputs() if "VOC" in o.get("data", {}).get("text/html", "")]
    assert all(f"<td>{order:.2f} (" in shown for order in orders)
    expected = f"{100 * accuracies.loc[('tinyliv2', ALL_TASKS), 'zero_shot']:.0f}"
    assert f"- **tinyliv2**, all tasks: {expected} (" in run.said()
    assert stored_in_words("01_sanity_check") in run.printed()


def test_numbers_of_02_learning_curves(executed: Callable[[str], Executed]) -> None:
    run = executed("02_learning_curves")
    check_success(run.table("table"), "02_learning_curves")
    rows = stored("table", "02_learning_curves").set_index(["task", "arm"])["success"]
    needed = run.table("needed").set_index(["task", "family"])
    budgets = {"button-press-v3": 16, "door-close-v3": 16, "window-close-v3": 64, "window-open-v3": 64}
    for task, budget in budgets.items():
        target = rows[task, "prefvlm (1×B)"]
        enough = [share * budget for share in (1, 2, 4) if rows[task, f"pebble ({share}×B)"] >= target]
        told = needed.loc[(task, "pebble")]
        assert told["budget"] == pytest.approx(min(enough, default=math.nan), nan_ok=True)
        assert told["target"] == pytest.approx(target, abs=1e-4)
        (percent,) = re.findall(rf"- \*\*{task}\*\*: (\d+) % success takes", run.said())
        assert abs(int(percent) - 100 * target) <= 0.51  # as the stored number, of four decimals, is rounded, too
    worth = pd.read_csv(STORED / "worth.csv").query("measure == 'last_three'").set_index("arm")["mean"]
    between, *_ = worth[(worth > 1) & (worth < 4)].items()  # the ladder's ends are said in words
    assert f"*{between[0]}* does what PEBBLE does with {between[1]:.1f} B" in run.said()
    assert stored_in_words("02_learning_curves") in run.printed()


def test_numbers_of_03_filter_ablation(executed: Callable[[str], Executed]) -> None:
    run = executed("03_filter_ablation")
    check_gaps(run, "03_filter_ablation")
    check_rates(run.table("rates"), "03_filter_ablation")
    ratio = run.table("rates").set_index("arm").loc["prefvlm", "clean_ratio"]
    assert f"Clean labels are wrong {ratio:.2f} times" in run.said()


def test_numbers_of_04_threshold_sensitivity(executed: Callable[[str], Executed]) -> None:
    run = executed("04_threshold_sensitivity")
    check_gaps(run, "04_threshold_sensitivity")
    pooled = run.table("gaps").query("task == @ALL_TASKS")
    above = (pooled["low"] > 0).sum()
    assert f"- Of {len(pooled)} compared with *adaptive*: {above} above, " in run.said()
    for row in pooled.to_dict("records"):
        assert row["arm"] == f"alpha {row['alpha']:g}, beta {row['beta']:g}, upper {row['upper']:.1f}"


def test_numbers_of_05_transfer(executed: Callable[[str], Executed]) -> None:
    run = executed("05_transfer")
    check_gaps(run, "05_transfer")
    largest = run.table("largest")
    budgets = {"door-close-v3": 16, "window-close-v3": 64, "window-open-v3": 64}
    assert set(zip(largest["task"], largest["budget"], strict=True)) <= set(budgets.items())
    by_task = run.table("gaps").query("task != @ALL_TASKS")
    for share, divisor in (("B", 1), ("B/2", 2), ("B/4", 4)):
        rows = by_task[by_task["arm"] == f"with transfer ({share} labels)"]
        assert all(row.budget == budgets[row.task] / divisor for row in rows.itertuples())


def test_numbers_of_06_component_ablation(executed: Callable[[str], Executed]) -> None:
    run = executed("06_component_ablation")
    check_gaps(run, "06_component_ablation")
    variants, inputs = run.table("variants"), run.table("inputs")
    assert variants["simulated_accuracy"].isna().all() and set(inputs["group"]) <= {"inputs"}
    simulated = run.table("simulated").query("group != 'errors'")
    assert set(simulated["simulated_accuracy"]) <= {0.7, 0.8, 0.9}
    for row in simulated.to_dict("records"):
        assert row["arm"] == f"{row['family']}, VLM {100 * row['simulated_accuracy']:.0f} % right"
    rates = run.table("rates").set_index("arm")
    by_task = stored("labels", "06_component_ablation")
    for arm in rates.index:
        assert rates["labels"][arm] == by_task.loc[by_task["arm"] == arm, "labels"].sum()
    independent = [arm for arm in rates.index if arm.startswith("prefvlm, VLM ")]
    assert all(rates["correlation"]["prefvlm"] > 0.2 > abs(rates["correlation"][arm]) for arm in independent)


def test_numbers_of_07_human_labeling(executed: Callable[[str], Executed]) -> None:
    run = executed("07_human_labeling")
    last = run.table("compared").groupby("arm").last()
    assert sorted(last.index) == ["answers of script", "oracle"]
    assert set(last["human_labels"]) == {30} and set(last["step"]) == {5 * 750}
    rewards = run.table("rewards")
    assert sorted(rewards["session"].unique()) == [1, 2, 3, 4, 5] and len(rewards) == 5 * 20
    assert "30 answers by the script" in run.printed()
    final = rewards[rewards["session"] == 5]
    rank = final["reward"].rank().corr(final["true_reward"].rank())
    assert f"ρ = {rank:.2f} after session 5" in run.said()
    (agreement,) = [o.data["text/html"] for o in run.outputs() if "kappa" in o.get("data", {}).get("text/html", "")]
    assert "true reward" in agreement and "100.0" in agreement


def test_numbers_of_08_noisy_teacher(executed: Callable[[str], Executed]) -> None:
    run = executed("08_noisy_teacher")
    check_gaps(run, "08_noisy_teacher")
    assert set(run.table("data")["human"]) == {"mistake"}


def test_numbers_of_09_vlm_backbones(executed: Callable[[str], Executed]) -> None:
    run = executed("09_vlm_backbones")
    scores, _ = scores_of("09_vlm_backbones")
    gains = run.table("by_accuracy").set_index("arm")
    for arm, gain in gains["mean"].items():
        assert gain == pytest.approx((scores[arm] - scores["human only"]).mean())
    by_task = stored("labels", "09_vlm_backbones").set_index(["arm", "task"])["error"].unstack()
    for arm, row in gains[gains["simulated_accuracy"].isna()].iterrows():
        assert row["accuracy"] == pytest.approx(1 - by_task.loc[arm].mean(), abs=1e-4)
    labels = pd.read_csv(STORED / "backbones" / "labels.csv")
    of_replays = labels[labels["kind"] == "replay"]
    by_reader = of_replays.groupby(["model", "reader", "labels", "task"])[["all", "late", "near_goal"]].mean()
    mine = run.table("replays").set_index(["model", "reader", "labels", "task"])
    np.testing.assert_allclose(mine.drop(ALL_TASKS, level="task").sort_index()[by_reader.columns], by_reader)
    pooled = by_reader.groupby(["model", "reader", "labels"]).mean()
    np.testing.assert_allclose(mine.xs(ALL_TASKS, level="task").sort_index()[by_reader.columns], pooled)
    assert set(of_replays.groupby(["model", "reader", "labels"]).size()) == {4 * 2}  # tasks x learners
    frozen = pooled.xs("zero-shot", level="reader")["all"].droplevel("labels").drop("random")
    assert f"the best model at hand, `{frozen.idxmax()}`, labels {100 * frozen.max():.0f} (" in run.said()
    taught = pooled.xs(("adapters", 50), level=("reader", "labels"))["all"]
    assert f"an untrained network in {100 * taught.pop('random'):.0f} (" in run.said()
    curve = gains[(gains["method"] == "prefvlm") & gains["simulated_accuracy"].notna()].sort_values("accuracy")
    if len(curve):
        gain = 100 * np.interp(taught.max(), curve["accuracy"], curve["mean"])
        assert f"errs on its own, ends {gain:+z.0f} (".replace("-", "−") in run.said()


def test_numbers_of_10_visual_robustness(executed: Callable[[str], Executed]) -> None:
    run = executed("10_visual_robustness")
    scenes = pd.read_csv(STORED / "robustness" / "scenes.csv", keep_default_na=False, na_values={"value_order": [""]})
    by_task = scenes.groupby(["factor", "strength", "reader", "task"])[["accuracy", "value_order"]].mean()
    means = by_task.groupby(["factor", "strength", "reader"]).mean().sort_index()
    mine = run.table("changes").set_index(["factor", "strength", "reader"]).sort_index()
    np.testing.assert_allclose(mine[["accuracy", "value_order"]], means)
    np.testing.assert_allclose(mine["accuracy_change"], means["accuracy"] - means["accuracy"]["clean", "", "zero-shot"])
    strong = means["accuracy"].xs(("strong", "zero-shot"), level=("strength", "reader")).drop("everything")
    said, costliest = run.said().splitlines(), scene_title(strong.idxmin(), "strong")
    assert said[0].startswith("- **clean**: ") and said[1].startswith(f"- **{costliest}**: ")
    assert f"zero-shot {100 * strong.min():.0f}, −" in said[1]
    if finished_runs("10_visual_robustness", "laptop", STORED.parent):
        check_gaps(run, "10_visual_robustness")
    else:
        assert said[-1] == "- **policies**: no run is stored yet."


def test_numbers_of_11_other_domains(executed: Callable[[str], Executed]) -> None:
    run = executed("11_other_domains")
    draws = pd.read_csv(STORED / "sanity_mazes" / "accuracies.csv").groupby(["model", "task"])["zero_shot"].mean()
    told = run.table("accuracies").set_index(["model", "task"])["zero_shot"].drop(ALL_TASKS, level="task")
    np.testing.assert_allclose(told.sort_index(), draws.sort_index())
    assert f"- **tinyliv2-maze**, all tasks: {100 * draws['tinyliv2-maze'].mean():.0f} (" in run.said()
    measured = pd.read_csv(STORED / "motion" / "labels.csv").query("pairs == 'all' and shows == 'frame'")
    right = 100 * measured.groupby("task")["zero_shot"].mean()
    for task, said in right.items():
        assert f"- **{task}**, all pairs: of frames {said:.0f} (" in run.said()
    if not stored_of("11", "maze"):
        assert run.said().startswith("- **mazes**: no run is stored yet.")
        return
    check_gap(run.table("gaps"), "prefvlm (1×B)", "pebble (2×B)", run.said())


def test_numbers_of_12_multi_stage(executed: Callable[[str], Executed]) -> None:
    run = executed("12_multi_stage")
    if not stored_of("12", "maze"):
        assert run.said() == "- **stages**: no run is stored yet."
        return
    data = run.table("mazes")
    pairs = data[data["arm"].isin(["prefvlm (1×B)", "pebble (2×B)"])].sort_values("step")
    last = pairs.groupby(["task", "seed", "arm"])["success"].apply(lambda success: success.iloc[-3:].mean()).unstack()
    gaps = (last["prefvlm (1×B)"] - last["pebble (2×B)"]).dropna().groupby("task").mean()
    told = run.table("gaps").set_index(["arm", "task"]).loc["prefvlm (1×B)", "mean"]
    np.testing.assert_allclose(told.sort_index(), gaps.sort_index())


def check_gap(gaps: pd.DataFrame, arm: str, against: str, said: str) -> None:
    """A difference of all tasks together is the mean of the tasks', and is said as a number of points."""
    of_arm = gaps[(gaps["arm"] == arm) & (gaps["against"] == against)].set_index("task")["mean"]
    pooled = of_arm.pop(ALL_TASKS)
    assert pooled == pytest.approx(of_arm.mean())
    assert f"**{arm}**" in said and f"{100 * pooled:+z.0f} (".replace("-", "−") in said


SMALL_GRID = """
from prefvlm_core.experiments import arms, grids
small = {{"total_steps": 600, "evaluation.every": 200, "evaluation.episodes": 1, "evaluation.final_episodes": 1}}
small |= {{"sac.width": 16, "sac.batch_size": 16, "reward.width": 16, "vlm.queries": 8}}
small["feedback.session_every"] = 50  # so that the VLM is asked after the first session, too
profiles = grids.EXPERIMENTS["{name}"]
smaller = {{
    task: [arms.replace(arm, changes={{**arm.changes, **small}}) for arm in of_task]
    for task, of_task in profiles["quick"].arms.items()
}}
profiles["quick"] = arms.Grid(smaller, range(2))
"""


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        (
            "11_other_domains",
            {"Mazes: success": 1, "Mazes: runs": 1, "Mazes: how": 1, "Mazes: whether": 2, "Legs: what": 1},
        ),
        (
            "12_multi_stage",
            {"Success by": 1, "The claim": 1, "The VLM's labels": 1, "Which pairs": 1, "How long segments": 1},
        ),
    ],
)
def test_notebooks_of_mazes_with_runs_of_two_seeds(name: str, figures: dict[str, int], tmp_path: Path) -> None:
    for module, extra in (("gymnasium_robotics", "navigation"), ("dm_control", "dmc")):
        pytest.importorskip(module, reason=f"needs the extra {extra}")
    parameters = {"profile": "quick", "results": tmp_path / "results"}
    run = execute(name, tmp_path, parameters, SMALL_GRID.format(name=name))
    shown = {heading: count for heading, count in run.pictures().items() if count}
    for (heading, count), (beginning, wanted) in zip(shown.items(), figures.items(), strict=True):
        assert heading.startswith(beginning) and count == wanted
    assert "undecided" in run.said() or "points with" in run.said()
    assert not [output for output in run.outputs() if output.get("name") == "stderr"]


# ---- parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_are_the_same_everywhere(name: str) -> None:
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    (parameters,) = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    values: dict[str, object] = {}
    exec(parameters, values)
    common = {"profile": "quick", "train": None, "results": "", "figures": ""}
    if name in INTERACTIVE:
        common = {"profile": "laptop", "results": ""}
    assert common.items() <= values.items() and ("train" in values) is (name not in INTERACTIVE)


def test_a_parameter_that_is_no_bool_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="PrefVLMError: train is 'no'; allowed are True, False and None"):
        execute("08_noisy_teacher", tmp_path, {"profile": "laptop", "train": "no"})
    cells = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells
    (failed,) = [
        out for cell in cells if cell.cell_type == "code" for out in cell.outputs if out.output_type == "error"
    ]
    assert len(failed.traceback) == 1
