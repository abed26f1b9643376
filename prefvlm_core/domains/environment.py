"""One environment of any task, whose episodes depend on a seed alone."""

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.registry import check_horizon, domain_of


class Environment:
    """One task. An episode depends only on the seed given to `reset`, not on earlier episodes.

    Args:
        task: The name of a task.
        horizon: Steps per episode; a further step raises `PrefVLMError` (None: as many as the domain allows).
        goal_visible: Show the goal, as the scripted experts need it, where it is hidden from agents.
        action_repeat: The domain's steps per step, all with the same action.

    Raises:
        PrefVLMError: For an unknown task, or an episode longer than the domain's longest.
    """

    def __init__(
        self, task: str, horizon: int | None = None, goal_visible: bool = False, action_repeat: int = 1
    ) -> None:
        domain = domain_of(task)
        self.task = task
        self.horizon = domain.longest_episode if horizon is None else horizon
        self.action_repeat = action_repeat
        check_horizon(task, self.horizon, action_repeat)
        domain.check_installed()
        self.world = domain.world(task, goal_visible)
        self._action_shape = (domain.sizes(task).action,)
        self._steps = self.horizon

    def reset(self, seed: int) -> NDArray[np.float64]:
        """Start the episode that `seed` (≥ 0) determines and return its first observation, (O,) float64."""
        if seed < 0:
            raise PrefVLMError(f"reset of '{self.task}' needs a seed of 0 or more, got {seed}.")
        observation = self.world.reset(seed)
        self._steps = 0
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """Apply an action, (A,) float32 in [-1, 1].

        Returns:
            The observation (O,) float64, the true reward, and whether the task's success criterion is met. If the
            action is repeated: the last observation, the mean reward, and whether any repeat succeeded.
        """
        if action.shape != self._action_shape:
            raise PrefVLMError(f"'{self.task}' needs an action of shape {self._action_shape}, got {action.shape}.")
        if self._steps >= self.horizon:
            raise PrefVLMError(
                f"'{self.task}' has no step {self._steps + 1} of {self.horizon}: call reset(seed) first."
            )
        self._steps += 1
        action = action.astype(np.float32, copy=False)
        total, success = 0.0, False
        for _ in range(self.action_repeat):
            observation, reward, succeeded = self.world.step(action)
            total += reward
            success |= succeeded
        return observation, total / self.action_repeat, success

    def snapshot(self) -> NDArray[np.float32]:
        """What changes from step to step in a picture, (S,) float32, for `FrameRenderer`."""
        return self.world.snapshot()

    def scene(self) -> NDArray[np.float32]:
        """What changes in a picture at a reset only, flat float32, for `FrameRenderer`."""
        return self.world.scene()
