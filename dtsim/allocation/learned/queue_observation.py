"""What a policy sees of queues, what its action means, and what it is paid: the short timescale with a tomorrow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dtsim.allocation.heuristics import proportional_share
from dtsim.allocation.learned.observation import LOG_BOUND
from dtsim.allocation.problem import best_upload_bytes, granted, serving, station_max, station_sum
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem
from dtsim.core.shapes import PerUser

QUEUE_FEATURES = (
    "inference that waits at the MU, in slots of the MU",
    "inference of its new data, in slots of the MU",
    "data that wait for the link, in slots of the link",
    "its new data, in slots of the link",
    "inference that waits at the BS, in slots of the BS",
    "its new data's inference, in slots of the BS",
    "log of its proportional share of the BS",
    "training that is due, in slots of the BS",
    "training that is left, in slots of the BS",
    "price (delay) under the proportional rule, in slots",
    "largest such price at its BS, in slots",
    "inference and due training that wait at its BS, on the way there and at its MUs, in slots of the BS",
    "training that is due at its BS, in slots of the BS",
    "part of its new data that it uploads under the proportional rule",
    "index of its BS",
)
"""Columns of an observation of queues. Amounts x in slots of their server are log(1 + x), at most LOG_BOUND."""
QUEUE_STATION = len(QUEUE_FEATURES) - 1
"""The column that holds the index of the BS."""


@dataclass(frozen=True, kw_only=True)
class QueueActions:
    """Actions [..., K, 3] in [-1, 1]: corrections of the proportional rule, which the zero action is.

    The first column multiplies an MU's share of its BS by e^(compute_range a), then the shares of a BS are normalised.
    The second multiplies the odds of the upload fraction that is best for that share by e^(upload_range a). The third
    multiplies the weight of due training beside inference within the share by e^(training_range a).
    """

    compute_range: float
    upload_range: float
    training_range: float

    def allocation(self, problem: QueueProblem, action: Tensor) -> QueueAllocation:
        """What is executed; it violates no constraint."""
        now = problem.now
        compute_a, upload_a, training_a = action.to(problem.captured_bytes.dtype).clamp(-1.0, 1.0).unbind(-1)
        weight = proportional_share(now) * (self.compute_range * compute_a).exp()
        total = serving(station_sum(weight, now), now)
        compute = granted(_part(weight, total), now)
        waiting = problem.uplink_bits / 8
        usual = (best_upload_bytes(now, compute) - waiting).clamp(min=0.0)
        best = _part(torch.minimum(usual, problem.captured_bytes), problem.captured_bytes)
        odds = best * (self.upload_range * upload_a).exp()
        upload = (odds / (1 - best + odds)).clamp(0.0, 1.0) * problem.captured_bytes
        upload = torch.minimum(torch.maximum(upload, problem.least_upload_bytes), problem.captured_bytes)
        upload = torch.where(problem.rate_bps > 0, upload, 0.0)
        inference = problem.station_flop + problem.flop_per_byte * (upload + waiting)
        due = problem.due_flop * (self.training_range * training_a).exp()
        training = _part(due, inference + due)
        return QueueAllocation(
            upload_bytes=upload,
            inference_flops=compute * (1 - training),
            training_flops=compute * training,
        )


def price_s(problem: QueueProblem, allocation: QueueAllocation) -> PerUser:
    """Delay of each MU's new task behind what waits, at the rates of this slot, s [..., K]; as `QueueProblem.now` has
    it, without the training: what waits at the BS delays even an MU whose new data stay there."""
    local_s = problem.local_flop + problem.flop_per_byte * (problem.captured_bytes - allocation.upload_bytes)
    local_s = local_s / problem.mu_flops
    data = allocation.upload_bytes + problem.uplink_bits / 8
    sent_s = torch.where(data > 0, 8 * data / problem.rate_bps + problem.downlink_s, 0.0)
    work = problem.station_flop + problem.flop_per_byte * data
    return torch.maximum(local_s, sent_s + torch.where(work > 0, work / allocation.inference_flops, 0.0))


def observe_queues(problem: QueueProblem) -> Tensor:
    """Observation [..., K, len(QUEUE_FEATURES)] of each MU, float32."""
    now, slot_s = problem.now, problem.slot_s
    usual = QueueActions(compute_range=0.0, upload_range=0.0, training_range=0.0)
    allocation = usual.allocation(problem, problem.captured_bytes.new_zeros(*problem.station.shape, 3))
    price = price_s(problem, allocation) / slot_s
    capacity = problem.station_flops.gather(-1, problem.station) * slot_s
    sendable = problem.rate_bps * slot_s
    new_flop = problem.flop_per_byte * problem.captured_bytes
    work = problem.flop_per_byte * now.captured_bytes + now.retrain_flop
    columns = [
        _amount(problem.local_flop, problem.mu_flops * slot_s),
        _amount(new_flop, problem.mu_flops * slot_s),
        _amount(problem.uplink_bits, sendable),
        _amount(8 * problem.captured_bytes, sendable),
        _amount(problem.station_flop, capacity),
        _amount(new_flop, capacity),
        proportional_share(now).clamp(min=1e-30).log().clamp(min=-LOG_BOUND),
        _amount(problem.due_flop, capacity),
        _amount(problem.training_flop, capacity),
        _amount(price, torch.ones_like(price)),
        _amount(serving(station_max(price, now), now), torch.ones_like(price)),
        _amount(serving(station_sum(work, now), now), capacity),
        _amount(serving(station_sum(problem.due_flop, now), now), capacity),
        _part(allocation.upload_bytes, problem.captured_bytes),
        problem.station,
    ]
    return torch.stack([column.to(torch.float32) for column in columns], -1)


def _amount(value: Tensor, unit: Tensor) -> Tensor:
    """log(1 + value / unit), at most LOG_BOUND; 0 where there is none."""
    ratio = torch.where(value > 0, value / torch.where(value > 0, unit, 1.0), 0.0)
    return ratio.log1p().clamp(max=LOG_BOUND)


def _part(value: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, value / torch.where(whole > 0, whole, 1.0), 0.0)
