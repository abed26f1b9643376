"""Tests of adapters: losses worked out by hand, which networks learn from what, and the guard against harmful ones."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefvlm_core.common.arrays import FloatArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.runs.files import read_tensors, write_tensors
from prefvlm_core.vlm.adaptation import AdapterLearning
from prefvlm_core.vlm.adapters import Adapters
from prefvlm_core.vlm.frame_pairs import FramePairs

CPU = torch.device("cpu")
SMALL = AdapterConfig(hidden=5, output=3, folds=2, first_updates=1, later_updates=1)
LEARNING = AdapterConfig(hidden=64, output=16, first_updates=100, later_updates=20, learning_rate=1e-3)
Transitions = tuple[FloatArray, FloatArray, FloatArray]


def new(config: AdapterConfig, dimension: int, seed: int = 0) -> Adapters:
    return Adapters(config, dimension, 4, np.random.default_rng(seed), CPU)


def data(pairs: int, dimension: int, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray, Transitions]:
    """Random embeddings of a text and frames, random labels and random transitions."""
    drawn = np.random.default_rng(seed)

    def normal(*shape: int) -> FloatArray:
        return drawn.standard_normal(shape, np.float32)

    labels = drawn.integers(0, 2, pairs).astype(np.float32)
    transitions = normal(6, dimension), normal(6, dimension), normal(6, 4)
    return normal(dimension), normal(pairs, 2, 3, dimension), labels, transitions


def worlds(
    pairs: int, seed: int, text_knows: bool, dimension: int = 32, frames: int = 5
) -> tuple[FloatArray, FloatArray, FloatArray, Transitions]:
    """Segments whose frames progress along one direction, in which more is preferred; actions move along other ones.

    The text points along the direction of progress if `text_knows`, else perpendicular to it.
    """
    drawn = np.random.default_rng(seed)
    basis = np.eye(dimension)
    progress = drawn.normal(size=(pairs, 2, 1)) + 0.1 * drawn.normal(size=(pairs, 2, frames))
    features = progress[..., None] * basis[0] + drawn.normal(size=(pairs, 2, frames, dimension)) * (1 - basis[0])
    text = basis[0] if text_knows else basis[1]
    before, actions = drawn.normal(size=(200, dimension)), drawn.uniform(-1, 1, (200, 4))
    after = before + actions @ basis[2:6]
    labels = progress.sum(-1)[:, 1] > progress.sum(-1)[:, 0]
    arrays = (text, features, labels, before, after, actions)
    text32, frames32, labels32, *transitions = (each.astype(np.float32) for each in arrays)
    return text32, frames32, labels32, tuple(transitions)  # type: ignore[return-value]


def learn(
    adapters: Adapters,
    text: FloatArray,
    frames: FloatArray,
    labels: FloatArray,
    transitions: Transitions,
    generator: np.random.Generator,
) -> AdapterLearning:
    return adapters.learn(text, FramePairs.of(frames), labels, transitions, generator)


def each_frame_once(frames: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames (n, 2, F, D) as (K, D), and which of them each segment shows."""
    shown = np.arange(frames[..., 0].size).reshape(frames.shape[:3])
    return torch.from_numpy(frames).flatten(0, 2), torch.from_numpy(shown)


def accuracy(returns: FloatArray, labels: FloatArray) -> float:
    return float(((returns[:, 1] > returns[:, 0]) == labels).mean())


def test_first_losses_are_those_of_the_formulas() -> None:
    """With one update on all data, the reported losses are those before it, worked out frame by frame in numpy."""
    adapters = new(SMALL, 4)
    text, frames, labels, (before, after, actions) = data(5, 4)
    labels[0] = 0.5
    layers = [
        [(weight[0, -1].detach().numpy().copy(), bias[0, -1, 0].detach().numpy().copy()) for weight, bias in net.layers]
        for net in (adapters.networks.text, adapters.networks.image, adapters.networks.head)
    ]

    def network(index: int, x: FloatArray) -> FloatArray:
        (first, first_bias), (second, second_bias) = layers[index]
        return np.maximum(x @ first + first_bias, 0) @ second + second_bias

    def cosine(frame: FloatArray) -> float:
        one, other = network(0, text), network(1, frame)
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    preference = 0.0
    for pair, label in zip(frames, labels, strict=True):
        returns = [50 * np.mean([cosine(frame) for frame in segment]) for segment in pair]
        second = 1 / (1 + math.exp(returns[0] - returns[1]))
        preference -= (label * math.log(second) + (1 - label) * math.log(1 - second)) / 5
    dynamics = np.mean(
        [
            (network(2, np.concatenate((network(1, one), network(1, two)))) - action) ** 2
            for one, two, action in zip(before, after, actions, strict=True)
        ]
    )
    learning = learn(adapters, text, frames, labels, (before, after, actions), np.random.default_rng(1))
    assert learning.preference_loss == pytest.approx(preference, rel=1e-4)
    assert learning.dynamics_loss == pytest.approx(dynamics, rel=1e-4)


def test_accuracies_leave_out_ties_and_count_equal_returns_half() -> None:
    text, frames, labels, dynamics = data(4, 4)
    frames[0], frames[1], frames[2, 1] = text, -text, frames[2, 0]
    frames[0, 0] = frames[1, 1] = 0.1 * np.ones(4) + text[::-1]
    labels[:] = (1, 1, 1, 0.5)  # the zero-shot returns say 1, 1 and nothing
    learning = learn(new(SMALL, 4), text, frames, labels, dynamics, np.random.default_rng(1))
    assert learning.zero_shot_accuracy == pytest.approx(2.5 / 3)
    labels[1] = 0
    learning = learn(new(SMALL, 4), text, frames, labels, dynamics, np.random.default_rng(1))
    assert learning.zero_shot_accuracy == pytest.approx(1.5 / 3)


def test_inverse_dynamics_teach_the_image_side_and_preferences_both_sides() -> None:
    adapters = new(SMALL, 4)
    networks = adapters.networks
    text, frames, _, transitions = data(3, 4)
    tensors = [torch.from_numpy(each) for each in transitions]

    def reached() -> list[bool]:
        return [bool(net.gradients.any()) for net in (networks.text, networks.image, networks.head)]  # type: ignore[union-attr]

    networks.backward(networks.dynamics_loss(*tensors).sum())
    assert reached() == [False, True, True]
    networks.backward(networks.returns(torch.from_numpy(text), *each_frame_once(frames))[..., 1].sum())
    assert reached() == [True, True, False]


def test_adapters_of_a_fold_do_not_learn_from_its_pairs() -> None:
    config = dataclasses.replace(LEARNING, first_updates=5)
    text, frames, labels, dynamics = data(9, 8)
    trained = []
    for fold in (None, 0, 1, 2, 3):
        changed, changed_frames = labels.copy(), frames.copy()
        if fold is not None:
            changed[fold::4] = 1 - changed[fold::4]
            changed_frames[fold::4] += 1
        adapters = new(config, 8)
        learn(adapters, text, changed_frames, changed, dynamics, np.random.default_rng(1))
        trained.append(adapters.values[0].clone())
    for fold in range(4):
        same = [torch.equal(*models) for models in zip(trained[0], trained[fold + 1], strict=True)]
        assert same == [model == fold for model in range(5)]


def test_fifty_labels_find_the_direction_that_matters() -> None:
    adapters = new(LEARNING, 32)
    learning = learn(adapters, *worlds(50, 1, text_knows=False), np.random.default_rng(2))
    text, frames, labels, _ = worlds(1000, 3, text_knows=False)
    zero_shot = accuracy((frames @ text).sum(-1), labels)
    assert learning.accepted and abs(zero_shot - 0.5) < 0.05
    returns = adapters.returns(text, frames)
    assert accuracy(returns, labels) > 0.75
    np.testing.assert_allclose(returns[60:70], adapters.returns(text, frames[60:70]), rtol=1e-4, atol=1e-4)
    assert learning.adapted_accuracy > 0.7 > learning.zero_shot_accuracy + 0.1


def test_adapters_that_would_do_harm_are_not_used() -> None:
    """The text already points in the right direction, which 12 labels in 32 dimensions do not suffice to learn."""
    adapters = new(LEARNING, 32)
    learning = learn(adapters, *worlds(12, 1, text_knows=True), np.random.default_rng(2))
    assert not learning.accepted and learning.adapted_accuracy < learning.zero_shot_accuracy
    text, frames, labels, _ = worlds(1000, 3, text_knows=True)
    cosines = frames @ text / np.linalg.norm(frames, axis=-1)
    returns = adapters.returns(text, frames)
    np.testing.assert_allclose(returns, 50 * cosines.mean(-1), rtol=1e-4, atol=1e-4)
    adapted = adapters._adapted_returns(4, torch.from_numpy(text), *each_frame_once(frames)).numpy()
    assert accuracy(adapted, labels) < accuracy(returns, labels)


def test_inverse_dynamics_predict_the_action() -> None:
    config = dataclasses.replace(LEARNING, first_updates=400)
    adapters, seen = new(config, 32), worlds(20, 1, text_knows=False)
    learn(adapters, *seen, np.random.default_rng(2))
    later = learn(adapters, *seen, np.random.default_rng(3))
    assert later.dynamics_loss < 0.3 * seen[3][2].var()


def test_without_inverse_dynamics_the_head_is_left_alone() -> None:
    adapters = new(dataclasses.replace(SMALL, dynamics_weight=0.0), 4)
    before = adapters.networks.head.values.clone()
    text, frames, labels, _ = data(5, 4)
    nothing = np.empty((0, 4), np.float32)
    learning = learn(adapters, text, frames, labels, (nothing, nothing, nothing), np.random.default_rng(1))
    assert math.isnan(learning.dynamics_loss) and math.isfinite(learning.preference_loss)
    assert torch.equal(adapters.networks.head.values, before)


def test_residual_adapters_start_as_the_frozen_model_and_learn() -> None:
    adapters = new(dataclasses.replace(LEARNING, residual=True), 32)
    seen = worlds(50, 1, text_knows=False)
    text, frames = torch.from_numpy(seen[0]), each_frame_once(seen[1])
    raw = torch.from_numpy(adapters.returns(seen[0], seen[1]))
    torch.testing.assert_close(adapters.networks.returns(text, *frames), raw.expand(5, -1, -1), rtol=1e-4, atol=1e-4)
    learn(adapters, *seen, np.random.default_rng(2))
    text_array, frame_array, labels, _ = worlds(1000, 3, text_knows=False)
    assert adapters.accepted and accuracy(adapters.returns(text_array, frame_array), labels) > 0.75


def test_later_sessions_take_fewer_updates() -> None:
    adapters = new(dataclasses.replace(SMALL, first_updates=7, later_updates=2), 4)
    for updates in (7, 9, 11):
        learn(adapters, *data(3, 4), np.random.default_rng(1))
        assert adapters.optimizer.steps.item() == updates


def test_state_round_trip_continues_as_if_nothing_had_happened() -> None:
    seen = worlds(20, 1, text_knows=False)
    one, other = new(LEARNING, 32, seed=0), new(LEARNING, 32, seed=1)
    learn(one, *seen, np.random.default_rng(2))
    other.load({name: tensor.clone() for name, tensor in one.state().items()})
    assert other.accepted == one.accepted
    assert learn(one, *seen, np.random.default_rng(3)) == learn(other, *seen, np.random.default_rng(3))
    assert torch.equal(one.values, other.values)


def test_adapters_transfer_to_another_run_that_fits(tmp_path: Path) -> None:
    adapters = new(LEARNING, 32)
    learn(adapters, *worlds(50, 1, text_knows=False), np.random.default_rng(2))
    path = tmp_path / "adapters.safetensors"
    adapters.save(path, "liv-1")
    again = Adapters.read(path, "liv-1", LEARNING, 32, 4, CPU)
    text, frames, _, _ = worlds(20, 3, text_knows=False)
    np.testing.assert_array_equal(again.returns(text, frames), adapters.returns(text, frames))
    assert again.accepted and not again.optimizer.steps.any()
    with pytest.raises(PrefVLMError, match="backbone 'liv-1', but this run needs 'liv-2'"):
        Adapters.read(path, "liv-2", LEARNING, 32, 4, CPU)
    with pytest.raises(PrefVLMError, match=r"networks 'plain 32-64-16, .* but this run needs 'residual 32-64-32, "):
        Adapters.read(path, "liv-1", dataclasses.replace(LEARNING, residual=True), 32, 4, CPU)
    write_tensors(path, {"actor": torch.zeros(1)}, {})
    with pytest.raises(PrefVLMError, match="backbone 'None'"):
        Adapters.read(path, "liv-1", LEARNING, 32, 4, CPU)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"values": None}, "The tensor values is missing"),
        ({"values": torch.zeros(1)}, r"The tensor values is torch.float32 \(1,\), expected was"),
        ({"values": "int64"}, r"The tensor values is torch.int64"),
        ({"accepted": torch.ones(())}, r"The tensor accepted is torch.float32"),
        ({"values": "nan"}, "it holds NaN or infinity"),
        ({"more": torch.zeros(1)}, "The tensor more is not expected"),
    ],
)
def test_stored_adapters_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "adapters.safetensors"
    new(LEARNING, 32).save(path, "liv-1")
    tensors, metadata, _ = read_tensors(path)
    special = {"int64": tensors["values"].long(), "nan": tensors["values"] * float("nan")}
    tensors |= {name: special.get(value, value) if isinstance(value, str) else value for name, value in changes.items()}
    write_tensors(path, {name: each for name, each in tensors.items() if each is not None}, metadata)
    with pytest.raises(PrefVLMError, match=rf"adapters.safetensors is damaged \({words}"):
        Adapters.read(path, "liv-1", LEARNING, 32, 4, CPU)


def test_wrong_input_is_refused() -> None:
    adapters = new(SMALL, 4)
    text, frames, labels, dynamics = data(3, 4)
    nan = np.full_like(frames, np.nan)
    generator = np.random.default_rng(0)
    for use in (lambda: adapters.returns(text, nan), lambda: learn(adapters, text, nan, labels, dynamics, generator)):
        with pytest.raises(PrefVLMError, match="hold NaN or infinity"):
            use()
    with pytest.raises(PrefVLMError, match=r"take text \(4,\) and frames \(n, 2, F, 4\) or \(K, 4\), got \(3,\)"):
        adapters.returns(text[:3], frames)
    with pytest.raises(PrefVLMError, match=r"got \(4,\) and \(3, 1, 3, 4\)"):
        adapters.returns(text, frames[:, :1])
    for wrong in (labels[:2], np.full(3, 0.3, np.float32)):
        with pytest.raises(PrefVLMError, match="one label 0, 1/2 or 1 for each"):
            learn(adapters, text, frames, wrong, dynamics, generator)
    with pytest.raises(PrefVLMError, match="at least one pair"):
        learn(adapters, text, frames[:0], labels[:0], dynamics, generator)
    for transitions in (
        (dynamics[0], dynamics[1][:2], dynamics[2]),
        (dynamics[0], dynamics[1], dynamics[2][:, :3]),
        (dynamics[0][:0], dynamics[1][:0], dynamics[2][:0]),
    ):
        with pytest.raises(PrefVLMError, match="Inverse dynamics take at least one"):
            learn(adapters, text, frames, labels, transitions, generator)
    with pytest.raises(PrefVLMError, match="for inverse dynamics hold NaN"):
        learn(adapters, text, frames, labels, (dynamics[0], dynamics[1], dynamics[2] * np.nan), generator)
