"""What can be done in a slot, all in FLOP, and what becomes of the compute that nobody asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem
from dtsim.core.shapes import PerStation, PerUser


@dataclass(frozen=True)
class Work:
    """A `QueueProblem` in FLOP and in float64; a byte on the link is c FLOP. [..., K] each but for `capacity`."""

    new: Tensor
    """Of the new tasks, c D."""
    least: Tensor
    """Least that must be uploaded of it."""
    usual: Tensor
    """What the proportional rule uploads of it."""
    local: Tensor
    """Waiting at the MU."""
    way: Tensor
    """Waiting for the link."""
    there: Tensor
    """Waiting at the BS."""
    due: Tensor
    """Training that should be done by the end of the slot."""
    left: Tensor
    """Training that is left."""
    local_most: Tensor
    """Most that the MU does in the slot."""
    link_most: Tensor
    """Most that its link carries in the slot."""
    energy: Tensor
    """Energy of a FLOP that is uploaded and done at the BS less that of one done at the MU, J/FLOP."""
    station: Tensor
    capacity: Tensor
    """Most that each BS does in the slot [..., M]."""

    @classmethod
    def of(cls, problem: QueueProblem) -> Self:
        """The work of `problem`; an MU without rate uploads nothing."""
        per_byte, slot_s = problem.flop_per_byte, problem.slot_s
        rate = problem.rate_bps.double()
        linked = rate > 0
        new = per_byte * problem.captured_bytes.double()
        least = torch.where(linked, torch.minimum(per_byte * problem.least_upload_bytes.double(), new), 0.0)
        usual = Proportional().allocate(problem.now).upload_bytes.double() - problem.uplink_bits.double() / 8
        usual = torch.where(linked, torch.minimum(torch.maximum(per_byte * usual, least), new), 0.0)
        joule_per_flop = problem.tx_w * 8 / per_byte / torch.where(linked, rate, torch.inf)
        return cls(
            new=torch.where(linked, new, 0.0),
            least=least,
            usual=usual,
            # Without a link there is no choice: the new work is as if it already waited.
            local=problem.local_flop.double() + torch.where(linked, 0.0, new),
            way=per_byte * problem.uplink_bits.double() / 8,
            there=problem.station_flop.double(),
            due=torch.minimum(problem.due_flop.double(), problem.training_flop.double()).clamp(min=0.0),
            left=problem.training_flop.double(),
            local_most=problem.mu_flops.double() * slot_s,
            link_most=per_byte * rate * slot_s / 8,
            energy=joule_per_flop + problem.station_j_per_flop - problem.mu_j_per_flop,
            station=problem.station,
            capacity=problem.station_flops.double() * slot_s,
        )

    def ready(self, upload: PerUser) -> PerUser:
        """Most inference that a BS can do for an MU in the slot that uploads `upload`: what is there and what comes."""
        return self.there + torch.minimum(self.way + upload, self.link_most)


def at_users(values: PerStation, station: Tensor) -> PerUser:
    """The entry of `values` [..., M] of every MU's BS [..., K]."""
    return values.gather(-1, station)


def station_total(values: PerUser, station: Tensor, stations: int) -> PerStation:
    """Sum of `values` [..., K] over the MUs of each of the `stations` [..., M]."""
    return values.new_zeros(*values.shape[:-1], stations).scatter_add(-1, station, values)


def spread(
    problem: QueueProblem, work: Work, upload: PerUser, inference: PerUser, training: PerUser
) -> QueueAllocation:
    """The answer that does `inference` and `training` [..., K] in the slot, FLOP, and wastes no compute.

    What a BS has left goes in halves: to training that is left, in proportion to it and at most all of it, and to its
    inference, in proportion to it, which is then done before the slot ends. Either half goes to the other where it has
    nothing to do. Where idle compute trains, all of it goes to inference first.
    """
    stations = work.capacity.shape[-1]

    def total(values: PerUser) -> PerUser:
        return at_users(station_total(values, work.station, stations), work.station)

    spare = (at_users(work.capacity, work.station) - total(inference + training)).clamp(min=0.0)
    beyond = (work.left - training).clamp(min=0.0)
    all_beyond, all_inference = total(beyond), total(inference)
    to_training = torch.minimum(torch.where(all_inference > 0, spare / 2, spare), all_beyond)
    if problem.idle_trains:  # what inference does not take of it trains anyway
        to_training = torch.where(all_inference > 0, 0.0, to_training)
    training = training + to_training * _part(beyond, all_beyond)
    inference = inference + (spare - to_training) * _part(inference, all_inference)
    # A sum of 2K rounded terms must not exceed the capacity (6).
    dtype = problem.captured_bytes.dtype
    scale = (1 - 4 * upload.shape[-1] * torch.finfo(dtype).eps) / problem.slot_s
    uploaded = (upload / problem.flop_per_byte).to(dtype)
    linked = torch.where(problem.rate_bps > 0, problem.least_upload_bytes, 0.0)
    return QueueAllocation(
        upload_bytes=torch.minimum(torch.maximum(uploaded, linked), problem.captured_bytes),
        inference_flops=(inference * scale).to(dtype),
        training_flops=(training * scale).to(dtype),
    )


def _part(value: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, value / torch.where(whole > 0, whole, 1.0), 0.0)
