"""Rules that see the queues: drift plus penalty and max-weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from dtsim.allocation.allocator import AllocatorKeys
from dtsim.allocation.heuristics import Proportional, shared
from dtsim.allocation.problem import Allocation, AllocationProblem, granted, system_delay_s
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem
from dtsim.allocation.queues.queue_work import Work, at_users, spread, station_total
from dtsim.core.parts import part

_HALVINGS = 40
_GIGA = 1e9


@dataclass(frozen=True)
class _Wanted:
    """New work that is uploaded, inference and training that are done in the slot, FLOP; [..., K] each."""

    upload: Tensor
    inference: Tensor
    training: Tensor

    @property
    def each(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.upload, self.inference, self.training

    def of_stations(self, work: Work) -> Tensor:
        """What is asked of every BS [..., M]."""
        return station_total(self.inference + self.training, work.station, work.capacity.shape[-1])


@part
class QueueRule(AllocatorKeys):
    """The keys that rules which see queues share."""

    training_weight: float = Field(default=0.01, gt=0.0, le=1e6)
    """What training that is behind its pace counts beside inference that waits: at 0.01 training may be a hundred times
    as far behind, since a job has a window of slots, and a task a deadline of about one."""


@part
class DriftPlusPenalty(QueueRule):
    """Drift plus penalty (Neely, Stochastic Network Optimization, 2010; with offloading: Bi et al., LyDROO, 2021).

    In every slot it minimises the sum of half the squares of what is left at its end in the MUs' queues, on the links,
    at the BSs, where what is on its way counts too, and, times `training_weight`, of the training that is behind its
    pace, all in FLOP, plus `weight` times the energy that the new data will take. That is convex; a price of each BS's
    compute, found by bisection, separates the MUs, and for a price every MU's split is the root of a piecewise linear
    function.
    """

    weight: float = Field(default=0.0, ge=0.0, le=1e6)
    """V, what energy counts beside queues [GFLOP²/J]: at 0.01 a joule per GFLOP weighs as much as 0.01 GFLOP that
    waits; 0: energy does not count."""

    def serve(self, problem: QueueProblem) -> QueueAllocation:
        """The exact minimum of drift plus penalty, any leading dimensions; in float64, returned in the problem's type.

        Where several splits leave the same drift, the one with the least delay is taken.
        """
        work = Work.of(problem)
        free = self._wanted(work, torch.zeros_like(work.capacity), tied=True)
        fits = free.of_stations(work) <= work.capacity
        most = torch.maximum(work.there + work.way + work.new, self.training_weight * work.due).amax(-1, keepdim=True)
        low, high = torch.zeros_like(work.capacity), most.expand_as(work.capacity)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            enough = self._wanted(work, middle).of_stations(work) <= work.capacity
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        # At the price itself an MU may be indifferent: between both sides of it lies what fills the BS.
        more, less = self._wanted(work, low), self._wanted(work, high)
        asked, taken = more.of_stations(work), less.of_stations(work)
        wider = asked > taken
        part = torch.where(wider, (work.capacity - taken) / torch.where(wider, asked - taken, 1.0), 0.0).clamp(0.0, 1.0)
        part, fits = at_users(part, work.station), at_users(fits, work.station)
        upload, inference, training = (
            torch.where(fits, one, two + part * (three - two))
            for one, two, three in zip(free.each, less.each, more.each, strict=True)
        )
        return spread(problem, work, upload, inference, training)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """The split of a slot before which nothing waits, and compute in proportion to the work that it leaves."""
        return _without_backlog(self, problem)

    def _wanted(self, work: Work, price: Tensor, *, tied: bool = False) -> _Wanted:
        """What is best for every MU at the `price` [..., M], FLOP, of its BS's compute: all that waits beyond it is
        done, as far as it is there in the slot."""
        own = at_users(price, work.station)
        upload = self._upload(work, own, tied=tied)
        wanted = (work.there + work.way + upload - own).clamp(min=0.0)
        training = (work.due - own / self.training_weight).clamp(min=0.0)
        return _Wanted(upload, torch.minimum(wanted, work.ready(upload)), training)

    def _upload(self, work: Work, price: Tensor, *, tied: bool = False) -> Tensor:
        """New work that every MU uploads at the price of its BS [..., K]; with `tied`, of several the fastest."""
        energy = self.weight * _GIGA**2 * work.energy
        # Where the slope of drift plus penalty has its kinks; between them it is linear, and it never falls.
        kinks = torch.stack(
            [
                work.local + work.new - work.local_most,
                work.link_most - work.way,
                price - work.there - work.way,
                price + work.link_most - work.way,
            ],
            -1,
        )
        ends = torch.stack([work.least, work.new], -1)
        kinks = torch.minimum(torch.maximum(kinks, ends[..., :1]), ends[..., 1:])
        places = torch.cat([kinks, ends], -1).sort(-1).values  # [..., K, 6]
        on_way = work.way.unsqueeze(-1) + places
        unsent = (on_way - work.link_most.unsqueeze(-1)).clamp(min=0.0)
        here = (work.local + work.new - work.local_most).unsqueeze(-1) - places
        waits = torch.minimum(price.unsqueeze(-1), work.there.unsqueeze(-1) + on_way)
        slope = unsent + torch.maximum(waits, unsent) - here.clamp(min=0.0) + energy.unsqueeze(-1)
        first = _root(places, slope, (slope < 0).sum(-1, keepdim=True))
        if not tied:
            return first
        last = _root(places, slope, (slope <= 0).sum(-1, keepdim=True))
        return torch.minimum(torch.maximum(work.usual, first), last)


def _root(places: Tensor, slope: Tensor, below: Tensor) -> Tensor:
    """Where the piecewise linear `slope` at `places` [..., 6] passes 0, after the first `below` [..., 1] of them."""
    after = below.clamp(max=places.shape[-1] - 1)
    before = (below - 1).clamp(min=0)
    left, right = places.gather(-1, before), places.gather(-1, after)
    at_left, at_right = slope.gather(-1, before), slope.gather(-1, after)
    rise = at_right - at_left
    part = torch.where(rise > 0, -at_left / torch.where(rise > 0, rise, 1.0), 0.0).clamp(0.0, 1.0)
    return (left + part * (right - left)).squeeze(-1)


@part
class MaxWeight(QueueRule):
    """Max-weight (Tassiulas and Ephremides, 1992): all new data go where they are done first if all that waits there
    goes before them, and a BS does the longest of its queues first, of inference and of training that is due, whose
    length counts `training_weight`."""

    def serve(self, problem: QueueProblem) -> QueueAllocation:
        """Closed form, any leading dimensions; in float64, returned in the problem's type."""
        work = Work.of(problem)
        upload = _wholly(problem, work, min(1.0, self.training_weight))
        queues = torch.cat([work.there + work.way + upload, self.training_weight * work.due], -1)  # [..., 2K]
        usable = torch.cat([work.ready(upload), work.due], -1)
        station = torch.cat([work.station, work.station], -1)
        order = queues.argsort(dim=-1, descending=True, stable=True)
        usable, station = usable.gather(-1, order), station.gather(-1, order)
        members = station.unsqueeze(-1) == torch.arange(work.capacity.shape[-1], device=station.device)
        before = torch.where(members, usable.unsqueeze(-1), 0.0).cumsum(-2)  # [..., 2K, M]
        before = before.gather(-1, station.unsqueeze(-1)).squeeze(-1) - usable
        got = torch.minimum((work.capacity.gather(-1, station) - before).clamp(min=0.0), usable)
        inference, training = torch.empty_like(got).scatter(-1, order, got).chunk(2, -1)
        return spread(problem, work, upload, inference, training)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """The split of a slot before which nothing waits, and compute in proportion to the work that it leaves."""
        return _without_backlog(self, problem)


def _wholly(problem: QueueProblem, work: Work, training: float) -> Tensor:
    """New work that every MU uploads: all or the least [..., K]; the part `training` of due training is before it."""
    rate, speed = problem.rate_bps.double(), problem.station_flops.double()
    stations = speed.shape[-1]
    waits = station_total(work.there + work.way + training * work.due, work.station, stations) / speed
    here_s = (work.local + work.new) / problem.mu_flops
    # Work on the link is in FLOP; a byte is c of it.
    sent_s = 8 * (work.way + work.new) / problem.flop_per_byte / torch.where(rate > 0, rate, 1.0)
    there_s = torch.maximum(sent_s + problem.downlink_s, at_users(waits, work.station))
    there_s = there_s + work.new / at_users(speed, work.station)
    return torch.where((there_s < here_s) & (rate > 0), work.new, work.least)


@dataclass(frozen=True)
class _Alone:
    """A slot as a `QueueProblem` of one slot that is as long as the proportional allocation takes."""

    problem: AllocationProblem

    def queues(self) -> QueueProblem:
        problem = self.problem.to(torch.float64)
        length_s = system_delay_s(problem, Proportional().allocate(problem), "makespan")
        length_s = torch.where(torch.isfinite(length_s) & (length_s > 0), length_s, 1.0).unsqueeze(-1)
        none = torch.zeros_like(problem.captured_bytes)
        # Rates become amounts in a slot of 1 s, so that slots of a batch may have different lengths.
        return QueueProblem(
            captured_bytes=problem.captured_bytes,
            rate_bps=problem.rate_bps * length_s,
            local_flop=none,
            uplink_bits=none,
            station_flop=none,
            training_flop=problem.retrain_flop,
            due_flop=problem.retrain_flop,
            station=problem.station,
            station_flops=problem.station_flops * length_s,
            mu_flops=problem.mu_flops * length_s,
            flop_per_byte=problem.flop_per_byte,
            downlink_s=0.0,
            slot_s=1.0,
            least_upload_bytes=problem.least_upload_bytes,
        )


def _without_backlog(rule: DriftPlusPenalty | MaxWeight, problem: AllocationProblem) -> Allocation:
    """The rule's split in a slot that no other follows: so all work is done, and compute is in proportion to it."""
    served = rule.serve(_Alone(problem).queues())
    upload = torch.maximum(served.upload_bytes.to(problem.captured_bytes.dtype), problem.least_upload_bytes)
    upload = torch.minimum(upload, problem.captured_bytes)
    work_flop = problem.flop_per_byte * upload + problem.retrain_flop
    return Allocation(compute_flops=granted(shared(work_flop, problem), problem), upload_bytes=upload)
