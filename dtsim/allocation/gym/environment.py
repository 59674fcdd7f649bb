"""P3 as reinforcement learning for any Gymnasium library: one slot a step, eqs. (17)-(19).

An action changes the reward of its own slot only, so this is a contextual bandit whose contexts come in frames.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from dtsim.allocation.gym.frames import Array, FrameSimulator
from dtsim.allocation.learned.observation import FEATURES, LOG_BOUND, Reward, decode
from dtsim.allocation.problem import AllocationProblem, FrameSource

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

    metadata: dict[str, object] = {  # noqa: RUF012 - Gymnasium's own declaration
        "render_modes": ["rgb_array"],
        "render_fps": 5,
    }

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
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: must be rgb_array or None")
        self.render_mode = render_mode
        self.shown: tuple[AllocationProblem, Array] | None = None
        """The last slot and its action, kept for `render`."""
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
        self.shown = None
        return self.simulator.reset([self.np_random])[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, Info]:
        """Apply the allocation to this slot, then return the next observation."""
        if self.with_optimum and self.simulator.rngs:
            self.simulator.optimum()
        if self.render_mode is not None and self.simulator.rngs:
            self.shown = self.simulator.problem().slots(0), np.array(action, dtype=np.float32)
        observation, reward, over = self.simulator.step(np.asarray(action)[None])
        measured = self.simulator.measured(self.with_optimum)
        self.info = {name: float(values[0]) for name, values in measured.items()}
        return observation[0], float(reward[0]), False, over, dict(self.info)

    def render(self) -> NDArray[np.uint8] | None:
        """The last slot as a picture [height, width, 3]: delays, the least possible ones, and what each MU got.

        Before the first step, the coming slot with its proportional allocation. None unless `render_mode` is rgb_array.
        """
        if self.render_mode is None:
            return None
        if not self.simulator.rngs:
            raise RuntimeError("the environment has no episode yet: call reset first")
        from dtsim.allocation.gym.render import picture  # matplotlib takes a part of a second to import

        if self.shown is None:
            problem = self.simulator.problem().slots(0)
            action = np.zeros((problem.station.shape[-1], 2), dtype=np.float32)
        else:
            problem, action = self.shown
        return picture(problem, decode(problem, torch.from_numpy(action), *self.simulator.ranges))
