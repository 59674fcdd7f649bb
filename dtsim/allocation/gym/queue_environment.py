"""The short timescale with queues for any Gymnasium library, single and batched."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from dtsim.allocation.gym.environment import Info
from dtsim.allocation.gym.frames import Array
from dtsim.allocation.gym.queue_frames import QueueRules, QueueSimulator
from dtsim.allocation.gym.vector import SlotVectorEnv
from dtsim.allocation.learned.observation import LOG_BOUND
from dtsim.allocation.learned.queue_observation import QUEUE_FEATURES, QUEUE_STATION
from dtsim.allocation.problem import FrameSource

_SHARE = QUEUE_FEATURES.index("log of its proportional share of the BS")


def queue_spaces(users: int, stations: int) -> tuple[gymnasium.Space[Array], gymnasium.Space[Array]]:
    """Spaces of observations [K, F] and actions [K, 3], float32."""
    low = np.zeros(len(QUEUE_FEATURES), dtype=np.float32)
    high = np.full(len(QUEUE_FEATURES), LOG_BOUND, dtype=np.float32)
    low[_SHARE], high[_SHARE] = -LOG_BOUND, 0.0
    high[QUEUE_STATION] = max(1, stations - 1)
    shape = (users, len(QUEUE_FEATURES))
    observations = gymnasium.spaces.Box(np.broadcast_to(low, shape), np.broadcast_to(high, shape), dtype=np.float32)
    actions = gymnasium.spaces.Box(-1.0, 1.0, (users, 3), dtype=np.float32)
    return cast("gymnasium.Space[Array]", observations), cast("gymnasium.Space[Array]", actions)


class QueuesEnv(gymnasium.Env[Array, Array]):
    """One slot a step; what is not done in it waits for the next.

    Observation [K, 15]: the columns of `dtsim.allocation.learned.queue_observation.QUEUE_FEATURES`. Action [K, 3] in
    [-1, 1]: see `QueueActions` there; the zero action is the proportional rule. An episode is a frame of `horizon`
    slots in one of `networks` networks: positions and association stay, fading and data change, and a share of the MUs
    has a training job, which is due evenly over the frame. It begins with empty queues and ends with `truncated`.

    The reward is minus the mean over MUs of log(1 + d / deadline_s) + overdue_weight log(1 + o) + energy_weight e,
    where d is the delay of the MU's new task behind what waits, at the rates of this slot (`price_s`), o what is
    overdue of its training after the slot, in slots of its BS, and e the slot's energy in J. Logarithms are at most
    LOG_BOUND. What is left undone delays later tasks, and training that is ahead of its pace leaves room for them: the
    reward of a slot does not show that, so a discount above 0 matters.

    The info of a step holds `delay_s`, the mean of d; `backlog_flop`, the inference that waits after the slot, and
    `overdue_flop`, both means over MUs. Keywords are the fields of `QueueRules`. There is no picture of it.
    """

    metadata: dict[str, object] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, *, source: FrameSource, users: int = 20, networks: int = 1024, **keywords: Any) -> None:
        self.simulator = QueueSimulator(
            source=source, users=users, count=1, networks=networks, rules=QueueRules(**keywords)
        )
        self.observation_space, self.action_space = queue_spaces(*self.simulator.shape)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Array, Info]:
        """Start an episode; the same `seed` gives the same sequence of slots and episodes."""
        super().reset(seed=seed)
        return self.simulator.reset([self.np_random])[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, Info]:
        """Serve this slot, then return the next observation."""
        observation, reward, over = self.simulator.step(np.asarray(action)[None])
        info: Info = {name: float(values[0]) for name, values in self.simulator.measured().items()}
        return observation[0], float(reward[0]), False, over, info


class QueuesVectorEnv(SlotVectorEnv):
    """A batch of `num_envs` environments with the same trajectories as `num_envs` single `QueuesEnv`s."""

    def __init__(
        self, *, num_envs: int, source: FrameSource, users: int = 20, networks: int = 1024, **keywords: Any
    ) -> None:
        self.simulator = QueueSimulator(
            source=source, users=users, count=num_envs, networks=networks, rules=QueueRules(**keywords)
        )
        super().__init__(num_envs, self.simulator, queue_spaces(*self.simulator.shape))

    def measured(self) -> dict[str, NDArray[np.float64]]:
        """See `SlotVectorEnv`."""
        return self.simulator.measured()
