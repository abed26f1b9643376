"""What our learner is compared with, all with the networks, batch and update ratio of the same config."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import gymnasium

from prefvlm_core.bench.plain_sac import PlainSAC
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.registry import sizes_of

STABLE_BASELINES = "stable-baselines3 SAC"
PLAIN = "plain PyTorch SAC"


def has_stable_baselines() -> bool:
    """Whether stable-baselines3 is installed."""
    return find_spec("stable_baselines3") is not None


class _Repeated(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Holds each action for `times` steps."""

    def __init__(self, environment: gymnasium.Env[Any, Any], times: int) -> None:
        super().__init__(environment)
        self._times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        rewards = 0.0
        for _ in range(self._times):
            observation, reward, terminated, truncated, info = self.env.step(action)
            rewards += float(reward)
        return observation, rewards / self._times, terminated, truncated, info


def metaworld_environment(task: str) -> gymnasium.Env[Any, Any]:
    """Meta-World through gym.make, after its first step."""
    import metaworld  # noqa: F401  (registers "Meta-World/MT1")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's checker complains about Meta-World once, at the first step
        environment = gymnasium.make("Meta-World/MT1", env_name=task, seed=0)
        environment.reset()
        environment.step(environment.action_space.sample())
    return environment


def gym_environment(config: RunConfig) -> gymnasium.Env[Any, Any]:
    """Meta-World with the action repeat and the horizon of `config`."""
    environment = metaworld_environment(config.task)
    return gymnasium.wrappers.TimeLimit(_Repeated(environment, config.action_repeat), config.horizon)


def plain_sac(config: RunConfig, capacity: int) -> PlainSAC:
    """A plain agent with a replay of `capacity` transitions."""
    sizes = sizes_of(config.task)
    return PlainSAC(config.sac, sizes.observation, sizes.action, capacity)


def stable_baselines(config: RunConfig, capacity: int) -> Any:
    """The SAC of stable-baselines3, with a replay of `capacity` transitions and an environment."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    sac = config.sac
    agent = SAC(
        "MlpPolicy",
        gym_environment(config),
        batch_size=sac.batch_size,
        train_freq=sac.update_every,
        gradient_steps=1,
        tau=sac.target_rate,
        target_update_interval=sac.target_update_every,
        learning_starts=config.exploration.random_steps,
        policy_kwargs={"net_arch": [sac.width] * sac.hidden_layers},
        buffer_size=capacity,
        device="cpu",
        seed=0,
    )
    # Without a logger of its own, each agent leaves a folder among the system's temporary ones.
    agent.set_logger(Logger(folder=None, output_formats=[]))
    return agent
