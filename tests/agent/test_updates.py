"""Tests of drawing for updates and of making them, as on the CPU and as on a GPU."""

import numpy as np
import pytest
import torch
from builders.devices import needs_gpu

from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import SAC
from prefvlm_core.agent.updates import DeviceUpdates, HostUpdates, Updates, make_updates
from prefvlm_core.common.seeding import Generators, Stream
from prefvlm_core.config.run import SACConfig

CPU = torch.device("cpu")
CONFIG = SACConfig(hidden_layers=2, width=16, batch_size=32, standardise=True, critic_norm=True)
SEEDS = [3, 5, 7]


def fleet(device: torch.device = CPU, seeds: list[int] = SEEDS) -> tuple[SAC, Replay]:
    """Agents and a replay of 40 of at most 60 steps; each run's numbers depend on its seed alone."""
    replay = Replay(len(seeds), 60, 10, 6, 2, 1, 1, device)
    for run, seed in enumerate(seeds):
        numbers = torch.Generator().manual_seed(seed)
        for tensor in (replay.observations, replay.actions, replay.rewards):
            tensor[run] = torch.empty(tensor.shape[1:]).uniform_(-1, 1, generator=numbers)
    replay.size = 40
    generators = [np.random.default_rng(seed) for seed in seeds]
    agent = SAC.create(CONFIG, 6, 2, generators, device, [0.1] * len(seeds))
    agent.observe(replay.observations[:, 0])
    return agent, replay


def learn(updates: Updates, first: int, last: int) -> None:
    for number in range(first, last):
        updates.draw(number)
        updates.update(number % 2 == 0)


def test_the_device_decides() -> None:
    agent, replay = fleet()
    assert isinstance(make_updates(agent, replay, Generators(SEEDS), SEEDS), HostUpdates)


def test_the_host_draws_what_the_runs_generators_give() -> None:
    agent, replay = fleet()
    updates = HostUpdates(agent, replay, Generators(SEEDS))
    generators = Generators(SEEDS)[Stream.LEARNING]
    for _ in range(2):
        drawn = updates.draw(0)
        batch, noise = drawn.batch, drawn.noise
        wanted = replay.sample(generators, CONFIG.batch_size)
        assert all(map(torch.equal, batch, wanted)) and torch.equal(noise, agent.update_noise(generators))
    alone = updates.draw_of_run(1, 0)
    assert torch.equal(alone.batch.actions, replay.of_run(1).sample(generators[1], CONFIG.batch_size).actions)
    assert torch.equal(alone.noise, agent.update_noise(generators[1:2]))


def test_an_update_learns_from_what_was_drawn_and_rewritten_since() -> None:
    agent, replay = fleet()
    updates, (plain, _) = DeviceUpdates(agent, replay, SEEDS), fleet()
    for number in range(3):
        drawn = updates.draw(number)
        batch, noise = drawn.batch, drawn.noise
        batch.rewards[1] = 7.0
        plain.update(batch, noise, update_target=number == 1)
        updates.update(update_target=number == 1)
    assert all(map(torch.equal, agent.state().values(), plain.state().values()))


def test_a_run_learns_the_same_alone_and_in_a_fleet() -> None:
    agent, replay = fleet()
    learn(DeviceUpdates(agent, replay, SEEDS), 0, 5)
    alone, its_replay = fleet(seeds=SEEDS[1:2])
    learn(DeviceUpdates(alone, its_replay, SEEDS[1:2]), 0, 5)
    torch.testing.assert_close(alone.critic.values[0], agent.critic.values[1], rtol=1e-5, atol=1e-6)


def test_updates_go_on_from_copied_state_as_if_nothing_had_been() -> None:
    agent, replay = fleet()
    updates = DeviceUpdates(agent, replay, SEEDS)
    learn(updates, 0, 4)
    stored = {name: tensor.clone() for name, tensor in agent.state().items()}
    learn(updates, 4, 8)
    other, its_replay = fleet()
    for name, tensor in other.state().items():
        tensor.copy_(stored[name])
    learn(DeviceUpdates(other, its_replay, SEEDS), 4, 8)
    assert all(map(torch.equal, agent.state().values(), other.state().values()))


def test_only_complete_episodes_are_drawn_where_rewards_come_late() -> None:
    agent, replay = fleet()
    replay.size, replay.rewarded_by_episode = 45, frozenset({2})
    replay.actions[:, :, 0] = torch.arange(60.0)
    updates = DeviceUpdates(agent, replay, SEEDS)
    many = torch.cat([updates.draw(number).batch.actions[..., 0].clone() for number in range(60)], 1)
    assert many.amax(1).tolist() == [44, 44, 39] and many.amin(1).tolist() == [0, 0, 0]
    own = torch.cat([updates.draw_of_run(2, number).batch.actions[..., 0] for number in range(60)], 1)
    assert own.max() == 39 and own.min() == 0 and not torch.equal(own[0], many[2])


def test_what_was_drawn_stays_where_it_is_and_belongs_together() -> None:
    agent, replay = fleet()
    updates = DeviceUpdates(agent, replay, SEEDS)
    first = updates.draw(0)
    before = first.batch.actions.clone()
    second = updates.draw(1)
    assert second.batch.actions is first.batch.actions and not torch.equal(before, second.batch.actions)
    distance = (replay.actions[0].unsqueeze(0) - second.batch.actions[0].unsqueeze(1)).abs().sum(-1)
    steps = distance.argmin(1)
    wanted = replay.of_run(0).transitions(steps.unsqueeze(0))
    assert all(torch.equal(one[0], each[0]) for one, each in zip(wanted, second.batch, strict=True))


@needs_gpu
@pytest.mark.parametrize("kind", ["captured", "eager"])
def test_a_gpu_learns_what_the_cpu_learns(kind: str) -> None:
    """Also after a critic was reset, an observation was noted and a state was restored, all of them in place."""
    learned = []
    for device in (CPU, torch.device("cuda")):
        agent, replay = fleet(device)
        both = HostUpdates(agent, replay, Generators(SEEDS)), DeviceUpdates(agent, replay, SEEDS)
        updates = both[kind == "captured"]
        learn(updates, 0, 6)
        stored = {name: tensor.clone() for name, tensor in agent.state().items()}
        agent.of_run(1).reset_critic(np.random.default_rng(1))
        agent.observe(replay.observations[:, 1])
        replay.size = 50
        learn(updates, 6, 12)
        for name, tensor in agent.state().items():
            tensor[:1].copy_(stored[name][:1])
        learn(updates, 12, 16)
        learned.append({name: tensor.cpu() for name, tensor in agent.state().items()})
    for name, wanted in learned[0].items():
        torch.testing.assert_close(learned[1][name], wanted, rtol=1e-3, atol=1e-4)
