"""Tests of the numbers that updates draw on a device: against SplitMix64 in plain integers, and their distributions."""

import numpy as np
import pytest
import torch
from builders.devices import needs_gpu
from scipy import stats

from prefvlm_core.agent.draws import CounterDraws, mixed
from prefvlm_core.common.seeding import Stream, key

CPU = torch.device("cpu")
WRAP = 1 << 64


def splitmix64(state: int, count: int) -> list[int]:
    """Written out with Python's integers, as in Vigna's public-domain description."""
    drawn = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WRAP
        number = state
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % WRAP
        number = (number ^ (number >> 27)) * 0x94D049BB133111EB % WRAP
        drawn.append(number ^ (number >> 31))
    return drawn


def drawn(keys: list[int], update: int, steps: list[int], batch: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
    draws = CounterDraws(keys, batch, 4, CPU)
    return draws(torch.tensor(update), torch.tensor(steps).unsqueeze(1))


KEYS = [key(seed, Stream.LEARNING) for seed in range(3)]


def test_the_bits_are_those_of_splitmix64() -> None:
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # its published first numbers
    states = [0x9E3779B97F4A7C15 * n % WRAP for n in range(1, 6)]
    signed = torch.from_numpy(np.array(states, np.uint64).view(np.int64))
    assert mixed(signed).numpy().view(np.uint64).tolist() == splitmix64(0, 5)


def test_an_update_draws_from_the_stream_that_its_key_and_number_name() -> None:
    for update in (0, 1, 10**6):
        start = splitmix64((KEYS[1] + 0x9E3779B97F4A7C15 * (update - 1)) % WRAP, 1)[0]  # mixes the key plus update
        bits = splitmix64(start, 8 * 5)
        steps, noise = drawn(KEYS, update, [7, 1000, 9], batch=8)
        assert steps[1].tolist() == [(number >> 32) * 1000 >> 32 for number in bits[:8]]
        upper, lower = (np.array([number >> 32 for number in bits[8:]]), np.array([n % 2**32 for n in bits[8:]]))
        radius, angle = np.sqrt(-2 * np.log((upper + 0.5) / 2**32)), 2 * np.pi * lower / 2**32
        wanted = np.stack((radius * np.cos(angle), radius * np.sin(angle))).reshape(2, 8, 4)
        np.testing.assert_allclose(noise[:, 1].numpy(), wanted, atol=2e-6)


def test_steps_are_uniform_and_noise_is_normal() -> None:
    many = [drawn(KEYS[:1], update, [60]) for update in range(200)]
    steps = torch.cat([each[0] for each in many]).flatten()
    assert steps.min() == 0 and steps.max() == 59
    assert stats.chisquare(torch.bincount(steps, minlength=60)).pvalue > 0.01
    noise = torch.stack([each[1] for each in many]).double().numpy()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    columns = noise.transpose(1, 4, 0, 2, 3).reshape(8, -1)  # the critics' and the actor's, of 4 numbers each
    correlation = np.corrcoef(columns) - np.eye(8)
    assert np.abs(correlation).max() < 4 / np.sqrt(columns.shape[1])
    assert np.abs(np.corrcoef(columns**2) - np.eye(8)).max() < 4 / np.sqrt(columns.shape[1])
    assert np.abs(noise).max() > 4.5  # the tails are there


@pytest.mark.parametrize("shift", [0, 1])
def test_runs_and_updates_are_independent(shift: int) -> None:
    first = torch.stack([drawn(KEYS, update, [1 << 30] * 3)[0] for update in range(100)]).double().numpy()
    streams = first.transpose(1, 0, 2)
    if shift:  # an update and the one before it
        pairs = [(stream[1:].ravel(), stream[:-1].ravel()) for stream in streams]
    else:
        pairs = [(streams[a].ravel(), streams[b].ravel()) for a, b in ((0, 1), (0, 2), (1, 2))]
    for one, other in pairs:
        assert stats.pearsonr(one, other).pvalue > 0.01
        assert not np.isin(one, other).all()


def test_a_run_draws_the_same_in_every_fleet_and_at_every_time() -> None:
    steps, noise = drawn(KEYS, 41, [50, 60, 70])
    alone = drawn([KEYS[2]], 41, [70])
    assert torch.equal(alone[0][0], steps[2]) and torch.equal(alone[1][:, 0], noise[:, 2])
    again = drawn(KEYS[::-1], 41, [70, 60, 50])
    assert torch.equal(again[0].flip(0), steps) and torch.equal(again[1].flip(1), noise)


def test_every_run_draws_from_its_own_number_of_steps_up_to_millions() -> None:
    steps, _ = drawn(KEYS, 3, [1, 5, 2_000_000], batch=20_000)
    assert steps[0].max() == 0 and steps[1].unique().tolist() == [0, 1, 2, 3, 4]
    assert 1_999_000 < steps[2].max() < 2_000_000 and 0 <= steps[2].min() < 1_000


@needs_gpu
def test_a_gpu_draws_the_same() -> None:
    there = CounterDraws(KEYS, 512, 4, torch.device("cuda"))
    number, counts = torch.tensor(9), torch.tensor([[7], [1000], [10**6]])
    steps, noise = there(number.cuda(), counts.cuda())
    wanted = CounterDraws(KEYS, 512, 4, CPU)(number, counts)
    assert torch.equal(steps.cpu(), wanted[0])
    torch.testing.assert_close(noise.cpu(), wanted[1], rtol=1e-5, atol=1e-5)
