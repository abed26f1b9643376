"""Tests of kernel adapters: the fit against the conditions of its optimum, the kernel, the guard and transfer."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch

from prefvlm_core.common.arrays import FloatArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.vlm import kernel_adapters
from prefvlm_core.vlm.frame_pairs import FramePairs
from prefvlm_core.vlm.kernel_adapters import FEATURES, KernelAdapters

CPU = torch.device("cpu")
CONFIG = AdapterConfig(kind="kernel")
NOTHING = np.empty((0, 32), np.float32)
NONE = NOTHING, NOTHING, NOTHING


def new(seed: int = 0, dimension: int = 32, config: AdapterConfig = CONFIG) -> KernelAdapters:
    return KernelAdapters(config, dimension, 4, np.random.default_rng(seed), CPU)


def world(pairs: int, seed: int, text_knows: bool = False) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Text (32,), frames (n, 2, 5, 32) and labels: more of direction 0 is preferred, along which the text points if
    `text_knows`, else it points along direction 1."""
    drawn = np.random.default_rng(seed)
    frames = drawn.normal(size=(pairs, 2, 1, 32)) + 0.1 * drawn.normal(size=(pairs, 2, 5, 32))
    labels = frames[:, 1, :, 0].sum(1) > frames[:, 0, :, 0].sum(1)
    text = np.eye(32)[0 if text_knows else 1]
    text32, frames32, labels32 = (each.astype(np.float32) for each in (text, frames, labels))
    return text32, frames32, labels32


def learn(adapters: KernelAdapters, seen: tuple[FloatArray, FloatArray, FloatArray]):
    text, frames, labels = seen
    return adapters.learn(text, FramePairs.of(frames), labels, NONE, np.random.default_rng(0))


def mean_features(adapters: KernelAdapters, frames: FloatArray) -> torch.Tensor:
    shown = np.arange(frames[..., 0].size).reshape(frames.shape[:3])
    return adapters._mean_features(torch.from_numpy(frames).flatten(0, 2), torch.from_numpy(shown))


def right(returns: FloatArray, labels: FloatArray) -> float:
    return float(((returns[:, 1] > returns[:, 0]) == labels).mean())


def test_the_fit_has_no_gradient_left() -> None:
    """The gradient of the loss as the module states it, written out in numpy from the returns' own definition."""
    adapters, (text, frames, labels) = new(), world(40, 1)
    learn(adapters, (text, frames, labels))
    state = {name: tensor.double().numpy() for name, tensor in adapters.state().items()}
    variance = frames.reshape(-1, 32).var(0).sum()
    assert state["length"] == pytest.approx(0.7 * np.sqrt(2 * variance), rel=1e-5)
    features = np.cos(frames @ state["directions"] / state["length"] + state["phases"]).mean(2)
    raw = 50 * (frames @ text / np.linalg.norm(frames, axis=-1)).mean(-1)
    assert state["scale"] == pytest.approx(np.sqrt(np.mean((raw[:, 1] - raw[:, 0]) ** 2)), rel=1e-5)
    returns = raw / state["scale"] + features @ state["weights"]
    differences = features[:, 1] - features[:, 0]
    penalty = 0.02 * (differences**2).sum(1).mean()
    probabilities = 1 / (1 + np.exp(returns[:, 0] - returns[:, 1]))
    pull = penalty * state["weights"]
    gradient = differences.T @ (probabilities - labels) + pull
    assert np.abs(gradient).max() < 1e-3 * np.abs(pull).max()
    adapters.load(adapters.state() | {"accepted": torch.tensor(True)})
    np.testing.assert_allclose(adapters.returns(text, frames), returns, rtol=1e-3, atol=1e-3)


def test_one_pair_has_the_optimum_of_its_only_equation() -> None:
    """With one pair and labels like the text's, w lies along the difference of features: one unknown is left."""
    adapters, (text, frames, _) = new(), world(1, 3)
    learning = learn(adapters, (text, frames, np.ones(1, np.float32)))
    features = mean_features(adapters, frames)[0]
    norm = float((features[1] - features[0]).square().sum())
    raw = 50 * (frames @ text / np.linalg.norm(frames, axis=-1)).mean(-1)[0]
    offset = np.sign(raw[1] - raw[0])  # one pair's difference divided by its own size

    def equation(step: float) -> float:
        return 1 / (1 + np.exp(-offset - step * norm)) - 1 + 0.02 * norm * step

    step = scipy.optimize.brentq(equation, 0, 1e6)
    np.testing.assert_allclose(adapters.weights, step * (features[1] - features[0]), rtol=1e-3, atol=1e-3)
    assert learning.preference_loss == pytest.approx(np.log1p(np.exp(-offset - step * norm)), rel=1e-3)


def test_features_span_a_gaussian_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_adapters, "FEATURES", 40_000)
    adapters = new()
    adapters._length.fill_(5.0)
    frames = world(6, 2)[1][:, :, :1]
    features = mean_features(adapters, frames).flatten(0, 1)
    products = (2 / 40_000 * features @ features.T).numpy()
    points = frames.reshape(12, 32)
    for one, other in itertools.product(range(12), repeat=2):
        distance = np.linalg.norm(points[one] - points[other])
        assert products[one, other] == pytest.approx(np.exp(-(distance**2) / 50), abs=0.02)


def test_labels_teach_a_direction_that_the_text_does_not_know() -> None:
    adapters = new()
    learning = learn(adapters, world(100, 1))
    text, frames, labels = world(1000, 2)
    assert learning.accepted and learning.adapted_accuracy > learning.zero_shot_accuracy + 0.1
    assert right((frames @ text).sum(-1), labels) < 0.55 < 0.7 < right(adapters.returns(text, frames), labels)


def test_held_out_pairs_are_judged_by_weights_that_never_saw_them() -> None:
    """Weights of the fold's own fit, and labels that mean nothing, of which no more than half are foretold."""
    text, frames, labels = world(12, 1)
    adapters = new()
    learn(adapters, (text, frames, labels))
    features = mean_features(adapters, frames)
    differences, offsets, wanted = features[:, 1] - features[:, 0], torch.zeros(12).double(), torch.from_numpy(labels)
    margins = adapters._held_out_margins(differences, offsets, wanted.double())
    for fold in range(4):
        rest = np.arange(12) % 4 != fold
        alone = adapters._fitted(differences[rest], offsets[rest], wanted[rest].double())
        np.testing.assert_allclose(margins[~rest], differences[~rest] @ alone, rtol=1e-9, atol=1e-9)
        flipped = torch.where(torch.from_numpy(rest), wanted, 1 - wanted).double()
        changed = adapters._held_out_margins(differences, offsets, flipped)
        np.testing.assert_array_equal(changed[~rest], margins[~rest])
    coin = np.random.default_rng(5).integers(0, 2, 400).astype(np.float32)
    guess = learn(new(), (*world(400, 6)[:2], coin))
    assert guess.adapted_accuracy == pytest.approx(0.5, abs=0.08) and guess.preference_loss < 0.5


def test_adapters_that_would_do_harm_are_not_used() -> None:
    """The text already points in the right direction, beside which the frames vary more in all others."""
    text, frames, labels = world(12, 3, text_knows=True)
    frames[..., 0] *= 0.2
    adapters = new()
    learning = learn(adapters, (text, frames, labels))
    assert not learning.accepted and learning.adapted_accuracy < learning.zero_shot_accuracy
    cosines = frames @ text / np.linalg.norm(frames, axis=-1)
    np.testing.assert_allclose(adapters.returns(text, frames), 50 * cosines.mean(-1), rtol=1e-4, atol=1e-4)


def test_one_pair_and_equal_frames_do_no_harm() -> None:
    text, frames, labels = world(3, 1)
    frames[:] = frames[0, 0, 0]
    learning = learn(new(), (text, frames, labels))
    assert learning.adapted_accuracy == learning.zero_shot_accuracy == 0.5


def test_state_round_trip_continues_as_if_nothing_had_happened() -> None:
    one, other = new(seed=0), new(seed=1)
    learn(one, world(20, 1))
    other.load({name: tensor.clone() for name, tensor in one.state().items()})
    assert other.accepted == one.accepted
    later = world(30, 2)
    assert repr(learn(one, later)) == repr(learn(other, later))  # the loss of the dynamics is nan
    assert torch.equal(one.weights, other.weights)


def test_adapters_transfer_to_another_run_that_fits(tmp_path: Path) -> None:
    """What was learned elsewhere is in use at once, and is what few labels start from."""
    source = new(seed=0)
    learn(source, world(300, 1))
    path = tmp_path / "adapters.safetensors"
    source.save(path, "liv-1")
    again = KernelAdapters.read(path, "liv-1", CONFIG, 32, 4, CPU)
    text, frames, labels = world(1000, 3)
    np.testing.assert_array_equal(again.returns(text, frames), source.returns(text, frames))
    learn(again, world(5, 4))
    alone = new(seed=0)
    learn(alone, world(5, 4))
    assert right(again.returns(text, frames), labels) > right(alone.returns(text, frames), labels) + 0.1
    with pytest.raises(PrefVLMError, match="backbone 'liv-1', but this run needs 'liv-2'"):
        KernelAdapters.read(path, "liv-2", CONFIG, 32, 4, CPU)
    with pytest.raises(PrefVLMError, match="folds '4', but this run needs '3'"):
        KernelAdapters.read(path, "liv-1", dataclasses.replace(CONFIG, folds=3), 32, 4, CPU)


def test_wrong_input_is_refused() -> None:
    text, frames, labels = world(3, 1)
    with pytest.raises(PrefVLMError, match="hold NaN or infinity"):
        learn(new(), (text, np.full_like(frames, np.nan), labels))
    with pytest.raises(PrefVLMError, match="one label 0, 1/2 or 1 for each"):
        learn(new(), (text, frames, labels[:2]))
    assert FEATURES == 512
