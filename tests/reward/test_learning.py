"""Tests of reward learning of several runs at once: each learns what it learns alone."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from builders.rewards import CONFIG, CPU, LENGTH

from prefvlm_core.agent.replay import Replay
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward import learning
from prefvlm_core.reward.ensemble import Minibatch, RewardEnsemble
from prefvlm_core.reward.learning import Learning, learn_together, one_pass

RUNS, EPISODES, HORIZON = 4, 6, 20


def replay() -> Replay:
    """Random steps of four runs."""
    kept = Replay(RUNS, EPISODES * HORIZON, HORIZON, 4, 2, 1, 1, CPU)
    generator = torch.Generator().manual_seed(0)
    for tensor in (kept.observations, kept.actions):
        tensor.normal_(generator=generator)
    kept.size = EPISODES * HORIZON
    return kept


def ensemble() -> RewardEnsemble:
    members = RewardEnsemble(CONFIG, 6, [np.random.default_rng(run) for run in range(RUNS)], CPU, "drawer-close-v3")
    for run in range(RUNS):
        members.of_run(run).standardise(replay().of_run(run))
    return members


def labels(run: int, count: int, reliability: float | None) -> PreferenceBuffer:
    generator = np.random.default_rng(run)
    starts = replay().of_run(run).draw_segments(generator, count, LENGTH, EPISODES)
    trusted = None if reliability is None else np.full(count, reliability, np.float32)
    return PreferenceBuffer(starts, generator.integers(0, 2, count).astype(np.float32), reliability=trusted)


def passes(run: int, buffer: PreferenceBuffer, epochs: int, scale: float) -> Learning[list[float]]:
    generator, accuracies = np.random.default_rng(run), []
    for _ in range(epochs):
        accuracies.append((yield from one_pass(buffer, CONFIG, LENGTH, generator, CPU, scale)))
    return accuracies


@pytest.mark.parametrize(
    ("counts", "epochs", "reliability", "scales"),
    [
        ([70, 70, 70, 70], [3, 3, 3, 3], [None] * 4, [1.0] * 4),  # all in step
        ([70, 33, 97, 64], [2, 5, 1, 3], [None] * 4, [1.0] * 4),  # last minibatches of other sizes, ends at other times
        ([64, 64, 64, 64], [2, 2, 2, 2], [None, 0.9, None, 0.8], [1.0] * 4),  # kinds that lie apart in the fleet
        ([64, 64, 64, 64], [2, 2, 2, 2], [None] * 4, [1.0, 0.5, 1.0, 0.5]),
    ],
)
def test_runs_that_learn_at_once_learn_what_they_learn_alone(
    counts: Sequence[int],
    epochs: Sequence[int],
    reliability: Sequence[float | None],
    scales: Sequence[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes, ensembles = [], []
    monkeypatch.setattr(learning, "_AT_ONCE", 3)
    for at_once in (False, True):
        learnings = {
            run: passes(run, labels(run, counts[run], reliability[run]), epochs[run], scales[run])
            for run in range(RUNS)
        }
        ensembles.append(ensemble())
        outcomes.append(learn_together(ensembles[-1], replay(), learnings, at_once))
    assert outcomes[0] == outcomes[1] and [len(outcomes[0][run]) for run in range(RUNS)] == epochs
    for name, alone in ensembles[0].state().items():
        torch.testing.assert_close(ensembles[1].state()[name], alone, rtol=2e-4, atol=2e-6)
    assert ensembles[0].optimizer.steps.flatten().tolist() == [
        count * -(-size // CONFIG.batch_size) for size, count in zip(counts, epochs, strict=True)
    ]


@pytest.mark.parametrize("runs", [[1], [1, 2], [0, 3], [3, 1]])
def test_only_the_runs_that_learn_change_and_the_loss_is_that_of_their_own_pairs(runs: list[int]) -> None:
    members, kept = ensemble(), replay()
    before = {name: tensor.clone() for name, tensor in members.state().items()}
    batches = {run: labels(run, 8, None) for run in runs}
    starts = {run: torch.from_numpy(buffer.starts).expand(CONFIG.members, -1, -1) for run, buffer in batches.items()}
    wanted = {run: torch.from_numpy(buffer.labels).expand(CONFIG.members, -1) for run, buffer in batches.items()}
    expected = [
        members.of_run(run).segment_rewards(kept.of_run(run), starts[run], LENGTH).sum(-1).diff(dim=-1)[..., 0].detach()
        for run in runs
    ]
    minibatches = {run: Minibatch(starts[run], wanted[run], None, LENGTH, 1.0) for run in runs}
    torch.testing.assert_close(members.learn(kept, minibatches), torch.stack(expected))
    for run in range(RUNS):
        same = [torch.equal(members.state()[name][run], before[name][run]) for name in before if name != "scaling"]
        assert not any(same) if run in runs else all(same)
    assert torch.equal(members.scaling, before["scaling"])


def test_runs_without_labels_learn_nothing() -> None:
    assert learn_together(ensemble(), replay(), {0: passes(0, labels(0, 4, None), 0, 1.0)}, True) == {0: []}
    assert learn_together(ensemble(), replay(), {}) == {}
