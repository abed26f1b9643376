"""Tests of TinyLIV, its training, its accuracy and the feature cache against independent computations."""

import json
import tomllib
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.stats import spearmanr

from prefvlm_core import vlm
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.domain import Camera
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.metaworld_texts import PUBLISHED, TASK_TEXTS
from prefvlm_core.domains.perturbations import CLEAN
from prefvlm_core.domains.tasks import PAPER_TASKS, TASKS
from prefvlm_core.vlm import ImageTextModel, texts, tinyliv
from prefvlm_core.vlm.feature_cache import FeatureCache
from prefvlm_core.vlm.pretraining import demonstrations, pretrain
from prefvlm_core.vlm.pretraining.demonstrations import collect_films
from prefvlm_core.vlm.pretraining.pretrain import (
    RECIPES,
    Batch,
    Recipe,
    ZeroShotLabels,
    accuracy_interval,
    augmented,
    naming_loss,
    ranking_loss,
    zero_shot_labels,
)
from prefvlm_core.vlm.pretraining.recordings import Recording, record, record_mixed_behaviors, segment_returns
from prefvlm_core.vlm.texts import task_text
from prefvlm_core.vlm.tinyliv import WEIGHTS, TinyLIV, TinyLIVNetwork


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (150, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return vlm.load("random")


# ---- texts ----


def test_every_task_has_a_text_of_its_own():
    assert set(TASK_TEXTS) == set(TASKS) and len(set(TASK_TEXTS.values())) == 50
    assert set(PUBLISHED) < set(TASKS)
    assert task_text("drawer-open-v3") == "open a drawer"
    with pytest.raises(PrefVLMError, match="Unknown task 'drawer-v3'"):
        task_text("drawer-v3")


@pytest.fixture
def no_registered_texts(monkeypatch):
    monkeypatch.setattr(texts, "_registered", {})


@pytest.mark.usefixtures("no_registered_texts")
def test_a_registered_text_replaces_the_built_in_one():
    texts.register_task_text("drawer-open-v3", "pull the drawer towards the robot")
    assert task_text("drawer-open-v3") == "pull the drawer towards the robot"
    assert task_text("drawer-close-v3") == TASK_TEXTS["drawer-close-v3"]
    texts.register_task_text("drawer-open-v3", "open it")
    assert task_text("drawer-open-v3") == "open it"


@pytest.mark.usefixtures("no_registered_texts")
@pytest.mark.parametrize(
    "task, text, words", [("drawer-v3", "open it", "Unknown task 'drawer-v3'"), ("drawer-open-v3", " \n", "is empty")]
)
def test_a_text_needs_a_task_and_words(task, text, words):
    with pytest.raises(PrefVLMError, match=words):
        texts.register_task_text(task, text)
    assert task_text("drawer-open-v3") == "open a drawer"


@pytest.mark.usefixtures("no_registered_texts")
def test_a_registered_text_is_what_the_model_judges_by():
    recording = Recording(
        "door-open-v3",
        np.random.default_rng(0).integers(0, 256, (2, 40, 64, 64, 3), np.uint8),
        np.random.default_rng(1).uniform(0, 10, (2, 200)),
        np.zeros((2, 200), bool),
        np.zeros((2, 200, 4), np.float32),
    )
    asked = []

    class Listener(RewardReader):
        def encode_text(self, words):
            asked.extend(words)
            return super().encode_text(words)

    texts.register_task_text("door-open-v3", "pull the handle")
    zero_shot_labels(Listener(1), recording, 10, seed=0)
    assert asked == ["pull the handle"]


# ---- models by name ----


@pytest.mark.parametrize("name", vlm.TINYLIV_NAMES)
def test_models_of_the_package_follow_the_interface(name, frames):
    model = vlm.load(name)
    images, texts = model.encode_image(frames[:3]), model.encode_text(["open a door", "press a button"])
    assert images.shape == (3, 128) and texts.shape == (2, 128)
    assert images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    assert model.frame_size == 64 and model.fingerprint.startswith(f"{name}-")
    assert sum(parameter.numel() for parameter in model.network.parameters()) <= 2_500_000


FINGERPRINTS = {
    "tinyliv": "tinyliv-952dbcfe0746",
    "tinyliv-heldout": "tinyliv-heldout-a61b94dd7abe",
    "tinyliv-indomain": "tinyliv-indomain-37384d7e971a",
    "tinyliv2": "tinyliv2-0e2b46aad641",
    "tinyliv2-heldout": "tinyliv2-heldout-33fe54e496e9",
    "tinyliv2-indomain": "tinyliv2-indomain-8e65ebb1ee6f",
    "tinyliv2-maze": "tinyliv2-maze-90044c12f62a",
}
"""Of the shipped weights. Stored runs name the weights that labeled their pairs, so shipped weights never change."""


def test_the_package_ships_the_weights_of_every_name_and_stays_small():
    project = tomllib.loads((WEIGHTS.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "**/*.safetensors" in project["tool"]["setuptools"]["package-data"]["prefvlm_core"]
    shipped = {path.stem: path for path in WEIGHTS.glob("*.safetensors")}
    assert set(shipped) == set(vlm.TINYLIV_NAMES) - {"random"}
    assert sum(path.stat().st_size for path in shipped.values()) <= 22e6
    for name, path in shipped.items():
        assert path.stat().st_size <= 6e6
        assert {tensor.dtype for tensor in safetensors.torch.load_file(path).values()} == {torch.float16}
        assert vlm.load(name).fingerprint == FINGERPRINTS[name]


def test_unknown_names_and_superfluous_weights_are_refused():
    with pytest.raises(PrefVLMError, match=r"Unknown vision-language model 'tiny-liv'\. Did you mean 'tinyliv'"):
        vlm.load("tiny-liv")
    with pytest.raises(PrefVLMError, match="comes with the package and takes no weights"):
        vlm.load("tinyliv", "model.pt")


def convolve(image, weight, bias):
    """Convolution with stride 2 in plain NumPy: image (H, W, C) and weight (O, C, k, k) to (H/2, W/2, O)."""
    side = weight.shape[-1]
    padded = np.pad(image, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))[::2, ::2]
    return np.einsum("hwcij,ocij->hwo", windows, weight) + bias


def test_image_embedding_is_what_numpy_computes(model, frames):
    tensors = {key: value.numpy().astype(float) for key, value in model.network.state_dict().items()}
    hidden = frames[0] / 255
    for layer in (0, 2, 4, 6):
        hidden = np.maximum(convolve(hidden, tensors[f"image.{layer}.weight"], tensors[f"image.{layer}.bias"]), 0)
    hidden = hidden.transpose(2, 0, 1).ravel()
    hidden = np.maximum(tensors["image.9.weight"] @ hidden + tensors["image.9.bias"], 0)
    embedding = tensors["image.11.weight"] @ hidden + tensors["image.11.bias"]
    np.testing.assert_allclose(model.encode_image(frames[:1])[0], embedding / np.linalg.norm(embedding), atol=1e-5)


def test_text_embedding_is_what_numpy_computes(model):
    tensors = {key: value.numpy().astype(float) for key, value in model.network.state_dict().items()}
    entries = [0 if word == "zebra" else 1 + model.vocabulary.index(word) for word in ("open", "a", "zebra")]
    mean = tensors["words.weight"][entries].mean(0)
    hidden = np.maximum(tensors["text.0.weight"] @ mean + tensors["text.0.bias"], 0)
    embedding = tensors["text.2.weight"] @ hidden + tensors["text.2.bias"]
    actual = model.encode_text(["Open a zebra!"])[0]
    np.testing.assert_allclose(actual, embedding / np.linalg.norm(embedding), atol=1e-5)


def test_an_embedding_does_not_depend_on_its_batch(model, frames):
    together = model.encode_image(frames)
    order = np.random.default_rng(1).permutation(len(frames))
    np.testing.assert_array_equal(model.encode_image(frames[order]), together[order])
    np.testing.assert_array_equal(model.encode_image(frames[70:71])[0], together[70])
    assert model.encode_image(frames[:0]).shape == (0, 128)


def test_folding_leaves_the_embeddings_as_they_were(frames):
    torch.manual_seed(0)
    network = TinyLIVNetwork(4, folded=False)
    for start in range(0, 100, 50):  # batch norms with statistics and weights of their own
        network.encode_image(torch.from_numpy(frames[start : start + 50]))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    network.eval()
    batch = torch.from_numpy(frames[:8])
    torch.testing.assert_close(network.fold().encode_image(batch), network.encode_image(batch), atol=1e-4, rtol=1e-4)


def test_saved_weights_come_back(model, frames, tmp_path):
    model.save(tmp_path / "copy.safetensors")
    copy = TinyLIV.load(tmp_path / "copy.safetensors")
    assert copy.vocabulary == model.vocabulary
    np.testing.assert_allclose(copy.encode_image(frames[:5]), model.encode_image(frames[:5]), atol=2e-3)  # float16
    again = TinyLIV.load(tmp_path / "copy.safetensors")
    assert again.fingerprint == copy.fingerprint
    copy.network.image[0].weight[0, 0, 0, 0] += 1e-3
    changed = TinyLIV("copy", copy.network, copy.vocabulary)
    assert changed.fingerprint != again.fingerprint


def test_bad_input_is_named(model, frames, tmp_path):
    with pytest.raises(PrefVLMError, match=r"dtype uint8 and shape \(N, 64, 64, 3\), got uint8 and \(150, 32, 64, 3\)"):
        model.encode_image(frames[:, :32])
    with pytest.raises(PrefVLMError, match="got float32"):
        model.encode_image(frames.astype(np.float32))
    with pytest.raises(PrefVLMError, match="Text 1 is empty"):
        model.encode_text(["open a door", "  "])
    with pytest.raises(PrefVLMError, match="got the single text 'open a door'"):
        model.encode_text("open a door")
    damaged = tinyliv.random(1)
    damaged.network.image[-1].bias[3] = float("nan")
    with pytest.raises(PrefVLMError, match=r"2 of 2 embeddings are not finite .* weights are damaged"):
        damaged.encode_image(frames[:2])
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(PrefVLMError, match=r"noise.safetensors does not hold a TinyLIV network"):
        TinyLIV.load(tmp_path / "noise.safetensors")
    with pytest.raises(PrefVLMError, match=r"gone.safetensors does not hold"):
        TinyLIV.load(tmp_path / "gone.safetensors")


def test_weights_of_another_network_are_refused_when_they_are_loaded(model, tmp_path):
    words, path = json.dumps(model.vocabulary), tmp_path / "other.safetensors"
    tensors = {key: tensor.half().contiguous() for key, tensor in model.network.state_dict().items()}
    bias = tensors["image.0.bias"]
    kinds = [
        (tensors, None, "its vocabulary is no list of words"),
        (tensors, {"other": words}, "its vocabulary is no list of words"),
        (tensors, {"vocabulary": "close open"}, "Expecting value"),
        (tensors, {"vocabulary": "[" * 100_000}, "recursion"),
        (tensors, {"vocabulary": "[1, 2]"}, "its vocabulary is no list of words"),
        (tensors, {"vocabulary": '{"open": 1}'}, "its vocabulary is no list of words"),
        (tensors, {"vocabulary": '["open", ""]'}, "its vocabulary is no list of words"),
        (tensors, {"vocabulary": '["open"]'}, r"1 of another shape: words\.weight\.$"),
        ({"image.0.weight": bias}, {"vocabulary": words}, r"16 missing: .*; 1 of another shape: image\.0\.weight\.$"),
        (tensors | {"more": bias + 1}, {"vocabulary": words}, r"1 not known: more\.$"),
        (tensors | {"image.0.bias": bias * torch.nan}, {"vocabulary": words}, r"1 not finite: image\.0\.bias\.$"),
        (tensors | {"image.0.bias": bias.int()}, {"vocabulary": words}, r"1 of another type: image\.0\.bias\.$"),
        (tensors | {"image.0.bias": bias[:1].clone()}, {"vocabulary": words}, r"another shape: image\.0\.bias\.$"),
    ]
    for content, metadata, said in kinds:
        safetensors.torch.save_file(content, path, metadata)
        with pytest.raises(PrefVLMError, match=f"other.safetensors does not hold a TinyLIV network: .*{said}") as told:
            TinyLIV.load(path)
        assert "\n" not in str(told.value)


# ---- demonstrations and recordings ----


def test_training_cameras_keep_off_the_evaluation_view():
    generator = np.random.default_rng(0)
    offset = np.array((1.3, -0.2, 1.1)) - demonstrations._EVALUATION_TARGET
    for _ in range(500):
        camera = demonstrations._camera_around(generator)
        seen = np.subtract(camera.position, camera.target)
        turn = np.degrees(np.arctan2(seen[1], seen[0]) - np.arctan2(offset[1], offset[0]))
        climb = np.degrees(np.arcsin(seen[2] / np.linalg.norm(seen)) - np.arcsin(offset[2] / np.linalg.norm(offset)))
        assert 8 <= abs((turn + 180) % 360 - 180) <= 25 and abs(climb) <= 8


class Diary(Environment):
    """Notes what happens in the episodes of all environments: (snapshot, whether it is a success) of each step."""

    episodes: ClassVar[list[list[tuple[bytes, bool]]]] = []

    def reset(self, seed):
        observation = super().reset(seed)
        self.episodes.append([(self.snapshot().tobytes(), False)])
        return observation

    def step(self, action):
        observation, reward, success = super().step(action)
        self.episodes[-1].append((self.snapshot().tobytes(), success))
        return observation, reward, success


@pytest.mark.parametrize("task", ["drawer-open-v3", "sweep-into-v3"])  # in the second one, success can be undone
def test_labels_are_the_steps_that_the_expert_needed(task, monkeypatch):
    monkeypatch.setattr(demonstrations, "Environment", Diary)
    monkeypatch.setattr(Diary, "episodes", [])
    disturb, disturbed_steps = demonstrations._disturb, {}

    def noted_disturbance(*arguments):
        observation = disturb(*arguments)
        disturbed_steps[len(Diary.episodes)] = len(Diary.episodes[-1]) - 1
        return observation

    monkeypatch.setattr(demonstrations, "_disturb", noted_disturbance)
    before = []
    for episode in demonstrations.successful_episodes(task, 2, 6, np.random.default_rng(3)):
        start = disturbed_steps.get(len(Diary.episodes), 0)
        before.append(start)
        states, successes = zip(*Diary.episodes[-1], strict=True)
        first = successes.index(True, start + 1)
        expected = {states[step]: first - step for step in range(start, first)}
        expected |= {states[step]: 0 for step in range(first, len(states)) if successes[step]}
        assert {
            state.tobytes(): left for state, left in zip(episode.snapshots, episode.remaining, strict=True)
        } == expected
    assert before[:2] == [0, 0] and min(before[2:]) >= 5 and len(before) == 8


def test_films_are_repeatable_and_move():
    first, again, other = (collect_films(["drawer-close-v3"], "around", 2, 2, 1, seed) for seed in (0, 0, 1))
    assert first.frames.shape == (1, 4, 16, 64, 64, 3) and first.remaining.shape == (1, 4, 16)
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.remaining, again.remaining)
    assert (first.frames != other.frames).any()
    clean = first.frames[0, :2].astype(int)
    assert np.abs(clean[:, 0] - clean[:, -1]).mean(axis=(1, 2, 3)).min() > 1
    assert (first.remaining[0, :, -1] == 0).all() and first.remaining[0, :2, 0].min() > 20
    beside = collect_films(["button-press-v3", "drawer-close-v3"], "around", 2, 2, 1, 0)  # the other changes nothing
    np.testing.assert_array_equal(beside.frames[1], first.frames[0])


def test_every_episode_is_filmed_once_per_look_and_looks_do_not_change_it():
    once, thrice = (collect_films(["drawer-close-v3"], "evaluation", 1, 1, looks, 0) for looks in (1, 3))
    np.testing.assert_array_equal(thrice.frames, np.repeat(once.frames, 3, axis=1))
    around = collect_films(["drawer-close-v3"], "around", 1, 1, 3, 0)
    for films in (thrice, around):
        np.testing.assert_array_equal(films.remaining, np.repeat(once.remaining, 3, axis=1))
    first, second, other = around.frames[0, :3].astype(int)
    for one, another in ((first, second), (first, other), (second, other)):
        assert np.abs(one - another).mean() > 5


@pytest.mark.parametrize("view", ["around", "evaluation"])
def test_films_are_taken_from_their_view_alone(view, monkeypatch):
    looks = []

    class Watched(FrameRenderer):
        def look(self, camera, perturbation=CLEAN):
            self.seen = camera, perturbation
            super().look(camera, perturbation)

        def render(self, snapshots, scenes):
            looks.append(self.seen)
            return super().render(snapshots, scenes)

    monkeypatch.setattr(demonstrations, "FrameRenderer", Watched)
    collect_films(["drawer-close-v3"], view, 1, 2, 2, 0)
    if view == "evaluation":
        assert looks == 6 * [(None, CLEAN)]  # the default one
    else:
        assert len(looks) == len({camera for camera, _ in looks}) == len({lab.seed for _, lab in looks}) == 6
        for camera, lab in looks:
            assert isinstance(camera, Camera)
            assert lab.light >= 0.18 and lab.light_angle >= 18 and lab.color >= 0.15 and lab.texture >= 0.09


def test_no_expert_of_the_papers_tasks_disturbs():
    assert not set(demonstrations._DISTURBERS) & set(PAPER_TASKS) and len(demonstrations._DISTURBERS) == 42


def test_mixed_behaviors_are_of_mixed_quality():
    seen = record_mixed_behaviors("drawer-close-v3", 8, seed=5)
    assert seen.frames.shape == (8, 40, 64, 64, 3) and seen.rewards.shape == (8, 200)
    returns = seen.rewards.sum(1)
    assert returns.max() > 1000 and returns.min() < 0.5 * returns.max()
    np.testing.assert_array_equal(record_mixed_behaviors("drawer-close-v3", 1, seed=5).frames[0], seen.frames[0])


def test_a_recording_holds_the_episodes_of_its_behaviors_and_seeds():
    def raise_hand(_observation, step):
        return np.float32([0, 0, step / 200, -1])

    recording = record("drawer-close-v3", ((raise_hand, seed) for seed in (3, 4)))
    environment = Environment("drawer-close-v3", 200)
    for episode, seed in enumerate((3, 4)):
        environment.reset(seed)
        rewards, snapshots = [], []
        for step in range(200):
            rewards.append(environment.step(raise_hand(None, step))[1])
            snapshots.append(environment.snapshot())
        np.testing.assert_array_equal(recording.rewards[episode], rewards)
        np.testing.assert_array_equal(recording.actions[episode, :, 2], np.float32(np.arange(200) / 200))
        renderer = FrameRenderer("drawer-close-v3")
        last_frame = renderer.render(np.stack(snapshots[199:]), environment.scene()[None])[0]
        np.testing.assert_array_equal(recording.frames[episode, 39], last_frame)  # the frame after step 200
        renderer.close()
    assert recording.frames.shape == (2, 40, 64, 64, 3) and recording.successes.shape == (2, 200)


def test_segment_returns_are_sums_over_50_steps():
    rewards = np.random.default_rng(0).uniform(0, 10, (2, 200))
    expected = [[rewards[n, start : start + 50].sum() for start in range(0, 151, 5)] for n in range(2)]
    np.testing.assert_allclose(segment_returns(rewards), expected)


# ---- training ----


def test_ranking_loss_is_its_formula():
    scores, remaining = [[1.0, 0.5, -2.0], [0.0, 3.0, 1.0]], [[0, 5, 20], [7, 7, 1]]
    expected = []
    for values, left in zip(scores, remaining, strict=True):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            preferred = 1 / (1 + np.exp(-(left[j] - left[i]) / 5))
            model = 1 / (1 + np.exp(-(values[i] - values[j])))
            expected.append(-preferred * np.log(model) - (1 - preferred) * np.log(1 - model))
    loss = ranking_loss(torch.tensor(scores), torch.tensor(remaining), 5.0)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-6)


def test_naming_loss_is_the_cross_entropy_of_frames_near_success():
    logits = torch.tensor([[[1.0, 2.0, 0.0], [9.0, 9.0, 9.0]], [[0.0, 1.0, 0.0], [3.0, 1.0, 2.0]]])
    batch = Batch(torch.empty(0), torch.tensor([[9, 10], [0, 3]]), torch.tensor([1, 2]))
    near = [(logits[0, 0], 1), (logits[1, 0], 2), (logits[1, 1], 2)]
    expected = np.mean([np.log(np.exp(row).sum()) - row[task] for row, task in ((r.numpy(), t) for r, t in near)])
    assert float(naming_loss(logits, batch, 10)) == pytest.approx(expected, rel=1e-6)
    assert float(naming_loss(logits, batch, 0)) == 0


def test_augmentation_shifts_and_tints_each_frame():
    frames = np.full((40, 64, 64, 3), 20, np.uint8)
    frames[:, 30, 40] = 120
    changed = augmented(frames, np.random.default_rng(0))
    assert changed.shape == frames.shape and changed.dtype == np.float32
    shifts = set()
    for frame in changed:
        (row,), (column,) = np.nonzero(frame[..., 0] > 4 * frame[0, 0, 0])
        shifts |= {("down", row - 30), ("right", column - 40)}
        np.testing.assert_allclose(frame[row, column], 6 * frame[0, 0], rtol=1e-5)
        np.testing.assert_allclose(frame[0], np.broadcast_to(frame[0, 0], (64, 3)))
    assert shifts == {(way, shift) for way in ("down", "right") for shift in range(-3, 4)}
    tints = changed[:, 0, 0] / 20
    assert 0.75 * 0.8 <= tints.min() < 0.75 and 1.25 < tints.max() <= 1.25 * 1.2
    assert (tints.max(1) / tints.min(1) <= 1.25 / 0.75 + 1e-5).all() and (tints.max(1) / tints.min(1)).max() > 1.3


def test_training_is_repeatable_and_learns():
    tasks = ("drawer-close-v3", "button-press-v3")
    recipe = Recipe(tasks, "evaluation", steps=60, batch=(2, 16))
    films, unseen = (collect_films(tasks, "evaluation", 2, 4, 1, seed) for seed in (0, 9))
    model = pretrain.train("tiny", recipe, films, seed=0)
    short = replace(recipe, steps=2)
    fingerprints = [pretrain.train("tiny", short, films, seed).fingerprint for seed in (0, 0, 1)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    for index, task in enumerate(tasks):
        text = model.encode_text([task_text(task)])[0]
        cosines = model.encode_image(unseen.frames[index].reshape(-1, 64, 64, 3)) @ text
        assert spearmanr(cosines, -unseen.remaining[index].ravel()).statistic > 0.6


def test_pretrain_stores_every_seed_and_trains_none_twice(tmp_path, monkeypatch):
    recipe = Recipe(("drawer-close-v3", "button-press-v3"), "evaluation", clean=1, recoveries=1, steps=2, batch=(2, 4))
    evaluated, trained = {}, []

    def table(models, tasks, evaluation_seed):
        assert tasks == PAPER_TASKS
        evaluated.update(models)
        return f"seed {evaluation_seed}"

    def noted_train(*arguments, train=pretrain.train):
        trained.append(arguments[-1])
        return train(*arguments)

    monkeypatch.setitem(RECIPES, "tinyliv2", recipe)
    monkeypatch.setattr(pretrain, "accuracy_table", table)
    monkeypatch.setattr(pretrain, "train", noted_train)
    assert pretrain.pretrain("tinyliv2", (1,), tmp_path / "new", 5) == "seed 5"
    first = (tmp_path / "new" / "seed1" / "tinyliv2.safetensors").read_bytes()
    assert pretrain.pretrain("tinyliv2", (1, 0), tmp_path / "new", 6) == "seed 6"
    assert trained == [1, 0] and (tmp_path / "new" / "seed1" / "tinyliv2.safetensors").read_bytes() == first
    assert [len(evaluated[name]) for name in ("random", "tinyliv2")] == [2, 2]
    stored = [tinyliv.TinyLIV.load(tmp_path / "new" / f"seed{seed}" / "tinyliv2.safetensors") for seed in (1, 0)]
    assert [model.fingerprint for model in evaluated["tinyliv2"]] == [model.fingerprint for model in stored]
    assert stored[0].fingerprint != stored[1].fingerprint
    with pytest.raises(PrefVLMError, match="at least one training seed"):
        pretrain.pretrain("tinyliv2", (), tmp_path, 5)


def test_recipes_differ_in_what_they_may_see():
    assert not set(RECIPES["tinyliv2-heldout"].tasks) & set(PAPER_TASKS)
    assert len(RECIPES["tinyliv2-heldout"].tasks) == 42 and RECIPES["tinyliv2-heldout"].view == "evaluation"
    assert RECIPES["tinyliv2"].view == "around" and len(RECIPES["tinyliv2"].tasks) == 50
    assert RECIPES["tinyliv2-indomain"].view == "evaluation" and len(RECIPES["tinyliv2-indomain"].tasks) == 50


# ---- accuracy ----


class RewardReader(ImageTextModel):
    """A stand-in model: the first pixel of a frame is the cosine of its embedding to any text."""

    frame_size, fingerprint = 64, "reader"

    def __init__(self, sign):
        self.sign = sign

    def encode_image(self, frames):
        cosine = self.sign * frames[:, 0, 0, 0].astype(np.float32) / 255
        return np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)

    def encode_text(self, texts):
        return np.array([[1, 0]] * len(texts), np.float32)


@pytest.mark.parametrize(("sign", "accuracy"), [(1, 1.0), (-1, 0.0)])
def test_a_model_that_reads_the_reward_labels_perfectly(sign, accuracy):
    levels = np.random.default_rng(0).integers(0, 256, (5, 40))
    frames = np.zeros((5, 40, 64, 64, 3), np.uint8)
    frames[..., 0, 0, 0] = levels
    rewards, actions = np.repeat(levels / 25.5, 5, axis=1), np.zeros((5, 200, 4), np.float32)
    recording = Recording("door-open-v3", frames, rewards, np.zeros((5, 200), bool), actions)
    labels = zero_shot_labels(RewardReader(sign), recording, 300, seed=1)
    assert labels.correct.mean() == accuracy
    assert 250 < len(labels.correct) <= 300 and labels.episodes.shape == (len(labels.correct), 2)


def test_each_generation_labels_better_than_the_one_before():
    models = {name: vlm.load(name) for name in FINGERPRINTS if name != "tinyliv2-maze"}
    accuracies = {name: [] for name in models}
    for task in PAPER_TASKS:
        recording = record_mixed_behaviors(task, 4, seed=11)
        for name, model in models.items():
            accuracies[name].append(zero_shot_labels(model, recording, 500, seed=12).correct.mean())
    means = {name: np.mean(of_tasks) for name, of_tasks in accuracies.items()}
    assert 0.58 < means["tinyliv"] < 0.80  # 0.675 on 100 episodes: useful, but noisy
    for suffix in ("", "-heldout", "-indomain"):
        assert means[f"tinyliv2{suffix}"] > means[f"tinyliv{suffix}"] + 0.03
    assert means["tinyliv2"] > 0.77 and means["tinyliv2-indomain"] > means["tinyliv2"] + 0.03
    assert means["tinyliv2-indomain"] > means["tinyliv-indomain"] + 0.05


def test_accuracy_interval_is_as_wide_as_the_trajectories_are_few():
    generator = np.random.default_rng(0)
    chosen = generator.integers(0, 40, (2000, 2))
    independent = ZeroShotLabels(generator.random(2000) < 0.7, chosen)
    easy = generator.random(40) < 0.7  # all labels of a trajectory are right, or all are wrong
    clustered = ZeroShotLabels(easy[chosen[:, 0]], chosen)
    (mean, low, high), (_, wide_low, wide_high) = (
        accuracy_interval([labels], 40, np.random.default_rng(1)) for labels in (independent, clustered)
    )
    assert mean == pytest.approx(0.7, abs=0.03) and low < mean < high
    assert wide_high - wide_low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 40), rel=0.35)
    assert high - low < 0.5 * (wide_high - wide_low)
    always = ZeroShotLabels(np.ones(50, bool), chosen[:50])
    assert accuracy_interval([always, always], 40, np.random.default_rng(1)) == (1.0, 1.0, 1.0)


# ---- cache ----


class Counter:
    """Computes embeddings from run and step, and records for which it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, runs, steps):
        self.asked += list(zip(runs.tolist(), steps.tolist(), strict=True))
        return np.stack([runs, steps, runs * steps / 1000], axis=1).astype(np.float32)


def look(cache, runs, steps, embed):
    """Embeddings of frames that show nothing but their step."""
    return cache.get(runs, steps, lambda runs, steps: steps[:, None].astype(np.float32), embed)


def test_each_frame_is_embedded_once(tmp_path):
    embed = Counter()
    cache = FeatureCache(tmp_path, "model:x", runs=3, capacity=100, dimension=3)
    runs, steps = np.array([2, 0, 2, 2]), np.array([7, 5, 7, 99])
    features = look(cache, runs, steps, embed)
    expected = np.array([[2, 7, 0.014], [0, 5, 0], [2, 7, 0.014], [2, 99, 0.198]]).astype(np.float16)
    np.testing.assert_array_equal(features, expected)
    assert features.dtype == np.float32 and embed.asked == [(0, 5), (2, 7), (2, 99)]
    np.testing.assert_array_equal(look(cache, runs, steps, embed), features)
    resumed = FeatureCache(tmp_path, "model:x", runs=3, capacity=100, dimension=3)
    np.testing.assert_array_equal(look(resumed, runs, steps, embed), features)
    assert len(embed.asked) == 3
    look(FeatureCache(tmp_path, "other", runs=3, capacity=100, dimension=3), runs, steps, embed)
    assert len(embed.asked) == 6


def test_the_cache_is_a_ring_of_fixed_size(tmp_path):
    embed = Counter()
    cache = FeatureCache(tmp_path, "model", runs=1, capacity=10, dimension=3)
    for step in range(25):
        assert look(cache, np.array([0]), np.array([step]), embed)[0, 1] == step
    assert cache.path.stat().st_size == 10 * (8 + 2 * 3)
    np.testing.assert_array_equal(look(cache, np.zeros(10, int), np.arange(15, 25), embed)[:, 1], np.arange(15, 25))
    assert len(embed.asked) == 25
    assert look(cache, np.array([0]), np.array([3]), embed)[0, 1] == 3  # steps 13 and 23 had taken the place of step 3
    assert len(embed.asked) == 26


def test_an_entry_made_of_another_frame_is_embedded_again(tmp_path):
    """A resumed run may go another way, on which its steps show something else."""
    runs, steps, embed = np.zeros(3, int), np.array([4, 5, 6]), Counter()
    cache = FeatureCache(tmp_path, "model", runs=1, capacity=10, dimension=3)
    shown = np.random.default_rng(0).random((3, 7), np.float32)
    seen = lambda runs, steps: shown[steps - 4]  # noqa: E731
    cache.get(runs, steps, seen, lambda runs, steps: np.full((len(steps), 3), -1.0))
    shown[1, 6] = np.nextafter(shown[1, 6], 2, dtype=np.float32)
    features = FeatureCache(tmp_path, "model", runs=1, capacity=10, dimension=3).get(runs, steps, seen, embed)
    assert features.tolist() == [[-1, -1, -1], [0, 5, 0], [-1, -1, -1]] and embed.asked == [(0, 5)]


def test_a_damaged_entry_of_the_cache_is_embedded_again(tmp_path):
    """Every bit of an entry and of one that is still absent, for steps that differ from it in one bit."""
    embed = Counter()
    runs, steps = np.zeros(2, int), np.array([0, 63])
    cache = FeatureCache(tmp_path, "model", runs=1, capacity=100, dimension=3)
    expected = look(cache, runs, steps, embed)
    content = np.fromfile(cache.path, np.uint8)
    for step in (0, 63, 64):
        for bit in range(8 * 14):
            damaged = content.copy()
            damaged[14 * step + bit // 8] ^= 1 << bit % 8
            cache.path.write_bytes(damaged.tobytes())
            embed.asked.clear()
            features = look(FeatureCache(tmp_path, "model", runs=1, capacity=100, dimension=3), runs, steps, embed)
            np.testing.assert_array_equal(features, expected)
            assert embed.asked == [(0, step)] * (step < 64)
            if step == 64:
                again = FeatureCache(tmp_path, "model", runs=1, capacity=100, dimension=3)
                look(again, runs[:1], np.array([64]), embed)
                assert embed.asked == [(0, 64)]


def test_the_cache_names_bad_input(tmp_path):
    cache = FeatureCache(tmp_path, "model", runs=2, capacity=10, dimension=3)
    one, two = np.array([1]), np.array([1, 2])
    with pytest.raises(PrefVLMError, match=r"finite and of shape \(1, 3\), got shape \(1, 3\), 1 values not finite"):
        look(cache, one, one, lambda runs, steps: np.array([[1, np.nan, 2]], np.float32))
    with pytest.raises(PrefVLMError, match=r"of shape \(1, 3\), got shape \(1, 4\)"):
        look(cache, one, one, lambda runs, steps: np.zeros((1, 4), np.float32))
    with pytest.raises(PrefVLMError, match="Runs must be 0 to 1"):
        look(cache, two, two, Counter())
    with pytest.raises(PrefVLMError, match="keeps 10 per run"):
        look(cache, np.array([1, 1]), np.array([3, 13]), Counter())
    with pytest.raises(PrefVLMError, match=r"one shape \(K,\)"):
        look(cache, one, two, Counter())
    with pytest.raises(PrefVLMError, match="needs capacity of at least 1, got 0"):
        FeatureCache(tmp_path, "model", runs=2, capacity=0, dimension=3)
