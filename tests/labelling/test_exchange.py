"""Preference data that leaves and joins: what is exported is what the queue and the run hold, and comes back equal."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import torch
from builders.runs import quiet, small
from PIL import Image
from sqlalchemy import select, update

from prefvlm_core import cli
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.clips import encode
from prefvlm_core.labelling.database import ANSWERS, PAIRS
from prefvlm_core.labelling.exchange.data import PreferenceData, table_of
from prefvlm_core.labelling.exchange.folder import read_folder, write_folder
from prefvlm_core.labelling.exchange.lerobot import write_lerobot
from prefvlm_core.labelling.exchange.posting import add_data
from prefvlm_core.labelling.exchange.sources import data_of_queue, data_of_run
from prefvlm_core.labelling.exchange.training_set import training_set
from prefvlm_core.labelling.files import export_labels, read_labels
from prefvlm_core.labelling.films import strip
from prefvlm_core.labelling.queue import LabelQueue, Pair
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.reward.learning import learn_together, one_pass
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.train import train

RUN = "quick/door-open-v3/prefvlm/3-0123abcd"
SIZE = 32


def gray(level: int, count: int = 5) -> np.ndarray[Any, Any]:
    """A film that brightens by 4 from frame to frame."""
    return np.stack([np.full((SIZE, SIZE, 3), level + 4 * number, np.uint8) for number in range(count)])


def posted(queue: LabelQueue, count: int, run_id: str = RUN) -> None:
    """Pairs 0, 1, … of session 2: the first film is of gray 20, 30, …, the second of 120, 130, …"""
    for number in range(count):
        clip = encode(np.stack([gray(20 + 10 * number), gray(120 + 10 * number)], axis=1))
        vlm = {"vlm_label": 1.0, "divergence": 0.25 + number, "partition": "uncertain"} if number % 2 else {}
        where = {"first": 50 * number, "second": 50 * number + 1000, "length": 10, "frames": 5}
        about = {"task": "door-open-v3", "text": "open a door", "truth": float(number % 2), "budget": 9}
        queue.post(Pair(run_id=run_id, session=2, pair=number, clip=clip, **where, **about, **vlm))


@pytest.fixture
def queue(tmp_path: Path) -> LabelQueue:
    """Five pairs, four of them answered: by Ann, by the script, and by nobody but the VLM; 4 has no label at all."""
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    posted(queue, 5)
    ann = Annotator(queue, "Ann")
    for choice in ("left", "skip"):
        question = ann.claim()
        assert question is not None
        ann.answer(question, choice, 1.5, saw_guess=choice == "skip")
    script = Annotator(queue, "script")
    question = script.claim()
    assert question is not None
    script.answer(question, "equal", 0.25)
    second = Annotator(queue, "Bo", agreement=True)
    question = second.claim()
    assert question is not None
    second.answer(question, "right", 2.0)
    return queue


def test_what_the_queue_holds_is_exported(queue: LabelQueue) -> None:
    data = data_of_queue(queue.database)
    pairs, labels = data.pairs.to_pylist(), data.labels.to_pylist()
    assert [pair["number"] for pair in pairs] == [0, 1, 2, 3]  # without pair 4
    expected = {"run_id": RUN, "seed": 3, "session": 2, "task": "door-open-v3", "text": "open a door", "truth": 1.0}
    assert expected.items() <= pairs[1].items()
    told = [(label["pair"][-1], label["teacher"], label["annotator"], label["purpose"]) for label in labels]
    assert told == [
        ("0", "human", "Ann", "label"),
        ("0", "human", "Bo", "agreement"),
        ("1", "vlm", None, None),
        ("1", "human", "Ann", "label"),
        ("2", "script", "script", "label"),
        ("3", "vlm", None, None),
    ]
    with queue.transaction(reading=True) as connection:
        swapped = {
            row.annotator: bool(row.swapped)
            for row in connection.execute(select(ANSWERS).where(ANSWERS.c.pair_id == 1))
        }
    assert labels[0]["label"] == float(swapped["Ann"]) and labels[1]["label"] == float(not swapped["Bo"])
    assert [label["label"] for label in labels[2:]] == [1.0, None, 0.5, 1.0]
    assert [label["divergence"] for label in labels] == [None, None, 1.25, None, None, 3.25]
    assert [label["saw_guess"] for label in labels[:4]] == [False, False, None, True]
    assert [label["seconds"] for label in labels] == [1.5, 2.0, None, 1.5, 0.25, None]
    clip = data.clips.to_pylist()[3]
    assert (clip["clip"], clip["first"], clip["length"]) == (pairs[1]["second_clip"], 1050, 10)
    np.testing.assert_allclose(data.frames(clip["clip"]), gray(130), atol=3)  # twice through WebP
    assert data.frames(clip["clip"]).shape == (5, SIZE, SIZE, 3)


def test_a_folder_is_read_as_it_was_written(queue: LabelQueue, tmp_path: Path) -> None:
    data = data_of_queue(queue.database, size=24)
    write_folder(data, tmp_path / "out")
    read = read_folder(tmp_path / "out")
    assert (read.clips, read.pairs, read.labels, read.strips) == (data.clips, data.pairs, data.labels, data.strips)
    write_folder(read, tmp_path / "again")
    files = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*"))
    assert len(files) == 3 + 8
    assert all((tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)
    frames = np.asarray(Image.open(tmp_path / "out" / "clips" / "000003.webp")).reshape(5, 24, 24, 3)
    np.testing.assert_allclose(frames, gray(130)[:, :24, :24], atol=3)  # as the docs say, without this package
    with pytest.raises(PrefVLMError, match="exists already, and an export overwrites nothing"):
        write_folder(read, tmp_path / "out")
    assert not list(tmp_path.glob(".*tmp"))


def test_labels_come_back_equal_from_another_queue(queue: LabelQueue, tmp_path: Path) -> None:
    data = data_of_queue(queue.database)
    other = LabelQueue(f"sqlite:///{tmp_path}/other.sqlite")
    assert add_data(other, data) == (4, 4)
    again = data_of_queue(other.database)
    assert (again.clips, again.pairs, again.labels) == (data.clips, data.pairs, data.labels)
    for clip in data.strips:
        np.testing.assert_allclose(again.frames(clip), data.frames(clip), atol=3)
    question = Annotator(other, "Cy").claim()  # only the VLM has labelled this one
    assert question is not None and (question.pair, question.vlm_label) == (3, 1.0)
    with pytest.raises(PrefVLMError, match=f"Pair '{RUN}/2/0' is in sqlite:///.*other.sqlite already."):
        add_data(other, data)
    assert data_of_queue(other.database).pairs == data.pairs  # nothing was added
    few = PreferenceData(data.clips, data.pairs[2:3], table_of("labels", data.labels.to_pylist()[4:5]), data.strips)
    third = LabelQueue(f"sqlite:///{tmp_path}/third.sqlite")
    add_data(third, few)
    assert export_labels(third.database, tmp_path / "labels.jsonl") == 1  # the pair's number is below its budget
    assert [line.pair for line in read_labels(tmp_path / "labels.jsonl").values()] == [2]


# ---- what others write


def film(path: Path, frames: np.ndarray[Any, Any]) -> str:
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=50)
    return path.name


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Two pairs of somebody else: CSV tables, films as GIF, as .npz, as pictures in a folder, and one of 30 frames."""
    folder = tmp_path / "theirs"
    (folder / "stills").mkdir(parents=True)
    film(folder / "a.gif", gray(20))
    np.savez(folder / "b.npz", frames=gray(60), observations=np.arange(20.0).reshape(10, 2), actions=np.ones((10, 1)))
    for number, frame in enumerate(gray(100, 4)):
        Image.fromarray(frame).save(folder / "stills" / f"{number}.png")
    film(folder / "long.gif", gray(0, 30))
    names = "clip,file\nA,a.gif\nB,b.npz\nC,stills\nD,long.gif\n"
    (folder / "clips.csv").write_text(names)
    (folder / "pairs.csv").write_text("pair,first_clip,second_clip\n07,A,B\n08,C,D\n")
    return folder


def test_pairs_of_others_are_posted_to_people(theirs: Path, tmp_path: Path) -> None:
    data = read_folder(theirs)
    for clip, frames in {"A": gray(20), "B": gray(60), "C": gray(100, 4)}.items():
        np.testing.assert_allclose(data.frames(clip), frames, atol=3)
    chosen = np.linspace(0, 29, 20).round().astype(int)
    np.testing.assert_allclose(data.frames("D"), gray(0, 30)[chosen], atol=3)
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    assert add_data(queue, data) == (2, 0)
    with queue.transaction(reading=True) as connection:
        rows = [row._mapping for row in connection.execute(select(PAIRS))]
    assert [(row["session"], row["pair"], row["budget"], row["frames"]) for row in rows] == [
        (1, 0, 2, 5),
        (1, 1, 2, 20),
    ]
    assert {(row["task"], row["text"]) for row in rows} == {("own clips", "Which clip is better?")}
    annotator = Annotator(queue, "Ann")
    for _ in range(2):
        question = annotator.claim()
        assert question is not None
        annotator.answer(question, "right" if question.swapped else "left", 1.0)
    export_labels(queue.database, tmp_path / "labels.jsonl")  # whose tasks are those of runs
    assert {line.task for line in read_labels(tmp_path / "labels.jsonl").values()} == {"own clips"}
    labels = data_of_queue(queue.database).labels.to_pylist()
    assert [(label["pair"][-3:], label["label"]) for label in labels] == [("1/0", 0.0), ("1/1", 0.0)]


def changed(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def labels_of(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "labels.csv").write_text(text) and None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "pairs.csv").unlink(), "holds neither pairs.parquet nor pairs.csv."),
        (changed("clips.csv", "clip,file", "clip,fiel"), "Unknown column of .*clips.csv 'fiel'. Did you mean 'file'?"),
        (changed("clips.csv", "A,a.gif", "A,"), "Column file of .*clips.csv has empty cells."),
        (changed("clips.csv", "a.gif", "c.gif"), "There is no .*c.gif, which clip 'A' names as its file."),
        (changed("clips.csv", "a.gif", "../a.gif"), "The file of clip 'A' is ../a.gif, which lies outside"),
        (changed("clips.csv", "a.gif", "pairs.csv"), "pairs.csv cannot be read as an animated WebP, GIF or PNG"),
        (changed("clips.csv", "B,b", "A,b"), "clips names clip 'A' twice."),
        (changed("pairs.csv", "A,B", "A,E"), "second_clip in row 0 of pairs is 'E', which no row of the other table"),
        (changed("pairs.csv", "pair,", "pairs,"), "Unknown column of .*pairs.csv 'pairs'. Did you mean 'pair'?"),
        (changed("pairs.csv", "07,A,B", "07,A"), "pairs.csv cannot be read: .*Expected 3 columns, got 2"),
        (
            changed("pairs.csv", "_clip\n07,A,B\n08,C,D", "_clip,session\n07,A,B,0\n08,C,D,1"),
            "session in row 0 of pairs is 0",
        ),
        (
            changed("pairs.csv", "_clip\n07,A,B\n08,C,D", "_clip,run_id\n07,A,B,r\n08,C,D,r"),
            "Pair '07' names the run r, so",
        ),
        (labels_of("pair,label\n07,1\n"), "labels.csv has no column teacher."),
        (labels_of("pair,label,teacher\n07,1.5,human\n"), "label in row 0 of labels is 1.5, but must be in"),
        (labels_of("pair,label,teacher\n09,1,human\n"), "pair in row 0 of labels is '09', which no row of the other"),
        (labels_of("pair,label,teacher\n07,left,human\n"), "labels.csv cannot be read: .*invalid value 'left'"),
        (
            labels_of("pair,label,teacher\n07,0.7,human\n"),
            "The label of pair '07' is 0.7, but people's labels are 0, 0.5",
        ),
        (labels_of("pair,label,teacher,purpose\n07,1,human,fun\n"), "Unknown purpose of a label of pair '07' 'fun'"),
        (labels_of("pair,label,teacher\n07,1,vlm\n07,0,vlm\n"), "Pair '07' has 2 labels of teacher 'vlm', but a queue"),
        (labels_of("pair,label,teacher\n07,1,human\n07,0,human\n"), "Pair '07' has two answers of purpose 'label', or"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_posted(
    theirs: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    change(theirs)
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    with pytest.raises(PrefVLMError, match=said):
        add_data(queue, read_folder(theirs))
    with queue.transaction(reading=True) as connection:
        assert not connection.execute(select(PAIRS)).all()


@pytest.mark.parametrize("task", ["point-maze-u", "walker-walk", "door-open-v3"])
def test_pairs_of_runs_of_every_domain_come_back(queue: LabelQueue, tmp_path: Path, task: str) -> None:
    with queue.transaction() as connection:
        connection.execute(update(PAIRS).values(task=task))
    write_folder(data_of_queue(queue.database), tmp_path / "folder")
    other = LabelQueue(f"sqlite:///{tmp_path}/other.sqlite")
    add_data(other, read_folder(tmp_path / "folder"))
    with other.transaction(reading=True) as connection:
        assert {row.task for row in connection.execute(select(PAIRS))} == {task}


def test_steps_must_fit_their_clip(theirs: Path) -> None:
    arrays = {"frames": gray(60), "observations": np.zeros((10, 2)), "actions": np.ones((10, 1))}
    (theirs / "clips.csv").write_text("clip,file,length\nA,a.gif,\nB,b.npz,9\nC,stills,\nD,long.gif,\n")
    with pytest.raises(PrefVLMError, match="The observations of clip 'B' are not equally long rows, one for each"):
        read_folder(theirs)
    np.savez(theirs / "b.npz", **(arrays | {"frames": gray(60).astype(float)}))
    with pytest.raises(PrefVLMError, match=r"frames in .*b.npz is float64 of shape \(5, 32, 32, 3\)"):
        read_folder(theirs)
    (theirs / "b.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(PrefVLMError, match=r"b.npz cannot be read"):
        read_folder(theirs)


# ---- a run that kept what it has seen


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    results = tmp_path_factory.mktemp("kept")
    return train([small("prefvlm", {"feedback.budget": 8})], quiet(results, keep_replay=True))[0]


def test_all_labels_of_a_run_are_exported_with_what_it_saw(kept: RunDirectory) -> None:
    data, log, replay = data_of_run(kept, 40), kept.labels(), kept.read_replay()
    assert log is not None and {"human", "vlm"} == set(log["teacher"])
    labels = data.labels.to_pandas()
    assert list(labels["label"]) == list(log["label"])
    assert list(labels["teacher"]) == [
        kept.config.feedback.teacher if who == "human" else "vlm" for who in log["teacher"]
    ]
    np.testing.assert_array_equal(labels["divergence"], log["divergence"])
    assert set(labels["annotator"].dropna()) == {kept.config.vlm.model}
    clips = {row["clip"]: row for row in data.clips.to_pylist()}
    assert len(data.pairs) == len(log[["first", "second"]].drop_duplicates())
    horizon, length = kept.config.horizon, kept.config.feedback.segment_length
    for pair in data.pairs.to_pylist()[:3]:
        clip = clips[pair["second_clip"]]
        episode, within = divmod(clip["first"], horizon)
        seen = replay["observations"][episode, within : within + length]
        assert torch.equal(torch.tensor(clip["observations"]), seen)
        assert torch.equal(torch.tensor(clip["actions"]), replay["actions"][clip["first"] : clip["first"] + length])
        returns = [
            replay["true_rewards"][clips[pair[side]]["first"] :][:length].sum()
            for side in ("first_clip", "second_clip")
        ]
        assert pair["truth"] == (1 + np.sign(float(returns[1] - returns[0]))) / 2
        after = replay["snapshots"][episode, within + 1 : within + 1 + length].numpy()
        scene = replay["scenes"][episode].numpy()
        drawn = FrameRenderer(kept.config.task, 40).render(after, np.repeat(scene[None], length, axis=0))
        assert data.strips[clip["clip"]] == strip(drawn)


def test_a_reward_is_learned_offline_from_what_was_imported(kept: RunDirectory, tmp_path: Path) -> None:
    """The ensemble learns to order the clips by a sum of theirs, which made the labels."""
    data = data_of_run(kept, 16)
    goodness = {row["clip"]: np.sum(row["observations"], dtype=float) for row in data.clips.to_pylist()}
    told = [
        {
            "pair": row["pair"],
            "label": float(goodness[row["second_clip"]] > goodness[row["first_clip"]]),
            "teacher": "me",
        }
        for row in data.pairs.to_pylist()
    ]
    write_folder(PreferenceData(data.clips, data.pairs, table_of("labels", told), data.strips), tmp_path / "out")
    replay, buffer, length = training_set(read_folder(tmp_path / "out"), teachers=["me"])
    assert (length, len(buffer)) == (10, len(data.pairs))
    first = data.clips["observations"][buffer.starts[0, 1] // length].as_py()
    run = replay.of_run(0)
    steps = run.segment_steps(buffer.starts[0, 1:], length)
    assert torch.equal(run.inputs(steps)[0, :, : len(first[0])], torch.tensor(first))
    config, generator, cpu = kept.config.reward, np.random.default_rng(0), torch.device("cpu")
    ensemble = RewardEnsemble(config, replay.input_size, [generator], cpu, "drawer-close-v3")
    ensemble.of_run(0).standardise(run)
    accuracy = [
        learn_together(ensemble, replay, {0: one_pass(buffer, config, length, generator, cpu)})[0] for _ in range(60)
    ]
    assert accuracy[-1] > 0.9 > accuracy[0]


def test_a_training_set_needs_states_and_labels(queue: LabelQueue, kept: RunDirectory) -> None:
    with pytest.raises(PrefVLMError, match=r"Clip '.*/0/first' holds no observations, without which"):
        training_set(data_of_queue(queue.database))
    with pytest.raises(PrefVLMError, match="There is no label of human to learn from"):
        training_set(data_of_run(kept, 16), teachers=["human"])


# ---- LeRobot


def test_a_lerobot_dataset_holds_every_frame_and_label(kept: RunDirectory, tmp_path: Path) -> None:
    """Read as LeRobot v3.0 describes its format; LeRobot itself was tried by hand."""
    data, folder = data_of_run(kept, 24), tmp_path / "out"
    write_lerobot(data, folder)
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["video_path"] is None
    episodes = pandas.concat(map(pandas.read_parquet, sorted((folder / "meta/episodes").glob("*/*.parquet"))))
    assert len(episodes) == info["total_episodes"] == len(data.clips)
    rows = pandas.read_parquet(folder / info["data_path"].format(chunk_index=0, file_index=0))
    assert len(rows) == info["total_frames"] and list(rows["index"]) == list(range(len(rows)))
    assert set(rows.columns) == set(info["features"])
    tasks = pandas.read_parquet(folder / "meta/tasks.parquet")
    for episode, clip in zip(episodes.to_dict("records"), data.clips.to_pylist(), strict=True):
        mine = rows.iloc[episode["dataset_from_index"] : episode["dataset_to_index"]]
        assert set(mine["episode_index"]) == {episode["episode_index"]} and episode["clip"] == clip["clip"]
        assert list(mine["frame_index"]) == list(range(episode["length"]))
        np.testing.assert_allclose(mine["timestamp"], mine["frame_index"] / info["fps"])
        assert (
            [tasks.index[number] for number in set(mine["task_index"])] == list(episode["tasks"]) == ["press a button"]
        )
        frames = [np.asarray(Image.open(io.BytesIO(picture["bytes"]))) for picture in mine["observation.images.view"]]
        np.testing.assert_array_equal(np.stack(frames), data.frames(clip["clip"]))
        np.testing.assert_array_equal(np.stack(mine["observation.state"]), np.array(clip["observations"], np.float32))
        np.testing.assert_array_equal(np.stack(mine["action"]), np.array(clip["actions"], np.float32))
    for name in ("observation.state", "action"):
        assert info["features"][name] == {"dtype": "float32", "shape": [len(rows[name][0])], "names": None}
        stats = json.loads((folder / "meta/stats.json").read_text())[name]
        values = np.stack(rows[name])
        for statistic, expected in {"min": values.min(0), "max": values.max(0), "std": values.std(0)}.items():
            np.testing.assert_allclose(stats[statistic], expected, atol=1e-4)
    preferences = pyarrow.parquet.read_table(folder / "meta/preferences.parquet").to_pylist()
    assert [row["label"] for row in preferences] == data.labels["label"].to_pylist()
    clips, pairs = data.clips["clip"].to_pylist(), {row["pair"]: row for row in data.pairs.to_pylist()}
    for row in preferences:
        assert clips[row["first_episode"]] == pairs[row["pair"]]["first_clip"] and row["seed"] == kept.config.seed


def test_a_lerobot_dataset_needs_frames_of_one_size(theirs: Path, tmp_path: Path) -> None:
    film(theirs / "a.gif", gray(20)[:, :20])
    data = read_folder(theirs)
    without_steps = [row | {"observations": None, "actions": None} for row in data.clips.to_pylist()]
    pictures = PreferenceData(table_of("clips", without_steps), data.pairs, data.labels, data.strips)
    with pytest.raises(PrefVLMError, match=r"Clip 'B' has values \(32, 32, 3\), but those before it \(20, 32, 3\)."):
        write_lerobot(pictures, tmp_path / "out")
    with pytest.raises(PrefVLMError, match="Clip 'B' and those before it differ in whether they hold actions"):
        write_lerobot(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- the command


def test_the_command_exports_and_imports(
    queue: LabelQueue, kept: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prefvlm(line: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(f"labels {line}".split())
        out, err = capsys.readouterr()
        return int(str(stopped.value.code)), out + err

    address, out = f"--labels sqlite:///{tmp_path}/labels.sqlite", tmp_path / "out"
    results = kept.path.parents[3]
    assert prefvlm(f"export --folder {out} {address} --size 24") == (0, f"6 labels of 4 pairs written to {out}\n")
    assert read_folder(out).labels == data_of_queue(queue.database).labels
    code, said = prefvlm(f"export --folder {out} {address}")
    assert code == 2 and f"{out} exists already, and an export overwrites nothing; name a new folder." in said
    code, said = prefvlm(f"import --folder {out} --labels sqlite:///{tmp_path}/new.sqlite")
    assert code == 0 and said.startswith("4 pairs with 4 answers added to sqlite:///")
    line = f"export --folder {tmp_path / 'robot'} --form lerobot --source run --size 16 --results {results}"
    assert prefvlm(f"{line} --run-id {kept.run_id}")[0] == 0
    assert (tmp_path / "robot" / "meta" / "preferences.parquet").exists()
    for wrong, told in {
        f"export --folder {tmp_path / 'x'} --source run --results {results} --run-id quick": "Unknown run in",
        f"export --folder {tmp_path / 'x'} {address} --size 9999": "size must be at most 480, got 9999.",
        f"export --folder {tmp_path / 'x'} {address} --run-id none": "holds no labels of run none, so nothing was",
        f"import --folder {out} --form lerobot {address}": "Only folders in the plain form are imported",
        f"import --folder {tmp_path / 'x'} {address}": f"There is no folder {tmp_path / 'x'}; it should hold the",
        f"status --folder {out} {address}": "status takes no folder; only export and import do.",
        f"export --form lerobot {address}": "--form, --source and --size are about a folder; name it with --folder.",
    }.items():
        code, said = prefvlm(wrong)
        assert code == 2 and told in said
    assert not (tmp_path / "x").exists()
