"""State (17) of a learned allocator, and the action (18) that corrects the proportional allocation."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from dtsim.allocation.heuristics import proportional_share, with_best_split
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    best_upload_bytes,
    granted,
    inference_flop,
    serving,
    station_delay_s,
    station_sum,
    user_delay_s,
)

Reward: TypeAlias = Literal["station_log_ratio", "log_ratio"]
"""Reward of a learner, eq. (19): the delay of every BS, or of the slowest only, relative to the proportional one."""

FEATURES = (
    "log of the time to infer all of its data itself, over the BS's delay under the proportional share",
    "log of the time to upload all of its data, over the same",
    "log of its share of the BS's work (data and retraining)",
    "log of its delay under the proportional share, over the BS's",
    "log of the BS's work over its capacity, over the BS's delay",
    "log of the BS's delay over the slot's longest",
    "part of its work that is retraining",
    "part of its data that it uploads under the proportional share",
    "return delay over the BS's delay",
    "index of its BS",
)
"""Columns of an observation, eq. (17). All are ratios, since retraining changes the scale of a slot tenfold.

Model age and generated data affect a slot only through the retraining work, which represents them here.
"""

LOG_BOUND = 8.0
"""Bound on the magnitude of logarithms; e^-8 of a BS's delay is negligible."""
WORK, DELAY, SLOT_DELAY, STATION = 2, 3, 5, 9
"""Columns that networks access by their meaning."""
_EPS = 1e-30


def observe(problem: AllocationProblem) -> Tensor:
    """Observation [..., K, len(FEATURES)] of each MU, float32, eq. (17)."""
    share = proportional_share(problem)
    allocation = with_best_split(share, problem)
    delay_s = user_delay_s(problem, allocation)
    station_s = station_delay_s(problem, delay_s)
    scale_s = serving(station_s, problem)
    work_flop = inference_flop(problem) + problem.retrain_flop
    station_work_s = serving(station_sum(work_flop, problem) / problem.station_flops, problem)
    columns = [
        log_ratio(inference_flop(problem) / problem.mu_flops, scale_s),
        log_ratio(8 * problem.captured_bytes / problem.rate_bps.clamp(min=_EPS), scale_s),
        share.clamp(min=_EPS).log().clamp(min=-LOG_BOUND),
        log_ratio(delay_s, scale_s),
        log_ratio(station_work_s, scale_s),
        log_ratio(scale_s, station_s.amax(-1, keepdim=True)),
        _part(problem.retrain_flop, work_flop),
        _part(allocation.upload_bytes, problem.captured_bytes),
        _part(torch.full_like(scale_s, problem.downlink_s), scale_s).clamp(max=1.0),
        problem.station,
    ]
    return torch.stack([column.to(torch.float32) for column in columns], -1)


def log_ratio(value: Tensor, reference: Tensor) -> Tensor:
    """Log of `value` over `reference`, both at least 0, bounded by LOG_BOUND; 0 where both are 0."""
    ratio = value.clamp(min=_EPS) / reference.clamp(min=_EPS)
    return ratio.log().clamp(-LOG_BOUND, LOG_BOUND)


def _part(value: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, value / torch.where(whole > 0, whole, 1.0), 0.0)  # keeps gradients finite


def decode(problem: AllocationProblem, action: Tensor, compute_range: float, upload_range: float) -> Allocation:
    """The allocation for `action` [..., K, 2] in [-1, 1], eq. (18): corrections that never violate a constraint.

    The first column multiplies the MU's proportional share by e^(compute_range a), then the shares of each BS are
    normalised to sum to 1. The second multiplies the odds of the best upload fraction for that share by
    e^(upload_range a).
    The zero action is the proportional allocation.
    """
    action = action.to(problem.captured_bytes.dtype).clamp(-1.0, 1.0)
    weight = proportional_share(problem) * (compute_range * action[..., 0]).exp()
    total = serving(station_sum(weight, problem), problem)
    compute = granted(_part(weight, total), problem)
    # An MU without work gets no compute, where the best split has no derivative; 1 FLOP/s avoids that.
    best = _part(best_upload_bytes(problem, compute.clamp(min=1.0)), problem.captured_bytes)
    odds = (upload_range * action[..., 1]).exp()
    upload = (best * odds / (1 - best + best * odds)).clamp(0.0, 1.0)
    upload_bytes, least = upload * problem.captured_bytes, problem.least_upload_bytes
    # Not `maximum`, which would halve the gradient where both are 0.
    return Allocation(compute_flops=compute, upload_bytes=torch.where(least > upload_bytes, least, upload_bytes))
