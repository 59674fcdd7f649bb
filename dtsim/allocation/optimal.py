"""The exact optimum of P3: a given delay determines the compute that an MU needs, which falls as the delay grows."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from dtsim.allocation.allocator import AllocatorKeys
from dtsim.allocation.heuristics import Proportional, shared
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    best_upload_bytes,
    granted,
    serving,
    station_delay_s,
    station_sum,
    system_delay_s,
    user_delay_s,
)
from dtsim.core.parts import part
from dtsim.physical.delay import Objective, upload_delay_s


@part
class Optimal(AllocatorKeys):
    """Bisection on the delay of each BS. BSs are independent, so it is optimal for both `makespan` and `sum`."""

    iterations: int = Field(default=40, ge=20, le=200)
    """Halvings of the bracket; the delay ends at most 2^-iterations of the proportional one above the optimum."""

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Optimal allocation, computed in float64 and returned in the problem's dtype; any leading dimensions."""
        exact = problem.to(torch.float64)
        # Feasible, even after rounding.
        high_s = station_delay_s(exact, user_delay_s(exact, Proportional().allocate(exact))) * (1 + 1e-12)
        low_s = torch.zeros_like(high_s)
        for _ in range(self.iterations):
            middle_s = (low_s + high_s) / 2
            needed = station_sum(needed_flops(exact, serving(middle_s, exact)), exact)
            enough = needed <= exact.station_flops
            low_s = torch.where(enough, low_s, middle_s)
            high_s = torch.where(enough, middle_s, high_s)
        # The rest of a BS's compute goes to the MUs that use it, so every delay stays within the bound.
        share = shared(needed_flops(exact, serving(high_s, exact)), exact)
        share = share * (1.0 - torch.finfo(problem.captured_bytes.dtype).eps)  # rounding must not break (6)
        compute = granted(share, exact)
        upload = best_upload_bytes(exact, compute)
        dtype = problem.captured_bytes.dtype
        return Allocation(
            compute_flops=compute.to(dtype),
            upload_bytes=torch.minimum(upload.to(dtype), problem.captured_bytes),
        )


def needed_flops(problem: AllocationProblem, delay_s: Tensor) -> Tensor:
    """Least compute [..., K] with which each MU finishes within `delay_s` [..., K]; infinite if none suffices.

    Within z an MU infers z f_loc / c bytes itself and must upload the rest, or its least upload if that is more, L; its
    BS then has z - T^tx(L) for c L + W.
    """
    local_bytes = delay_s * problem.mu_flops / problem.flop_per_byte
    upload = torch.maximum((problem.captured_bytes - local_bytes).clamp(min=0.0), problem.least_upload_bytes)
    work_flop = problem.flop_per_byte * upload + problem.retrain_flop
    left_s = delay_s - upload_delay_s(upload, problem.rate_bps, problem.downlink_s)
    needed = torch.where(left_s > 0, work_flop / left_s, torch.inf)
    return torch.where(work_flop > 0, needed, 0.0)


def gap(problem: AllocationProblem, allocation: Allocation, objective: Objective) -> Tensor:
    """Gap between the system delay of `allocation` and the optimum, relative to the optimum [...]; 0 is optimal."""
    exact = problem.to(torch.float64)
    given = Allocation(
        compute_flops=allocation.compute_flops.to(torch.float64),
        upload_bytes=allocation.upload_bytes.to(torch.float64),
    )
    delay_s = system_delay_s(exact, given, objective)
    least_s = system_delay_s(exact, Optimal().allocate(exact), objective)
    # A NaN delay must not count as optimal: clamp propagates NaN, a comparison would not.
    return torch.where(least_s > 0, (delay_s / least_s - 1.0).clamp(min=0.0), torch.where(delay_s > 0, torch.inf, 0.0))
