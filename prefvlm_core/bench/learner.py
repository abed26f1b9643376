"""Learning speed of a fleet compared with one run, speed of the training loop compared with stable-baselines3, and
memory of the replay."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings

import numpy as np
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.bench import Measurement
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.tasks import ACTION_SIZE, OBSERVATION_SIZE
from prefvlm_core.methods import run_config
from prefvlm_core.train import train

TASK = "button-press-v3"
FLEET = 16
ROUNDS = 3


def measure() -> list[Measurement]:
    """All measurements, in about three minutes on two slow cores, with one torch thread unless a row says otherwise."""
    torch.set_num_threads(1)
    return [*_updates(), *_whole_loop(), _replay_memory()]


def _updates() -> list[Measurement]:
    """Gradient updates alone, with networks and batch of profile `quick`; fleet and single run take turns."""
    config = run_config(TASK, "sac", 0, "quick").sac

    def speed(runs: int, updates: int, threads: int = 1) -> float:
        torch.set_num_threads(threads)
        agent = SAC.create(
            config,
            OBSERVATION_SIZE,
            ACTION_SIZE,
            [np.random.default_rng(run) for run in range(runs)],
            torch.device("cpu"),
            [config.initial_temperature] * runs,
        )
        size = config.batch_size
        batch = Batch(
            torch.randn(runs, size, OBSERVATION_SIZE),
            torch.rand(runs, size, ACTION_SIZE),
            torch.randn(runs, size),
            torch.randn(runs, size, OBSERVATION_SIZE),
        )
        noise = torch.randn(2, runs, size, ACTION_SIZE)
        for _ in range(5):
            agent.update(batch, noise, True)
        start = time.perf_counter()
        for update in range(updates):
            agent.update(batch, noise, update % config.target_update_every == 0)
        seconds = time.perf_counter() - start
        torch.set_num_threads(1)
        return runs * updates / seconds

    cores = os.cpu_count() or 1
    rounds = [(speed(1, 400), speed(FLEET, 50), speed(FLEET, 50, cores)) for _ in range(ROUNDS)]
    single, fleet, _ = (statistics.median(speeds) for speeds in zip(*rounds, strict=True))
    ratio = statistics.median(many / one for one, many, _ in rounds)
    threaded = statistics.median(many / one for one, _, many in rounds)
    return [
        Measurement("sac: updates, one run", single, "run-updates/s", "", ""),
        Measurement(f"sac: updates, fleet of {FLEET}", fleet, "run-updates/s", "", ""),
        Measurement(f"sac: fleet of {FLEET} ÷ one run", ratio, "×", "one run", "≥ 3"),
        Measurement(f"sac: the same on {cores} torch threads", threaded, "×", "one run, one thread", ""),
    ]


def _whole_loop() -> list[Measurement]:
    """Environment and learner together, compared with stable-baselines3's SAC with the same task, networks, batch and
    update ratio."""
    steps, cores = 3_000, os.cpu_count() or 1
    rounds = []
    for _ in range(ROUNDS):
        ours = _our_speed(1, steps), _our_speed(FLEET, steps // 2), _our_speed(FLEET, steps // 2, cores)
        torch.set_num_threads(1)
        rounds.append((*ours, _peer_speed(steps)))
    single, fleet, _, peer = (statistics.median(speeds) for speeds in zip(*rounds, strict=True))
    against = "stable-baselines3 SAC"
    return [
        Measurement("training loop, one run", single, "run-steps/s", "", ""),
        Measurement(f"training loop, fleet of {FLEET}", fleet, "run-steps/s", "", ""),
        Measurement(f"training loop, {against}", peer, "run-steps/s", "", ""),
        _over_peer("one run ÷ peer", [one / sb3 for one, _, _, sb3 in rounds], "≥ 1.3"),
        _over_peer(f"fleet of {FLEET} ÷ peer", [many / sb3 for _, many, _, sb3 in rounds], "≥ 4"),
        _over_peer(f"the same on {cores} torch threads", [many / sb3 for _, _, many, sb3 in rounds], "≥ 4"),
    ]


def _over_peer(name: str, ratios: list[float], target: str) -> Measurement:
    return Measurement(name, statistics.median(ratios), "×", "stable-baselines3 SAC, 1 thread", target)


def _loop_config(seed: int, steps: int) -> RunConfig:
    changes = {"total_steps": steps, "exploration.random_steps": 250, "evaluation.every": steps}
    return run_config(TASK, "sac", seed, "quick", changes | {"evaluation.final_episodes": 1})


def _our_speed(runs: int, steps: int, threads: int = 1) -> float:
    with tempfile.TemporaryDirectory() as results:
        configs = [_loop_config(seed, steps) for seed in range(runs)]
        directory = train(configs, Execution(results=results, device="cpu", threads=threads, progress=False))[0]
        last = directory.read_metrics()[-1]
    return runs * steps / (last["seconds"] - last["seconds_evaluation"])


def _peer_speed(steps: int) -> float:
    import gymnasium
    import metaworld  # noqa: F401  (registers "Meta-World/MT1")
    from stable_baselines3 import SAC as PeerSAC

    config = run_config(TASK, "sac", 0, "quick")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment = gymnasium.make("Meta-World/MT1", env_name=TASK, seed=0)
    layers = [config.sac.width] * config.sac.hidden_layers
    agent = PeerSAC(
        "MlpPolicy",
        environment,
        batch_size=config.sac.batch_size,
        train_freq=config.sac.update_every,
        gradient_steps=1,
        learning_starts=250,
        policy_kwargs={"net_arch": layers},
        buffer_size=steps,
        device="cpu",
        seed=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's checker complains about Meta-World once, at the first step
        start = time.perf_counter()
        agent.learn(steps)
        return steps / (time.perf_counter() - start)


def _replay_memory() -> Measurement:
    environment = Environment(TASK)
    environment.reset(0)
    config = run_config(TASK, "sac", 0, "quick")
    sizes = (OBSERVATION_SIZE, ACTION_SIZE, environment.snapshot().size, environment.scene().size)
    replay = Replay(1, config.total_steps, config.horizon, *sizes, torch.device("cpu"))
    tensors = (replay.observations, replay.actions, replay.true_rewards, replay.rewards)
    size = (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        + replay.snapshots.nbytes
        + replay.scenes.nbytes
    )
    return Measurement("replay memory", size / config.total_steps, "B per step and run", "snapshot included", "≤ 700")
