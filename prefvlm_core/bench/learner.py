"""Learning speed of one run and of a fleet beside stable-baselines3, plain PyTorch and bare matrix products, and memory
of the replay."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import SAC
from prefvlm_core.bench import Group, Measurement
from prefvlm_core.bench.peers import (
    PLAIN,
    STABLE_BASELINES,
    gym_environment,
    has_stable_baselines,
    plain_sac,
    stable_baselines,
)
from prefvlm_core.bench.products import gigaflop, multiply, products_of
from prefvlm_core.bench.rounds import Speeds, compared, seconds_of, wall_seconds
from prefvlm_core.common.machine import one_thread
from prefvlm_core.config.run import Execution
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.methods import run_config
from prefvlm_core.train import train

TASK = "button-press-v3"
FLEET = 16
RANDOM_STEPS = 50
QUICK = {"rounds": 3, "updates": 64, "loops": 2, "steps": 400}
_CONFIG = run_config(TASK, "sac", 0, "quick", {"exploration.random_steps": RANDOM_STEPS})


@one_thread()
def measure(rounds: int = 5, updates: int = 160, loops: int = 3, steps: int = 1_500) -> Group:
    """Updates alone, in `rounds`, and whole trainings of `steps` actions, in `loops` rounds; a fleet makes an eighth of
    the updates and half of the steps.

    All have networks, batch, action repeat and update ratio of profile `quick`, and one torch thread. Takes six minutes
    on two slow cores, a quick one less than one.
    """
    rows, limit = _update_rows(rounds, updates)
    rows += [*_loop_rows(loops, steps), _replay_memory()]
    without = f"Skipped: {STABLE_BASELINES}, which is not installed: pip install 'prefvlm[dev]'."
    return Group(rows, limit, () if has_stable_baselines() else (without,))


def _update_rows(rounds: int, updates: int) -> tuple[list[Measurement], str]:
    """Drawing a batch and one gradient step beside others, and what their matrix products alone take."""
    few = updates // 8
    products = products_of(our_updates(1, 1))
    works: dict[str, tuple[Callable[[], object], int]] = {
        "one": (our_updates(1, updates), updates),
        "fleet": (our_updates(FLEET, few), FLEET * few),
        PLAIN: (_plain_updates(updates), updates),
        "products": (multiply(products * updates), updates),
    }
    if has_stable_baselines():
        works[STABLE_BASELINES] = _stable_baselines_updates(updates), updates
    seconds = seconds_of([work for work, _ in works.values()], rounds)
    speeds = {name: count / spent for (name, (_, count)), spent in zip(works.items(), seconds, strict=True)}
    one, fleet, limit, unit = speeds["one"], speeds["fleet"], speeds["products"], "run-updates/s"
    together = f"updates, fleet of {FLEET}"
    size = gigaflop(products)
    rows = [
        *_beside_peers("updates, one run", unit, one, speeds),
        *_beside_peers(together, unit, fleet, speeds),
        compared(together, unit, fleet, one, "one run of ours", "≥ 3"),
        compared("updates, one run, to the limit", "GFLOP/s", size * one, size * limit, "torch.mm"),
        compared(f"{together}, to the limit", "GFLOP/s", size * fleet, size * limit, "torch.mm"),
    ]
    alone, shared = (f"{100 * float(np.median(speed / limit)):.0f} %" for speed in (one, fleet))
    return rows, f"Of an update's time, its matrix products alone take {alone} in one run and {shared} in a fleet."


def _loop_rows(rounds: int, steps: int) -> list[Measurement]:
    """Environment and learner together beside others."""
    loops: dict[str, Callable[[], float]] = {
        "one": lambda: our_loop(1, steps),
        "fleet": lambda: our_loop(FLEET, steps // 2),
        PLAIN: lambda: _plain_loop(steps),
    }
    if has_stable_baselines():
        loops[STABLE_BASELINES] = lambda: _stable_baselines_loop(steps)
    taken = [[loop() for loop in loops.values()] for _ in range(rounds)]
    speeds = dict(zip(loops, np.array(taken).T, strict=True))
    unit, together = "run-steps/s", f"training loop, fleet of {FLEET}"
    return [
        *_beside_peers("training loop, one run", unit, speeds["one"], speeds, "≥ 1.3"),
        *_beside_peers(together, unit, speeds["fleet"], speeds, "≥ 4"),
    ]


def _beside_peers(
    name: str, unit: str, ours: Speeds, speeds: Mapping[str, Speeds], target: str = ""
) -> list[Measurement]:
    peers = [peer for peer in (STABLE_BASELINES, PLAIN) if peer in speeds]
    return [compared(name, unit, ours, speeds[peer], peer, target) for peer in peers]


class Learner(NamedTuple):
    """A fleet of agents and the replay from which they learn."""

    agent: SAC
    replay: Replay
    generators: list[np.random.Generator]

    @classmethod
    def create(cls, runs: int, device: torch.device, profile: str = "quick") -> Learner:
        """Fresh agents of a profile and a replay of random numbers, the same on every device."""
        replay, sac = _replay(runs, 20 * _CONFIG.horizon, device), run_config(TASK, "sac", 0, profile).sac
        numbers = torch.Generator().manual_seed(0)
        for tensor in (replay.observations, replay.actions, replay.rewards):
            tensor.copy_(torch.empty(tensor.shape).uniform_(-1, 1, generator=numbers))
        replay.size = replay.actions.shape[1]
        generators = [np.random.default_rng(run) for run in range(runs)]
        sizes = replay.observations.shape[-1], replay.actions.shape[-1]
        return cls(SAC.create(sac, *sizes, generators, device, [sac.initial_temperature] * runs), replay, generators)

    def learn(self, updates: int) -> None:
        """Draw a batch and make one gradient step, so many times."""
        sac = self.agent.config
        for update in range(1, updates + 1):
            batch = self.replay.sample(self.generators, sac.batch_size)
            noise = self.agent.update_noise(self.generators)
            self.agent.update(batch, noise, update % sac.target_update_every == 0)


def our_updates(runs: int, updates: int) -> Callable[[], None]:
    """Makes `updates` of a fleet of `runs` on the CPU."""
    return partial(Learner.create(runs, torch.device("cpu")).learn, updates)


def _plain_updates(updates: int) -> Callable[[], None]:
    agent = plain_sac(_CONFIG, RANDOM_STEPS)
    agent.train(gym_environment(_CONFIG), RANDOM_STEPS, RANDOM_STEPS)  # which fills the replay
    return lambda: agent.learn(updates)


def _stable_baselines_updates(updates: int) -> Callable[[], None]:
    agent = stable_baselines(_CONFIG, RANDOM_STEPS)
    agent.learn(RANDOM_STEPS)  # which fills the replay
    return lambda: agent.train(updates, _CONFIG.sac.batch_size)


def our_loop(runs: int, steps: int, device: str = "cpu") -> float:
    """Run-steps per second of training a fleet of `runs` for `steps` actions, evaluation left out."""
    changes = {"total_steps": steps, "evaluation.every": steps, "evaluation.final_episodes": 1}
    changes["exploration.random_steps"] = RANDOM_STEPS
    configs = [run_config(TASK, "sac", seed, "quick", changes) for seed in range(runs)]
    with tempfile.TemporaryDirectory() as results:
        last = train(configs, Execution(results=results, device=device, progress=False))[0].read_metrics()[-1]
    return runs * steps / (last["seconds"] - last["seconds_evaluation"])


def _plain_loop(steps: int) -> float:
    agent, environment = plain_sac(_CONFIG, steps), gym_environment(_CONFIG)
    return steps / wall_seconds(lambda: agent.train(environment, steps, RANDOM_STEPS))


def _stable_baselines_loop(steps: int) -> float:
    agent = stable_baselines(_CONFIG, steps)
    return steps / wall_seconds(lambda: agent.learn(steps))


def _replay(runs: int, steps: int, device: torch.device) -> Replay:
    environment = Environment(TASK)
    environment.reset(0)
    sizes = sizes_of(TASK)
    drawn = environment.snapshot().size, environment.scene().size
    return Replay(runs, steps, _CONFIG.horizon, sizes.observation, sizes.action, *drawn, device)


def _replay_memory() -> Measurement:
    replay = _replay(1, _CONFIG.total_steps, torch.device("cpu"))
    tensors = (replay.observations, replay.actions, replay.true_rewards, replay.rewards)
    size = sum(tensor.nbytes for tensor in tensors) + replay.snapshots.nbytes + replay.scenes.nbytes
    return Measurement("replay memory, snapshot included", "B per run-step", size / _CONFIG.total_steps, target="≤ 700")
