"""Episodes to look at: a stored policy and learned reward against networks multiplied out by hand."""

import itertools
from contextlib import closing

import numpy as np
from builders.explore import RESULTS, words

from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import perturbation_of
from prefvlm_core.explore import films
from prefvlm_core.explore.episodes import EpisodeExplorer, scaled
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import read_tensors
from prefvlm_core.vlm import load
from prefvlm_core.vlm.pretraining.recordings import record

TASK = "button-press-v3"


def layers(parameters: np.ndarray, sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (in, out) and biases of a stored network, in the order of its parameters."""
    found, at = [], 0
    for inputs, outputs in itertools.pairwise(sizes):
        weight = parameters[at : at + inputs * outputs].reshape(inputs, outputs)
        at += inputs * outputs
        found.append((weight, parameters[at : at + outputs]))
        at += outputs
    assert at == len(parameters)
    return found


def test_the_policy_acts_as_its_stored_network_says(kept: RunDirectory) -> None:
    played = films.play_behavior(TASK, films.POLICY, 3, kept)
    actor = read_tensors(kept.path / "weights.safetensors").tensors["actor"].numpy()[0]
    hidden = played.observations[::5].astype(np.float64)
    *inner, (weight, bias) = layers(actor, [39, *[kept.config.sac.width] * kept.config.sac.hidden_layers, 8])
    for inner_weight, inner_bias in inner:
        hidden = np.maximum(hidden @ inner_weight + inner_bias, 0)
    wanted = np.tanh((hidden @ weight + bias)[:, :4])
    assert kept.config.action_repeat == 5 and np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(played.episodes.actions[0], np.repeat(wanted, 5, axis=0), atol=1e-5)
    assert not played.observations[:, -3:].any()  # the goal is hidden, as in training


def test_the_learned_reward_is_that_of_the_stored_ensemble(kept: RunDirectory) -> None:
    played = films.play_behavior(TASK, films.NOISY, 3)
    members = read_tensors(kept.path / "weights.safetensors").tensors["reward"].numpy()
    seen = played.observations[::5].astype(np.float64)
    moved = [seen[:, 4:7] - seen[:, 0:3], seen[:, 4:7] - seen[:, 22:25]]  # from hand to object; the object in one step
    lengths = [np.linalg.norm(vector, axis=1, keepdims=True) for vector in moved]
    inputs = np.concatenate((seen, moved[0], lengths[0], moved[1], lengths[1]), axis=1)
    sizes = [47, *[kept.config.reward.width] * kept.config.reward.hidden_layers, 1]
    outputs = []
    for parameters in members:
        hidden = inputs
        *inner, (weight, bias) = layers(parameters, sizes)
        for inner_weight, inner_bias in inner:
            hidden = hidden @ inner_weight + inner_bias
            hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
        outputs.append(np.tanh(hidden @ weight + bias)[:, 0])
    assert len(outputs) == 3 and kept.config.reward.inputs == "relations"
    learned = films.learned_rewards(kept, played)
    assert learned is not None
    np.testing.assert_allclose(learned, np.mean(outputs, axis=0), atol=1e-5)


def test_scores_are_those_of_the_frames_that_the_camera_sees(kept: RunDirectory) -> None:
    model, camera = load("tinyliv2"), films.Camera(64)
    played = films.play_behavior(TASK, films.EXPERT, 7, None)
    recording = record(TASK, [(Expert(TASK, 0.0, np.random.default_rng(0)), 7)])
    frames = camera.see(played.episodes, slice(None), perturbation_of("noise", "mild"))
    assert not np.array_equal(frames, recording.frames[0])
    frames = camera.see(played.episodes, slice(None), films.CLEAN)
    np.testing.assert_array_equal(frames, recording.frames[0])
    table = films.scores(played, frames, model, kept)
    assert list(table) == [films.ZERO_SHOT, films.ADAPTED, films.LEARNED, films.TRUE]
    assert list(table.index[:2]) == [5, 10] and len(table) == 40
    text, features = model.encode_task(TASK), model.encode_image(recording.frames[0])
    np.testing.assert_allclose(table[films.ZERO_SHOT], features @ text, atol=1e-6)
    np.testing.assert_allclose(table[films.TRUE], recording.rewards[0, 4::5])
    adapters = films.adapters_of(kept, model, len(text))
    assert adapters is not None
    segments = np.stack((features[:10], features[20:30]))[None]  # returns are 50 x the mean cosine of a segment
    by_frames = [50 * table[films.ADAPTED].iloc[first : first + 10].mean() for first in (0, 20)]
    np.testing.assert_allclose(adapters.returns(text, segments)[0], by_frames, rtol=1e-4)
    assert films.adapters_of(kept, load("tinyliv"), len(text)) is None


def test_a_disturbed_scene_is_the_renderers() -> None:
    played = films.play_behavior(TASK, films.RANDOM, 1)
    scene = perturbation_of("light", "strong", 4)
    seen = films.Camera(64).see(played.episodes, slice(9, 10), scene)
    with closing(FrameRenderer(TASK, 64, perturbation=scene)) as renderer:
        wanted = renderer.render(played.episodes.snapshots[0, 9:10], played.episodes.scenes)
    np.testing.assert_array_equal(seen, wanted)


def test_without_run_folders_no_policy_is_offered() -> None:
    explorer = EpisodeExplorer("laptop", RESULTS)
    assert explorer.run.options == ("no run",) and explorer.run.layout.display == "none"
    assert explorer.behavior.options == (films.EXPERT, films.NOISY, films.RANDOM)
    assert "published tables hold none" in words(explorer.words.value)
    first, numbers = explorer.frame.value, words(explorer.numbers.value)
    explorer.step.value = 100
    shown = words(explorer.numbers.value)
    assert "step 100" in shown and shown != numbers and explorer.frame.value != first
    true = explorer._played.episodes.rewards[0, 99]
    assert f"true reward {true:.3f}" in shown
    explorer.factor.value = "color"
    assert words(explorer.numbers.value) != shown  # the VLM sees the disturbed scene


def test_with_a_run_folder_its_policy_and_its_rewards_are_offered(kept: RunDirectory) -> None:
    explorer = EpisodeExplorer("quick", kept.path.parents[3])
    explorer.task.value = TASK
    assert len(explorer.run.options) == 2
    explorer.run.value = explorer.run.options[1]
    explorer.behavior.value = films.POLICY
    assert explorer.model.value == kept.config.vlm.model
    played = films.play_behavior(TASK, films.POLICY, 0, kept)
    np.testing.assert_array_equal(explorer._played.episodes.actions, played.episodes.actions)
    assert list(explorer._scores) == list(films.SCORES)
    values = scaled(explorer._scores)
    assert values.min().min() == 0 and values.max().max() == 1
    explorer.run.value = explorer.run.options[0]
    assert explorer.behavior.value == films.EXPERT and list(explorer._scores) == [films.ZERO_SHOT, films.TRUE]
