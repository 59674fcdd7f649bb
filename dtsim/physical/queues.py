"""Fluid queues of tasks in time that passes: first come, first served, at a rate that is constant within a slot.

A task has a part that its MU computes, and a part that is uploaded and then computed by a base station. The second
stage begins when all of the part has arrived, as in eqs. (3)-(5). Within a slot times are exact: a task's end is where
the curve of served work meets the curve of work that arrived up to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dtsim.core.shapes import PerUser


@dataclass(frozen=True)
class Passed:
    """What one queue of every user did in a slot; [..., K] each, in its unit of work."""

    asked: Tensor
    """Work that joined it."""
    done: Tensor
    """Work done."""
    dropped: Tensor
    """Work given up."""
    waiting: Tensor
    """Work left at the slot's end."""


@dataclass(frozen=True)
class Served:
    """What the three queues of every user did in a slot."""

    local: Passed
    """FLOP at the MU."""
    uplink: Passed
    """Bits from the MU to its base station."""
    station: Passed
    """FLOP of inference at its base station."""
    transmitting_s: Tensor
    """Time in which the MU transmitted, s; [..., K]."""
    local_over: Tensor
    """Tasks, as columns of the queues at that time, whose MU's part ended in the slot; bool [..., K, B]."""
    uplink_over: Tensor
    """Tasks whose uploaded part arrived."""
    station_over: Tensor
    """Tasks whose uploaded part was inferred."""


@dataclass(frozen=True)
class Finished:
    """Tasks that left the queues, those of one slot for every user; [..., K] each. Times in s, NaN where there is none.

    A part without work takes no time. A dropped task has infinite ends where it was dropped.
    """

    slot: int
    """The slot in which they arrived."""
    arrival_s: float
    local_start_s: Tensor
    local_end_s: Tensor
    uplink_end_s: Tensor
    station_start_s: Tensor
    station_end_s: Tensor


def serve(left: Tensor, available_s: Tensor, rate: PerUser, length_s: float) -> tuple[Tensor, Tensor, Tensor]:
    """Serve tasks in their order for `length_s`.

    The end of task j is max over i <= j of (a_i + sum of s_i … s_j), Lindley's recursion written out, where a is when a
    task is available and s how long it takes.

    Args:
        left: work of each task, in their order; [..., K, B].
        available_s: when it may begin, from the start of the slot; infinite if not in this slot; [..., K, B].
        rate: work per second; [..., K].
        length_s: of the slot.

    Returns:
        The work done, and each task's start and end in s from the start of the slot, which may be beyond it; those of a
        task without work are infinite; [..., K, B] each.
    """
    idle = (rate <= 0).unsqueeze(-1)
    pace = torch.where(idle, 1.0, rate.unsqueeze(-1))
    takes_s = left / pace
    upto_s = takes_s.cumsum(-1)
    waits = left > 0
    lead_s = torch.where(waits, available_s - (upto_s - takes_s), -torch.inf)
    end_s = upto_s + lead_s.cummax(-1).values
    end_s = torch.where(waits & ~idle, end_s, torch.inf)
    start_s = torch.where(waits & ~idle, end_s - takes_s, torch.inf)
    # A difference of equal times may be a rounding error below them.
    start_s = torch.maximum(start_s, torch.where(waits, available_s, torch.inf)).clamp(min=0.0)
    done = torch.where(end_s <= length_s, left, torch.minimum((length_s - start_s).clamp(min=0.0) * pace, left))
    return done, start_s, end_s


class TaskQueues:
    """The tasks of K users that are under way, with any leading batch dimensions; one arrives at each in every slot.

    Columns [..., K, B] are the last B slots, oldest first. `arrive` and `advance` are called in turn, once a slot.
    """

    def __init__(self, shape: tuple[int, ...], slot_s: float, device: torch.device | str = "cpu") -> None:
        """Begin at time 0 with empty queues; `shape` is batch dimensions + (K,)."""
        self.slot_s = slot_s
        self.slot = 0
        """Slots that have passed."""
        self.first = 0
        """The slot of the first column."""
        empty = torch.empty((*shape, 0), dtype=torch.float64, device=device)
        self.local_left, self.uplink_left, self.station_left = empty, empty, empty
        self.local_start, self.local_end, self.uplink_end = empty, empty, empty
        self.station_start, self.station_end = empty, empty
        none = empty.new_zeros(shape)
        self._joined = [none, none]
        self._dropped = [none, none, none]
        self.blocked_until_s = none
        """Before this time no task of a user begins at its base station; [..., K]."""

    @property
    def now_s(self) -> float:
        """The start of the current slot, s."""
        return self.slot * self.slot_s

    @property
    def arrival_s(self) -> Tensor:
        """When the tasks of each column arrived, s; [B]."""
        slots = torch.arange(self.first, self.first + self.local_left.shape[-1], device=self.local_left.device)
        return slots * self.slot_s

    @property
    def waiting(self) -> tuple[Tensor, Tensor, Tensor]:
        """Work that waits: FLOP at the MU, bits at the MU, and FLOP at the base station; [..., K] each."""
        there = torch.where(self._arrived, self.station_left, 0.0)
        return self.local_left.sum(-1), self.uplink_left.sum(-1), there.sum(-1)

    @property
    def _arrived(self) -> Tensor:
        """Whether a task's uploaded part has arrived; [..., K, B]."""
        return torch.isfinite(self.uplink_end)

    def drop(self, age_s: float) -> Tensor:
        """Give up what is left of tasks that arrived `age_s` or longer ago; whether a task was given up [..., K, B]."""
        late = (self.now_s - self.arrival_s >= age_s - 1e-9 * self.slot_s) & (
            (self.local_left > 0) | (self.uplink_left > 0) | (self.station_left > 0)
        )
        there = self._arrived
        gone = [torch.where(late, left, 0.0) for left in (self.local_left, self.uplink_left, self.station_left)]
        gone[2] = torch.where(there, gone[2], 0.0)
        self._dropped = [before + own.sum(-1) for before, own in zip(self._dropped, gone, strict=True)]
        infinite = torch.inf
        self.local_end = torch.where(late & (self.local_left > 0), infinite, self.local_end)
        self.station_end = torch.where(late & (self.station_left > 0), infinite, self.station_end)
        self.uplink_end = torch.where(late & (self.uplink_left > 0), torch.nan, self.uplink_end)
        zero = torch.zeros_like(self.local_left)
        self.local_left = torch.where(late, zero, self.local_left)
        self.uplink_left = torch.where(late, zero, self.uplink_left)
        self.station_left = torch.where(late, zero, self.station_left)
        return late

    def arrive(self, local_flop: PerUser, uplink_bits: PerUser, station_flop: PerUser) -> None:
        """Add the tasks of the current slot: work of the MU's part, and size and work of the uploaded part."""
        now = torch.full_like(local_flop, self.now_s)
        nan = torch.full_like(local_flop, torch.nan)

        def joined(columns: Tensor, own: Tensor) -> Tensor:
            return torch.cat([columns, own.unsqueeze(-1)], -1)

        self.local_left = joined(self.local_left, local_flop)
        self.uplink_left = joined(self.uplink_left, uplink_bits)
        self.station_left = joined(self.station_left, station_flop)
        self.local_start = joined(self.local_start, nan)
        self.local_end = joined(self.local_end, torch.where(local_flop > 0, nan, now))
        self.uplink_end = joined(self.uplink_end, nan)
        self.station_start = joined(self.station_start, nan)
        self.station_end = joined(self.station_end, torch.where(uplink_bits > 0, nan, now))
        self._joined = [self._joined[0] + local_flop, self._joined[1] + uplink_bits]

    def advance(self, mu_flops: PerUser, rate_bps: PerUser, station_flops: PerUser) -> Served:
        """Pass a slot in which the queues are served at these rates [..., K]."""
        length_s, now = self.slot_s, self.now_s
        at_once = torch.zeros_like(self.local_left)

        local_done, start_s, end_s = serve(self.local_left, at_once, mu_flops, length_s)
        begins = torch.isnan(self.local_start) & (start_s < length_s)
        self.local_start = torch.where(begins, now + start_s, self.local_start)
        local_over = end_s <= length_s
        self.local_end = torch.where(local_over, now + end_s, self.local_end)
        self.local_left = torch.where(local_over, 0.0, self.local_left - local_done)

        sent, _, end_s = serve(self.uplink_left, at_once, rate_bps, length_s)
        uplink_over = end_s <= length_s
        comes = torch.where(uplink_over, self.station_left, 0.0)
        self.uplink_end = torch.where(uplink_over, now + end_s, self.uplink_end)
        self.uplink_left = torch.where(uplink_over, 0.0, self.uplink_left - sent)

        free_s = torch.maximum(self.uplink_end, self.blocked_until_s.unsqueeze(-1)) - now
        free_s = torch.where(self._arrived, free_s.clamp(min=0.0), torch.inf)
        inferred, start_s, end_s = serve(self.station_left, free_s, station_flops, length_s)
        begins = torch.isnan(self.station_start) & (start_s < length_s)
        self.station_start = torch.where(begins, now + start_s, self.station_start)
        station_over = end_s <= length_s
        self.station_end = torch.where(station_over, now + end_s, self.station_end)
        self.station_left = torch.where(station_over, 0.0, self.station_left - inferred)

        waiting = self.waiting
        served = Served(
            local=Passed(self._joined[0], local_done.sum(-1), self._dropped[0], waiting[0]),
            uplink=Passed(self._joined[1], sent.sum(-1), self._dropped[1], waiting[1]),
            station=Passed(comes.sum(-1), inferred.sum(-1), self._dropped[2], waiting[2]),
            transmitting_s=sent.sum(-1) / torch.where(rate_bps > 0, rate_bps, 1.0),
            local_over=local_over,
            uplink_over=uplink_over,
            station_over=station_over,
        )
        none = torch.zeros_like(waiting[0])
        self._joined, self._dropped = [none, none], [none, none, none]
        self.slot += 1
        return served

    def retire(self, everything: bool = False) -> list[Finished]:
        """Remove the oldest slots all of whose tasks have ended, or all slots with `everything`, and return them.

        Ends of tasks that are still under way are NaN.
        """
        over = (self.local_left == 0) & (self.uplink_left == 0) & (self.station_left == 0)
        done = over.flatten(0, -2).all(0)
        count = done.shape[0] if everything else int(done.cumprod(0).sum())
        names = ("local_start", "local_end", "uplink_end", "station_start", "station_end")
        gone = [
            Finished(
                self.first + place,
                (self.first + place) * self.slot_s,
                **{f"{name}_s": getattr(self, name)[..., place] for name in names},
            )
            for place in range(count)
        ]
        if count:
            for name in ("local_left", "uplink_left", "station_left", *names):
                setattr(self, name, getattr(self, name)[..., count:])
            self.first += count
        return gone
