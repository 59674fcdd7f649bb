"""P3 as reinforcement learning: one slot a step, eqs. (17)-(19).

Slots carry nothing to the next one, so this is a contextual bandit: what is decided changes only this slot's reward.
One simulator on arrays with two shells: `ShortTimescaleEnv` for Gymnasium, `SlotBatch` for collectors that step many
environments at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.policy import FEATURES, LOG_BOUND, Reward, decode, observe
from dtsim.allocation.problem import Allocation, AllocationProblem, ProblemSource, station_delay_s, user_delay_s

Array: TypeAlias = NDArray[np.float32]


def reward_of(problem: AllocationProblem, allocation: Allocation, reward: Reward) -> Tensor:
    """Reward (19) of each slot [...], scaled by the slot's own proportional allocation, so 0 is as good as that.

    "log_ratio": minus the log of the makespan over the proportional one. "station_log_ratio": the mean of the same over
    the BSs that have work, which has the same optimum and credits every BS. Actions here cannot break a constraint, so
    (19)'s penalties are zero.
    """
    delay_s = station_delay_s(problem, user_delay_s(problem, allocation))  # [..., M]
    usual_s = station_delay_s(problem, user_delay_s(problem, Proportional().allocate(problem)))
    if reward == "log_ratio":
        delay_s, usual_s = delay_s.amax(-1, keepdim=True), usual_s.amax(-1, keepdim=True)
    busy = usual_s > 0
    ratio = torch.where(busy, delay_s, 1.0) / torch.where(busy, usual_s, 1.0)
    return -ratio.log().sum(-1) / busy.sum(-1).clamp(min=1)


class SlotSimulator:
    """`count` environments side by side, each at a slot of its own; slots are drawn from `source` in blocks."""

    def __init__(
        self,
        *,
        source: ProblemSource,
        users: int,
        count: int,
        reward: Reward,
        compute_range: float,
        upload_range: float,
        generator: torch.Generator,
        block: int = 1024,
    ) -> None:
        self.source, self.users, self.count, self.reward = source, users, count, reward
        self.compute_range, self.upload_range = compute_range, upload_range
        self.generator, self.block = generator, max(block, count)
        self.pool = source.sample(self.block, users, generator)
        self.left = self.block  # slots of the pool not used yet
        self.current = self._draw(count)

    def observation(self, ids: Sequence[int] | NDArray[np.int_] | slice = slice(None)) -> Array:
        """Observations of environments `ids` [len(ids), K, F]."""
        observation: Array = observe(self.current.slots(ids)).numpy()
        return observation

    def step(self, action: Array, ids: NDArray[np.int_]) -> Array:
        """Rewards [len(ids)] of `action` [len(ids), K, 2] in environments `ids`, which then move to their next slot."""
        slots = self.current.slots(ids)
        given = decode(slots, torch.as_tensor(action), self.compute_range, self.upload_range)
        reward: Array = reward_of(slots, given, self.reward).to(torch.float32).numpy()
        self.renew(ids)
        return reward

    def renew(self, ids: NDArray[np.int_]) -> None:
        """Put environments `ids` at new slots."""
        fresh = self._draw(len(ids))
        for field in fields(AllocationProblem):
            values = getattr(self.current, field.name)
            if isinstance(values, Tensor):
                values[ids] = getattr(fresh, field.name)

    def _draw(self, count: int) -> AllocationProblem:
        if count > self.left:
            self.pool = self.source.sample(self.block, self.users, self.generator)
            self.left = self.block
        start = self.block - self.left
        self.left -= count
        return self.pool.slots(torch.arange(start, start + count))  # indexing copies: the pool is never written


def spaces(users: int, stations: int) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Spaces of observations [K, F] and actions [K, 2], float32."""
    low = np.full(len(FEATURES), -LOG_BOUND, dtype=np.float32)
    high = np.full(len(FEATURES), LOG_BOUND, dtype=np.float32)
    low[-1], high[-1] = 0.0, max(1, stations - 1)
    shape = (users, len(FEATURES))
    return (
        gymnasium.spaces.Box(np.broadcast_to(low, shape), np.broadcast_to(high, shape), dtype=np.float32),
        gymnasium.spaces.Box(-1.0, 1.0, (users, 2), dtype=np.float32),
    )


class ShortTimescaleEnv(gymnasium.Env[Array, Array]):
    """Gymnasium's view of P3.

    Observation [K, 10]: the columns of `dtsim.allocation.policy.FEATURES`. Action [K, 2] in [-1, 1]: corrections of
    the MU's proportional share of compute and of its best upload fraction for the share it gets. An episode is cut
    (`truncated`) after `horizon` slots; it has no end of its own.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        *,
        source: ProblemSource,
        users: int = 20,
        reward: Reward = "station_log_ratio",
        compute_range: float = 2.0,
        upload_range: float = 1.0,
        horizon: int = 100,
    ) -> None:
        self.horizon, self.slot = horizon, 0
        self.generator = torch.Generator().manual_seed(0)  # re-seeded by every reset
        self.simulator = SlotSimulator(
            source=source,
            users=users,
            count=1,
            reward=reward,
            compute_range=compute_range,
            upload_range=upload_range,
            generator=self.generator,
            block=128,
        )
        stations = self.simulator.current.station_flops.shape[-1]
        observation_space, action_space = spaces(users, stations)
        self.observation_space: gymnasium.Space[Array] = observation_space  # type: ignore[assignment]
        self.action_space: gymnasium.Space[Array] = action_space  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode at a new slot; the same `seed` starts the same sequence of slots."""
        super().reset(seed=seed)
        self.generator.manual_seed(int(self.np_random.integers(2**62)))
        self.simulator.left, self.slot = 0, 0
        self.simulator.renew(np.array([0]))
        return self.simulator.observation()[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Allocate this slot, then show the next one."""
        reward = self.simulator.step(np.asarray(action)[None], np.array([0]))
        self.slot += 1
        return self.simulator.observation()[0], float(reward[0]), False, self.slot >= self.horizon, {}


class SlotBatch:
    """Many environments behind the interface that Tianshou's collectors call; episodes never end."""

    is_async = False

    def __init__(self, simulator: SlotSimulator) -> None:
        self.simulator = simulator
        stations = simulator.current.station_flops.shape[-1]
        observation_space, action_space = spaces(simulator.users, stations)
        self.observation_space = [observation_space] * simulator.count
        self.action_space = [action_space] * simulator.count

    def __len__(self) -> int:
        return self.simulator.count

    def reset(self, env_id: Any = None, **_: Any) -> tuple[Array, NDArray[np.object_]]:
        """New slots for environments `env_id` (all of them where None): observations and empty infos."""
        ids = np.arange(len(self)) if env_id is None else np.atleast_1d(env_id)
        self.simulator.renew(ids)
        return self.simulator.observation(ids), self._infos(len(ids))

    def step(
        self, action: Array, id: Any = None
    ) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.object_]]:
        """Next observations, rewards, two arrays of False and infos of environments `id`."""
        ids = np.arange(len(self)) if id is None else np.atleast_1d(id)
        reward = self.simulator.step(action, ids)
        never = np.zeros(len(ids), dtype=np.bool_)
        return self.simulator.observation(ids), reward, never, never.copy(), self._infos(len(ids))

    def close(self) -> None:
        """Nothing to release."""

    @staticmethod
    def _infos(count: int) -> NDArray[np.object_]:
        return np.array([{} for _ in range(count)], dtype=object)


gymnasium.register("dtsim/ShortTimescale-v0", entry_point="dtsim.allocation.environment:ShortTimescaleEnv")
