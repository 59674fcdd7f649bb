"""Held-out worlds in which time passes: the same tasks, fading and training jobs for every allocator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dtsim.allocation.gym.queue_frames import QueueRules, jobs_of
from dtsim.allocation.problem import Frames, FrameSource
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem
from dtsim.core.seeding import Streams
from dtsim.physical.queues import Finished, TaskQueues


@dataclass(frozen=True)
class Hours:
    """T slots of S seeds with W worlds each, one after another as S W rows; amounts are those of load 1."""

    frames: Frames
    """The worlds; positions and association stay."""
    captured_bytes: Tensor
    """[T, S W, K]."""
    rate_bps: Tensor
    """[T, S W, K]."""
    job_flop: Tensor
    """Training job that arrives with each frame [S W, K], FLOP."""
    seeds: int
    horizon: int
    """Slots of a frame."""
    slot_s: float

    @classmethod
    def drawn(
        cls,
        source: FrameSource,
        *,
        users: int,
        seeds: int,
        worlds: int,
        frames: int,
        training: float,
        rules: QueueRules,
    ) -> Self:
        """Draw them: world w of a seed depends on neither the other seeds nor the number of slots."""
        each = [source.frames(worlds, users, Streams(seed).torch("bench/queues/worlds")) for seed in range(seeds)]
        merged = replace(
            each[0],
            station=torch.cat([one.station for one in each]),
            retrain_flop=torch.cat([one.retrain_flop for one in each]),
            snr=torch.cat([one.snr for one in each]),
            correlation=torch.cat([one.correlation for one in each]),
        )
        captured, rate = zip(
            *(_slots(one, Streams(seed), frames * rules.horizon) for seed, one in enumerate(each)), strict=True
        )
        return cls(
            frames=merged,
            captured_bytes=torch.cat(captured, 1),
            rate_bps=torch.cat(rate, 1),
            job_flop=torch.from_numpy(jobs_of(merged, rules)),
            seeds=seeds,
            horizon=rules.horizon,
            slot_s=rules.slot_s,
        )

    @property
    def inference_flops(self) -> float:
        """What inference asks for at load 1, mean over worlds, FLOP/s."""
        return float(self.captured_bytes.sum(-1).mean()) * self.frames.flop_per_byte / self.slot_s

    @property
    def training_flops(self) -> float:
        """What training asks for, mean over worlds, FLOP/s."""
        return float(self.job_flop.sum(-1).mean()) / (self.horizon * self.slot_s)

    @property
    def capacity_flops(self) -> float:
        """Compute of all BSs and MUs of a world, FLOP/s."""
        return float(self.frames.station_flops.double().sum()) + self.job_flop.shape[-1] * self.frames.mu_flops


def _slots(frames: Frames, streams: Streams, slots: int) -> tuple[Tensor, Tensor]:
    """Captured data and rates [T, W, K] of `slots` slots."""
    rng, shape = streams.torch("bench/queues/slots"), frames.station.shape
    correlation, snr = frames.correlation.double(), frames.snr.double()
    innovation = (1 - correlation.square()).clamp(min=0.0).sqrt()
    fading = torch.ones(*shape, dtype=torch.complex128)
    captured, rate = [], []
    for slot in range(slots):
        if frames.fades:
            drawn = torch.randn(*shape, generator=rng, dtype=torch.complex128)  # CN(0, 1)
            fading = drawn if slot == 0 else correlation * fading + innovation * drawn
        rate.append(frames.bandwidth_hz * torch.log2(1 + snr * fading.abs().square()))
        law = frames.captured_bytes.double()
        captured.append(law[torch.randint(len(law), shape, generator=rng)])
    return torch.stack(captured), torch.stack(rate)


@dataclass(frozen=True)
class Outcome:
    """What an allocator made of the hours; [S] each, for every seed."""

    delay_s: Tensor
    """Mean delay of a task; one that is under way at the end counts with its age."""
    delay_p95_s: Tensor
    misses: Tensor
    """Share of tasks that took longer than the deadline."""
    overdue_slots: Tensor
    """Training that is behind its pace, mean over slots and MUs with a job, in slots of that pace."""
    trained: Tensor
    """Share of the training work that was done at the end."""
    backlog_flop: Tensor
    """Inference that waits at the end, mean over MUs."""
    growth: Tensor
    """Growth of waiting inference and overdue training over the last half, over the work that came in it."""


Serve = Callable[[QueueProblem], QueueAllocation]


def simulated(hours: Hours, serve: Serve, load: float, deadline_s: float) -> Outcome:
    """Pass the hours with `serve` at `load`: tasks are followed exactly, one by one."""
    frames, (slots, rows, users) = hours.frames, hours.captured_bytes.shape
    capacity = frames.station_flops.double().expand(rows, -1)
    mu_flops = torch.full((rows, users), frames.mu_flops, dtype=torch.float64)
    queues = TaskQueues((rows, users), hours.slot_s)
    left = torch.zeros(rows, users, dtype=torch.float64)
    asked, overdue_flop = left.clone(), left.clone()
    done, overdue, backlogs = [], [], []
    for slot in range(slots):
        if slot % hours.horizon == 0:
            left = left + hours.job_flop
            asked = asked + hours.job_flop
        captured = load * hours.captured_bytes[slot]
        due = torch.minimum((overdue_flop + hours.job_flop / hours.horizon).clamp(min=0.0), left)
        local, bits, there = queues.waiting
        problem = QueueProblem(
            captured_bytes=captured,
            rate_bps=hours.rate_bps[slot],
            local_flop=local,
            uplink_bits=bits,
            station_flop=there,
            training_flop=left,
            due_flop=due,
            station=frames.station,
            station_flops=capacity,
            mu_flops=mu_flops,
            flop_per_byte=frames.flop_per_byte,
            downlink_s=frames.downlink_s,
            slot_s=hours.slot_s,
            least_upload_bytes=torch.zeros_like(captured),
        )
        answer = serve(problem)
        upload = answer.upload_bytes
        queues.arrive(frames.flop_per_byte * (captured - upload), 8 * upload, frames.flop_per_byte * upload)
        queues.advance(mu_flops, hours.rate_bps[slot], answer.inference_flops)
        trained = torch.minimum(left, answer.training_flops * hours.slot_s)
        left = left - trained
        # Below 0 where a job is ahead of its pace.
        overdue_flop = overdue_flop + hours.job_flop / hours.horizon - trained
        overdue.append(overdue_flop.clamp(min=0.0))
        local, bits, there = queues.waiting
        backlogs.append(local + frames.flop_per_byte * bits / 8 + there)
        done += queues.retire()
    done += queues.retire(everything=True)
    delays = _delays_s(done, slots * hours.slot_s, frames.downlink_s)
    return _outcome(hours, load, delays, torch.stack(overdue), torch.stack(backlogs), asked, left, deadline_s)


def _delays_s(tasks: Sequence[Finished], end_s: float, downlink_s: float) -> Tensor:
    """Delay of every task [T, S W, K], s; from its arrival to the end if it is under way then."""
    delays = []
    for task in sorted(tasks, key=lambda one: one.slot):
        ends = torch.maximum(task.local_end_s, _returned(task, downlink_s))  # NaN where a part is under way
        delays.append(torch.where(torch.isnan(ends), end_s, ends) - task.arrival_s)
    return torch.stack(delays)


def _returned(task: Finished, downlink_s: float) -> Tensor:
    """When a task's result is back from the BS; its arrival if nothing was uploaded."""
    return task.station_end_s + torch.where(torch.isnan(task.uplink_end_s), 0.0, downlink_s)


def _outcome(
    hours: Hours,
    load: float,
    delays: Tensor,
    overdue: Tensor,
    backlogs: Tensor,
    asked: Tensor,
    left: Tensor,
    deadline_s: float,
) -> Outcome:
    slots = len(delays)

    def of_seeds(values: Tensor) -> Tensor:
        """[S, …] of […, S W, K]."""
        split: Tensor = values.unflatten(-2, (hours.seeds, -1))
        return split.movedim(-3, 0).flatten(1)

    each = of_seeds(delays)
    pace = hours.job_flop / hours.horizon
    jobs = pace > 0
    behind = torch.where(jobs, overdue / torch.where(jobs, pace, 1.0), 0.0)
    waiting = backlogs + overdue
    # Means over quarters, whose middles are half the hours apart.
    quarter = max(1, slots // 4)
    grown = of_seeds(waiting[-quarter:]).mean(-1) - of_seeds(waiting[-3 * quarter : -2 * quarter]).mean(-1)
    came = of_seeds(load * hours.captured_bytes * hours.frames.flop_per_byte + pace).mean(-1) * 2 * quarter
    return Outcome(
        delay_s=each.mean(-1),
        delay_p95_s=each.quantile(0.95, dim=-1),
        misses=(each > deadline_s * (1 + 1e-9)).double().mean(-1),
        overdue_slots=of_seeds(behind).sum(-1) / of_seeds(jobs.expand_as(behind).double()).sum(-1).clamp(min=1.0),
        trained=1 - of_seeds(left).sum(-1) / of_seeds(asked).sum(-1).clamp(min=1.0),
        backlog_flop=of_seeds(backlogs[-1]).mean(-1),
        growth=grown / came,
    )


def largest_stable_load(
    hours: Hours, serve: Serve, *, most: float, halvings: int, growth: float, deadline_s: float
) -> float:
    """The largest load up to `most` at which, of the work that comes, no more than a part `growth` adds to what waits.

    By bisection, on the mean over all worlds of the hours; 0 if the least load tried is not stable.
    """
    low, high = 0.0, most
    for _ in range(halvings):
        middle = (low + high) / 2
        grown = float(simulated(hours, serve, middle, deadline_s).growth.mean())
        stable = math.isfinite(grown) and grown <= growth
        low, high = (middle, high) if stable else (low, middle)
    return low
