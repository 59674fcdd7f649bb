"""The decision of a slot in time that passes: how much to upload, and what inference and training get of each BS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.problem import Allocation, AllocationProblem
from dtsim.core.shapes import PerUser


@dataclass(frozen=True, kw_only=True)
class QueueProblem:
    """What is known at the start of a slot, after its tasks were captured; K MUs, M BSs, any leading dimensions."""

    captured_bytes: Tensor
    """Data of the new tasks [..., K], byte."""
    rate_bps: Tensor
    """Uplink rate of each MU in this slot [..., K], bit/s."""
    local_flop: Tensor
    """Inference that waits at each MU [..., K], FLOP."""
    uplink_bits: Tensor
    """Data that waits to be uploaded [..., K], bit."""
    station_flop: Tensor
    """Inference that waits at the BS [..., K], FLOP."""
    training_flop: Tensor
    """What is left of the training jobs that each MU has at its BS [..., K], FLOP."""
    due_flop: Tensor
    """Part of it that should be done by the end of this slot at the jobs' pace, a window's work spread over its slots
    as in eq. (10) [..., K], FLOP."""
    station: Tensor
    """Index of each MU's serving BS [..., K], int64."""
    station_flops: Tensor
    """Compute of each BS that is free in this slot [..., M], FLOP/s."""
    mu_flops: Tensor
    """Compute of each MU [..., K], FLOP/s."""
    flop_per_byte: float
    """Work to infer one byte, c, FLOP/byte."""
    downlink_s: float
    """Delay of returning a result, s."""
    slot_s: float
    """Length of the slot, s."""
    least_upload_bytes: Tensor
    """New data that each MU uploads at least [..., K], byte."""
    idle_trains: bool = False
    """Whether training also gets what inference leaves of the slot, beyond what is allocated to it."""
    tx_w: float = 0.0
    """Power of a transmitting MU, W."""
    mu_j_per_flop: float = 0.0
    """Energy of an MU's compute, J/FLOP."""
    station_j_per_flop: float = 0.0
    """Energy of a BS's compute, J/FLOP."""
    weight_s_per_j: float = 0.0
    """Delay that a joule is worth, s/J."""

    @property
    def now(self) -> AllocationProblem:
        """P3 of this slot as if it were the last: its delay is that of the new tasks behind all that waits.

        With U' = U + b / 8 and D' = D + b / 8 + l / c, where b are the waiting bits and l the MU's waiting work, the
        delays (3)-(5) of D' and U' are those of the new task behind the queues, and waiting inference and due training
        are work of the BS like W of (10).
        """
        behind_bytes = self.uplink_bits / 8
        return AllocationProblem(
            captured_bytes=self.captured_bytes + behind_bytes + self.local_flop / self.flop_per_byte,
            rate_bps=self.rate_bps,
            retrain_flop=self.station_flop + self.due_flop,
            station=self.station,
            station_flops=self.station_flops,
            mu_flops=self.mu_flops,
            flop_per_byte=self.flop_per_byte,
            downlink_s=self.downlink_s,
            least_upload_bytes=torch.where(self.rate_bps > 0, behind_bytes + self.least_upload_bytes, 0.0),
        )


@dataclass(frozen=True)
class QueueAllocation:
    """An answer to a `QueueProblem`."""

    upload_bytes: Tensor
    """New data that each MU uploads [..., K], byte; the rest it computes itself."""
    inference_flops: Tensor
    """Compute that each MU's inference gets from its BS [..., K], FLOP/s."""
    training_flops: Tensor
    """Compute that each MU's training jobs get there [..., K], FLOP/s."""


@runtime_checkable
class QueueAllocator(Protocol):
    """An allocator that sees queues."""

    def serve(self, problem: QueueProblem) -> QueueAllocation:
        """Return an allocation: uploads from the least one to all, compute within each BS's capacity."""


def serve_queues(allocator: Allocator, problem: QueueProblem) -> QueueAllocation:
    """The answer of any allocator: its own if it sees queues, else its answer to P3 `now`, as if no slot followed."""
    if isinstance(allocator, QueueAllocator):
        return allocator.serve(problem)
    return divided_over(problem, allocator.allocate(problem.now))


def divided_over(problem: QueueProblem, allocation: Allocation) -> QueueAllocation:
    """An answer to `problem.now` as an answer to `problem`: an MU's compute is divided in proportion to its work."""
    new_bytes = (allocation.upload_bytes - problem.uplink_bits / 8).clamp(min=0.0)
    upload = torch.minimum(torch.maximum(new_bytes, problem.least_upload_bytes), problem.captured_bytes)
    upload = torch.where(problem.rate_bps > 0, upload, 0.0)
    inference_flop = problem.station_flop + problem.flop_per_byte * (upload + problem.uplink_bits / 8)
    whole = inference_flop + problem.due_flop
    training = torch.where(whole > 0, problem.due_flop / torch.where(whole > 0, whole, 1.0), 0.0)
    return QueueAllocation(
        upload_bytes=upload,
        inference_flops=allocation.compute_flops * (1 - training),
        training_flops=allocation.compute_flops * training,
    )


@dataclass(frozen=True)
class QueueShares:
    """An allocation as fractions, for later slots with the same association; [..., K] each."""

    upload: PerUser
    inference: PerUser
    training: PerUser


def held_shares(problem: QueueProblem, allocation: QueueAllocation) -> QueueShares:
    """`allocation` as fractions of the captured data and of the BSs' compute."""
    capacity = problem.station_flops.gather(-1, problem.station)
    some = problem.captured_bytes > 0
    return QueueShares(
        upload=torch.where(some, allocation.upload_bytes / torch.where(some, problem.captured_bytes, 1.0), 0.0),
        inference=allocation.inference_flops / capacity,
        training=allocation.training_flops / capacity,
    )


def with_shares(shares: QueueShares, problem: QueueProblem) -> QueueAllocation:
    """The allocation that `shares` give in another slot."""
    capacity = problem.station_flops.gather(-1, problem.station)
    upload = torch.maximum(shares.upload * problem.captured_bytes, problem.least_upload_bytes)
    return QueueAllocation(
        upload_bytes=torch.minimum(upload, problem.captured_bytes),
        inference_flops=shares.inference * capacity,
        training_flops=shares.training * capacity,
    )
