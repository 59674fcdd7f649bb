"""Many short-timescale environments as one Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import gymnasium
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtsim.allocation.gym.environment import Info, spaces
from dtsim.allocation.gym.frames import Array, FrameSimulator
from dtsim.allocation.learned.observation import Reward
from dtsim.allocation.problem import FrameSource

Spaces: TypeAlias = tuple[gymnasium.Space[Array], gymnasium.Space[Array]]
"""Of observations and of actions."""
Stepped: TypeAlias = tuple[Array, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]
"""What Gymnasium's `step` returns."""


class _Simulator(Protocol):
    rngs: Sequence[np.random.Generator]

    def reset(self, rngs: Sequence[np.random.Generator]) -> Array: ...

    def step(self, action: NDArray[np.floating]) -> tuple[Array, NDArray[np.float64], bool]: ...


class SlotVectorEnv(VectorEnv[Array, Array, NDArray[np.generic]]):
    """Environments of one simulator, whose episodes all end in the same step.

    New ones begin in that step (`AutoresetMode.SAME_STEP`): the observation after the last action is in the infos as
    "final_obs", and "final_info" holds the infos of an episode's last step. Environment i is seeded with `seed` + i.
    """

    metadata: dict[str, object] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, num_envs: int, simulator: _Simulator, spaces: Spaces) -> None:
        self.num_envs, self._steps = num_envs, simulator
        self.single_observation_space, self.single_action_space = spaces
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.rngs = [np_random(None)[0] for _ in range(num_envs)]

    def measured(self) -> dict[str, NDArray[np.float64]]:
        """What the infos of the last step hold, by name [N]."""
        raise NotImplementedError

    def reset(  # Gymnasium's own vector environments also accept one seed per environment
        self, *, seed: int | Sequence[int | None] | None = None, options: Info | None = None
    ) -> tuple[Array, Info]:
        """Start an episode in every environment; observations [N, K, F]."""
        if seed is not None:
            seeds = [seed + n for n in range(self.num_envs)] if isinstance(seed, int) else list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"seed: {len(seeds)} seeds must be {self.num_envs}, one for each environment")
            for n, own in enumerate(seeds):
                if own is not None:
                    self.rngs[n] = np_random(own)[0]
        return self._steps.reset(self.rngs), {}

    def step(self, actions: Array) -> Stepped:
        """Apply the actions to this slot of every environment, then return the next observations."""
        observation, reward, over = self._steps.step(np.asarray(actions))
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        infos: Info = {}
        for name, values in self.measured().items():
            infos |= {name: values, f"_{name}": everywhere.copy()}
        if over:
            final = np.empty(self.num_envs, dtype=object)
            final[:] = list(observation)
            ended: Info = {"final_obs": final, "final_info": infos}
            infos = {**ended, **{f"_{name}": everywhere.copy() for name in ended}}
            observation = self._steps.reset(self.rngs)
        return observation, reward, np.zeros(self.num_envs, np.bool_), np.full(self.num_envs, over), infos


class ShortTimescaleVectorEnv(SlotVectorEnv):
    """A batch of `num_envs` environments with the same trajectories as `num_envs` single `ShortTimescaleEnv`s.

    The infos hold `delay_s` [N], and with `optimum=True` also `optimum_s` and `gap`, as those of `ShortTimescaleEnv`.
    """

    def __init__(
        self,
        *,
        num_envs: int,
        source: FrameSource,
        users: int = 20,
        networks: int = 1024,
        horizon: int = 100,
        reward: Reward = "station_log_ratio",
        compute_range: float = 2.0,
        upload_range: float = 1.0,
        optimum: bool = False,
    ) -> None:
        self.simulator = FrameSimulator(
            source=source,
            users=users,
            count=num_envs,
            networks=networks,
            horizon=horizon,
            reward=reward,
            compute_range=compute_range,
            upload_range=upload_range,
        )
        self.with_optimum = optimum
        super().__init__(num_envs, self.simulator, spaces(*self.simulator.shape))

    def step(self, actions: Array) -> Stepped:
        """See `SlotVectorEnv`; the optimum is that of the slot before the actions."""
        if self.with_optimum and self.simulator.rngs:
            self.simulator.optimum()
        return super().step(actions)

    def measured(self) -> dict[str, NDArray[np.float64]]:
        """See `SlotVectorEnv`."""
        return self.simulator.measured(self.with_optimum)
