"""Allocators without learning or search: a fixed rule for the compute and the closed-form best split for it."""

from __future__ import annotations

import torch
from torch import Tensor

from dtsim.allocation.allocator import AllocatorKeys
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    best_upload_bytes,
    granted,
    inference_flop,
    serving,
    station_sum,
)
from dtsim.core.parts import part


def shared(weight: Tensor, problem: AllocationProblem) -> Tensor:
    """Shares of the serving BS in proportion to `weight` [..., K] >= 0; 0 where all weights of a BS are 0."""
    total = serving(station_sum(weight, problem), problem)
    return torch.where(total > 0, weight / total, 0.0)


def proportional_share(problem: AllocationProblem) -> Tensor:
    """Each MU's share of its BS's work [..., K]: c D + W over the sum of c D + W at its BS."""
    return shared(inference_flop(problem) + problem.retrain_flop, problem)


def with_best_split(share: Tensor, problem: AllocationProblem) -> Allocation:
    """The compute given by `share`, with the best split for it."""
    compute = granted(share, problem)
    return Allocation(compute_flops=compute, upload_bytes=best_upload_bytes(problem, compute))


@part
class Proportional(AllocatorKeys):
    """Compute in proportion to work, c D + W, as the association assumes, with the best split for it."""

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Closed form, any leading dimensions."""
        return with_best_split(proportional_share(problem), problem)


@part
class Equal(AllocatorKeys):
    """Equal compute for all MUs of a BS, with the best split for it."""

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Closed form, any leading dimensions."""
        return with_best_split(shared(torch.ones_like(problem.captured_bytes), problem), problem)
