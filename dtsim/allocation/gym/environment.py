"""P3 as reinforcement learning for any Gymnasium library: one slot a step, eqs. (17)-(19).

An action changes the reward of its own slot only, so this is a contextual bandit whose contexts come in frames.
"""

from __future__ import annotations

from typing import TypeAlias, cast

import gymnasium
import numpy as np

from dtsim.allocation.gym.frames import Array, FrameSimulator
from dtsim.allocation.learned.observation import FEATURES, LOG_BOUND, Reward
from dtsim.allocation.problem import FrameSource

Info: TypeAlias = dict[str, object]
"""The info dictionary that Gymnasium's `reset` and `step` return."""


def spaces(users: int, stations: int) -> tuple[gymnasium.Space[Array], gymnasium.Space[Array]]:
    """Spaces of observations [K, F] and actions [K, 2], float32."""
    low = np.full(len(FEATURES), -LOG_BOUND, dtype=np.float32)
    high = np.full(len(FEATURES), LOG_BOUND, dtype=np.float32)
    low[-1], high[-1] = 0.0, max(1, stations - 1)
    shape = (users, len(FEATURES))
    observations = gymnasium.spaces.Box(np.broadcast_to(low, shape), np.broadcast_to(high, shape), dtype=np.float32)
    actions = gymnasium.spaces.Box(-1.0, 1.0, (users, 2), dtype=np.float32)
    # Gymnasium's Box is typed for any number type.
    return cast("gymnasium.Space[Array]", observations), cast("gymnasium.Space[Array]", actions)


class ShortTimescaleEnv(gymnasium.Env[Array, Array]):
    """Gymnasium's view of P3.

    Observation [K, 10]: the columns of `dtsim.allocation.learned.observation.FEATURES`. Action [K, 2] in [-1, 1]:
    corrections of the proportional share of compute and of the best upload fraction for it. Reward:
    `dtsim.allocation.learned.reward.reward_of`. An episode is a frame of `horizon` slots in one of `networks` networks:
    positions, association and retraining work are fixed, fading and traffic change. It ends with `truncated`.

    The info of a step holds `delay_s`, the delay of the slot's slowest MU; `optimum_s`, the least possible one; and
    `gap`, (delay - optimum) / optimum. `optimum=False` saves the time that the optimum takes, half of a step's.
    """

    metadata: dict[str, object] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        *,
        source: FrameSource,
        users: int = 20,
        networks: int = 1024,
        horizon: int = 100,
        reward: Reward = "station_log_ratio",
        compute_range: float = 2.0,
        upload_range: float = 1.0,
        optimum: bool = True,
    ) -> None:
        self.simulator = FrameSimulator(
            source=source,
            users=users,
            count=1,
            networks=networks,
            horizon=horizon,
            reward=reward,
            compute_range=compute_range,
            upload_range=upload_range,
        )
        self.observation_space, self.action_space = spaces(*self.simulator.shape)
        self.with_optimum = optimum
        self.info: Info = {}
        """That of the last step."""

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Array, Info]:
        """Start an episode; the same `seed` gives the same sequence of slots and episodes."""
        super().reset(seed=seed)
        return self.simulator.reset([self.np_random])[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, Info]:
        """Apply the allocation to this slot, then return the next observation."""
        if self.with_optimum and self.simulator.rngs:
            self.simulator.optimum()
        observation, reward, over = self.simulator.step(np.asarray(action)[None])
        measured = self.simulator.measured(self.with_optimum)
        self.info = {name: float(values[0]) for name, values in measured.items()}
        return observation[0], float(reward[0]), False, over, dict(self.info)
