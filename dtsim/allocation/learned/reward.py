"""Reward (19): the slot's delay relative to that of the proportional allocation."""

from __future__ import annotations

import torch
from torch import Tensor

from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.learned.observation import LOG_BOUND, Reward, log_ratio
from dtsim.allocation.problem import Allocation, AllocationProblem, serving, station_delay_s, user_delay_s


def reward_of(problem: AllocationProblem, allocation: Allocation, reward: Reward) -> Tensor:
    """Reward (19) of each slot [...], relative to the slot's proportional allocation, which has reward 0.

    "log_ratio": minus the log of the makespan over the proportional one. "station_log_ratio": the mean of the same over
    the BSs that have work, which has the same optimum and gives every BS credit. An allocation that violates no
    constraint has no penalty.
    """
    return delay_reward(problem, user_delay_s(problem, allocation), reward)


def delay_reward(problem: AllocationProblem, delay_s: Tensor, reward: Reward) -> Tensor:
    """`reward_of` for MU delays `delay_s` [..., K], s.

    Logarithms are bounded by LOG_BOUND: a `raw` action may leave all data undone, which takes no time.
    """
    station_s = station_delay_s(problem, delay_s)  # [..., M]
    usual_s = station_delay_s(problem, user_delay_s(problem, Proportional().allocate(problem)))
    if reward == "log_ratio":
        station_s, usual_s = station_s.amax(-1, keepdim=True), usual_s.amax(-1, keepdim=True)
    busy = usual_s > 0
    ratio = torch.where(busy, station_s, 1.0) / torch.where(busy, usual_s, 1.0)
    return -ratio.log().clamp(-LOG_BOUND, LOG_BOUND).sum(-1) / busy.sum(-1).clamp(min=1)


def delay_scores(problem: AllocationProblem, delay_s: Tensor) -> Tensor:
    """Log of each MU's delay over its BS's delay under the proportional allocation [..., K], float32, bounded.

    The largest at a BS is minus that BS's part of the reward.
    """
    usual_s = serving(station_delay_s(problem, user_delay_s(problem, Proportional().allocate(problem))), problem)
    return log_ratio(delay_s, usual_s).to(torch.float32)
