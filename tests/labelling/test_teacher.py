"""People as teachers: real small trainings that wait at the queue, are killed, repeated and timed out."""

import io
import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from builders.runs import quiet, tiny, without_seconds
from PIL import Image
from sqlalchemy import select

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.perturbations import CLEAN, Perturbation
from prefvlm_core.experiments.background import annotate_by_script, train_in_background, true_choice
from prefvlm_core.labelling.agreement import answers_table, status_table
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.clips import CLIP_SIZE, MOST_FRAMES, ClipMaker, decode
from prefvlm_core.labelling.database import PAIRS
from prefvlm_core.labelling.files import add_labels, export_labels, read_labels
from prefvlm_core.labelling.queue import ClosedPair, LabelQueue
from prefvlm_core.labelling.teacher import open_queue
from prefvlm_core.plots.people import (
    draw_rewards_along_expert,
    rank_correlations,
    rank_correlations_in_words,
    rewards_along_expert,
)
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.stored import load_labels
from prefvlm_core.train import train

PEOPLE = {"feedback.teacher": "human"}


def numbers(directory: RunDirectory) -> tuple[list[Any], dict[str, list[float]]]:
    """Metrics and weights: what must not depend on who carried the answers."""
    weights = safetensors.torch.load_file(directory.path / "weights.safetensors")
    return without_seconds(directory), {name: tensor.flatten().tolist() for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train([tiny("pebble")], quiet(tmp_path_factory.mktemp("oracle")))[0]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, LabelQueue]:
    """A run in a background process, killed twice on its way, and answered by a script through the queue."""
    results = tmp_path_factory.mktemp("labelled")
    config, execution = tiny("pebble", **PEOPLE), quiet(results, checkpoint_seconds=0)
    queue = open_queue(execution)
    process = None
    try:
        for kill_when_posted in (1, 2):  # while it waits for its first, then for its second session
            process = train_in_background(config, execution)
            waiting = {1: 8, 2: 5}[kill_when_posted]
            deadline = time.monotonic() + 120
            while len(queue.posted(config.run_id, kill_when_posted)) < waiting:
                assert process.poll() is None and time.monotonic() < deadline, (results / "logs").iterdir()
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            annotator = Annotator(queue, "Ann")  # people go on while the trainer is dead
            while (question := annotator.claim()) is not None:
                choice = true_choice(question.truth, question.swapped)
                annotator.answer(question, choice, 1.0)
        process = train_in_background(config, execution)
        assert annotate_by_script(queue, "script", process) == 7
        assert process.returncode == 0
        return RunDirectory(results, config), queue
    finally:
        if process is not None and process.poll() is None:  # a failure must leave no training behind
            os.killpg(process.pid, signal.SIGKILL)


def test_a_killed_run_with_true_answers_is_the_oracle_run(
    oracle: RunDirectory, labelled: tuple[RunDirectory, LabelQueue]
) -> None:
    directory, queue = labelled
    assert numbers(directory) == numbers(oracle)
    assert (directory.path / "labels.csv").read_bytes() == (oracle.path / "labels.csv").read_bytes()
    assert sum(len(queue.posted(directory.config.run_id, session)) for session in range(1, 6)) == 20  # none asked twice


def test_a_run_is_repeated_from_a_label_file(labelled: tuple[RunDirectory, LabelQueue], tmp_path: Path) -> None:
    directory, queue = labelled
    export_labels(queue.database, tmp_path / "labels.jsonl")
    execution = quiet(tmp_path, label_timeout=0.0)
    add_labels(open_queue(execution).database, read_labels(tmp_path / "labels.jsonl"))
    assert numbers(train([directory.config], execution)[0]) == numbers(directory)


def test_labels_of_another_course_are_refused(labelled: tuple[RunDirectory, LabelQueue], tmp_path: Path) -> None:
    directory, queue = labelled
    file = tmp_path / "labels.jsonl"
    export_labels(queue.database, file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[3]["second"] += 1
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    execution = quiet(tmp_path)
    add_labels(open_queue(execution).database, read_labels(file))
    with pytest.raises(PrefVLMError, match=r"holds other segments for pair 3 of session 1 of quick/button-press-v3"):
        train([directory.config], execution)


def yellow_pixels(queue: LabelQueue) -> np.ndarray:
    """How many pixels of each clip have the color of the path of the gripper."""
    with queue.transaction(reading=True) as connection:
        rows = connection.execute(select(PAIRS.c.clip, PAIRS.c.frames)).all()
    red, green, blue = np.moveaxis(np.stack([decode(row.clip, row.frames) for row in rows]).astype(int), -1, 0)
    return ((red > 200) & (green > 160) & (blue < 80)).sum(axis=(1, 2, 3, 4))


def test_a_session_that_nobody_answers_ends_at_its_timeout_and_costs_nothing(tmp_path: Path) -> None:
    config = tiny("pebble", **PEOPLE)
    directory = train([config], quiet(tmp_path, label_timeout=0.0, clip_trace=True))[0]
    queue = open_queue(quiet(tmp_path))
    assert (yellow_pixels(queue) > 0).all() and directory.manifest["clip_trace"] is True
    assert [row["human_labels"] for row in directory.read_metrics()] == [0] * 4
    assert queue.unanswered(config.run_id, 1) == 0 and Annotator(queue, "Ann").claim() is None


def answer_when_asked(monkeypatch: pytest.MonkeyPatch, until: dict[int, int] | None = None, die_after: int = 0) -> None:
    """Let Ann answer whenever training looks for answers: all pairs, or as many that she has `until[session]` answers,
    the first one "can't tell". The process is killed right after it has taken session `die_after`."""
    unanswered, take = LabelQueue.unanswered, LabelQueue.take

    def answer(queue: LabelQueue, session: int) -> None:
        ann, given = Annotator(queue, "Ann"), len(answers_table(queue.database))
        while (until is None or given < until[session]) and (question := ann.claim()):
            choice = true_choice(question.truth, question.swapped)
            ann.answer(question, "skip" if until and given == 0 else choice, 1)
            given += 1

    def answered_first(queue: LabelQueue, run_id: str, session: int) -> int:
        answer(queue, session)
        return unanswered(queue, run_id, session)

    def answer_and_take(queue: LabelQueue, run_id: str, session: int, unanswered: Any) -> list[ClosedPair] | None:
        answer(queue, session)
        taken = take(queue, run_id, session, unanswered)
        if session == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return taken

    monkeypatch.setattr(LabelQueue, "unanswered", answered_first)
    monkeypatch.setattr(LabelQueue, "take", answer_and_take)


LATE = {1: 8, 2: 8, 3: 11, 4: 13}
"""Answers until each session: nobody answers between the first two."""


def train_with_late_answers(results: Path, die_after: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        answer_when_asked(patch, LATE, die_after)
        train([tiny("pebble", **PEOPLE, **{"feedback.budget": 15})], late(results))


def late(results: Path) -> Execution:
    return quiet(results, late_answers=True, checkpoint_seconds=0)


def test_late_answers_are_used_once_within_the_budget_and_again_after_a_kill(tmp_path: Path) -> None:
    config = tiny("pebble", **PEOPLE, **{"feedback.budget": 15})
    train_with_late_answers(tmp_path / "whole", 0)
    directory, queue = RunDirectory(tmp_path / "whole", config), open_queue(late(tmp_path / "whole"))
    assert [row["human_labels"] for row in directory.read_metrics()] == [0, 8, 11, 13]
    # 8 at first, then 5, then the 2 that 8 answered and 5 open ones leave of the budget; none in the last session
    assert [len(queue.posted(config.run_id, session)) for session in range(1, 6)] == [8, 5, 2, 0, 0]
    assert load_labels([directory])["session"].value_counts().to_dict() == {1: 7, 3: 3, 4: 2}
    counts = status_table(queue.database)[["session", "answered", "skipped", "open", "withdrawn"]]
    assert counts.to_numpy().tolist() == [[1, 7, 1, 0, 0], [2, 5, 0, 0, 0], [3, 0, 0, 0, 2]]

    results = tmp_path / "killed"
    for die_after in (2, 3):  # with nothing taken, and with three answers taken
        process = multiprocessing.get_context("spawn").Process(
            target=train_with_late_answers, args=(results, die_after)
        )
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
        ann = Annotator(open_queue(late(results)), "Ann")
        while len(answers_table(ann.queue.database)) < LATE[die_after + 1]:  # before training goes on and asks again
            question = ann.claim()
            assert question is not None
            ann.answer(question, true_choice(question.truth, question.swapped), 1)
    train_with_late_answers(results, 0)
    assert numbers(RunDirectory(results, config)) == numbers(directory)

    export_labels(queue.database, tmp_path / "labels.jsonl")
    add_labels(open_queue(late(tmp_path / "again")).database, read_labels(tmp_path / "labels.jsonl"))
    assert numbers(train([config], late(tmp_path / "again"))[0]) == numbers(directory)


def test_true_answers_calibrate_the_filter_as_the_oracle_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a VLM, what the filter learns from goes through the queue too."""
    changes = {"vlm.queries": 12, "adapter.first_updates": 5, "adapter.later_updates": 2, "filter.adaptive_minimum": 3}
    answer_when_asked(monkeypatch)
    configs = [tiny("prefvlm-adaptive", **changes, **teacher) for teacher in ({}, PEOPLE)]
    oracle, people = (numbers(train([config], quiet(tmp_path))[0]) for config in configs)
    assert people == oracle and 0 < float(oracle[0][-1]["tau_lower"]) < math.inf


def test_the_reward_along_an_expert_is_that_of_each_session(labelled: tuple[RunDirectory, LabelQueue]) -> None:
    directory, _ = labelled
    table = rewards_along_expert(directory)
    assert sorted(table["session"].unique()) == [1, 2, 3, 4] and len(table) == 4 * 20  # 100 steps, 5 per action
    assert table.groupby("session")["step"].agg(["min", "max"]).drop_duplicates().to_numpy().tolist() == [[5, 100]]
    final = safetensors.torch.load_file(directory.path / "weights.safetensors")["reward"]
    assert torch.equal(final, directory.read_session_rewards()[4])
    assert not torch.equal(final, directory.read_session_rewards()[1])
    assert table.groupby("session")["true_reward"].sum().nunique() == 1 and table["true_reward"].max() > 0
    flipped = table.assign(reward=-table["true_reward"])
    assert rank_correlations(flipped).tolist() == pytest.approx([-1] * 4)
    assert "after session 1 and" in rank_correlations_in_words(table)
    assert len(draw_rewards_along_expert(table).axes) == 2
    with pytest.raises(PrefVLMError, match="has not learned from any session"):
        draw_rewards_along_expert(table[:0])


@pytest.mark.parametrize("task", ["drawer-close-v3", "sweep-into-v3"])
def test_clips_are_small_and_show_the_right_side(task: str) -> None:
    environment, generator = Environment(task, 60), np.random.default_rng(0)
    snapshots, scenes = [], []
    for seed in (2, 4):
        environment.reset(seed)
        steps = []
        for _ in range(50):
            environment.step(generator.uniform(-1, 1, 4).astype(np.float32))
            steps.append(environment.snapshot())
        snapshots.append(steps)
        scenes.append(environment.scene())
    maker = ClipMaker()
    frames, clip = maker.make(task, np.array(snapshots), np.array(scenes))
    assert frames == MOST_FRAMES and len(clip) <= 700_000

    sheet = np.asarray(Image.open(io.BytesIO(clip)).convert("RGB"), np.float64)
    assert sheet.shape == (MOST_FRAMES * CLIP_SIZE, 2 * CLIP_SIZE, 3)
    last = maker._renderers[task, CLEAN].render(np.array(snapshots)[1, -1:], np.array(scenes)[1:])[0]
    shown = sheet[-CLIP_SIZE:]
    assert np.abs(shown[:, CLIP_SIZE:] - last).mean() < 4 < np.abs(shown[:, :CLIP_SIZE] - last).mean()

    _, hidden = maker.make(task, np.array(snapshots), np.array(scenes), Perturbation(occluder=1))
    assert np.abs(np.asarray(Image.open(io.BytesIO(hidden)).convert("RGB"), np.float64) - 128).max() <= 2


def test_the_path_of_the_gripper_is_drawn_where_it_is_asked_for_and_changes_nothing_else() -> None:
    environment = Environment("drawer-close-v3")
    environment.reset(0)
    steps = [environment.snapshot()]
    for _ in range(30):
        environment.step(np.array([1, 0, 0, 0], np.float32))
        steps.append(environment.snapshot())
    snapshots, scenes = np.array([steps, steps[::-1]]), np.array([environment.scene()] * 2)
    plain = ClipMaker(240).frames(environment.task, snapshots, scenes).astype(int)
    maker = ClipMaker(240, trace=True)
    drawn = maker.frames(environment.task, snapshots, scenes).astype(int)
    (renderer,) = maker._renderers.values()
    path = renderer.path(np.array(steps), np.repeat(scenes[:1], len(steps), axis=0))
    columns, rows = path[[0, -1]].astype(int).T
    yellow, white = (255, 212, 0), (255, 255, 255)
    assert (drawn[:, 0, rows, columns] == [white, yellow]).all() and (
        drawn[:, 1, rows, columns] == [yellow, white]
    ).all()
    changed = np.argwhere((drawn != plain).any(axis=(0, 1, 4))) + 0.5
    distances = np.linalg.norm(changed[:, None] - path[:, ::-1], axis=2)
    assert distances.min(axis=1).max() < 8 and distances.min(axis=0).max() < 2
    assert np.linalg.norm(path[-1] - path[0]) > 20


def test_the_timeout_has_a_range() -> None:
    assert Execution().label_timeout == math.inf
    with pytest.raises(PrefVLMError, match="label_timeout must be at least 0 seconds, got -1"):
        Execution(label_timeout=-1)
