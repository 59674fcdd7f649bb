"""Held-out worlds in which time passes: the same tasks, fading and training jobs for every allocator."""

from __future__ import annotations

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
class TaskOutcome:
    """What an allocator made of the hours."""

    delay_s: Tensor
    """Of every task [T, S W, K], s; from its arrival to the end if it is under way then."""
    overdue_flop: Tensor
    """Training that is behind its pace after every slot [T, S W, K]."""
    backlog_flop: Tensor
    """Inference that waits after every slot [T, S W, K]."""
    trained: Tensor
    """Share of the training work that was done at the end [S W, K]; 1 where there was none."""
    growth: Tensor
    """By how much waiting inference and overdue training grew between the middles of the second and the last quarter,
    over the work that came in between [S W, 1]."""


Serve = Callable[[QueueProblem], QueueAllocation]


def passed(hours: Hours, serve: Serve, load: float | Tensor) -> TaskOutcome:
    """Pass the hours with `serve` at `load`, one for all or [S W, 1]: tasks are followed exactly, one by one."""
    frames, (slots, rows, users) = hours.frames, hours.captured_bytes.shape
    capacity = frames.station_flops.double().expand(rows, -1)
    mu_flops = torch.full((rows, users), frames.mu_flops, dtype=torch.float64)
    queues = TaskQueues((rows, users), hours.slot_s)
    left = torch.zeros(rows, users, dtype=torch.float64)
    asked, behind = left.clone(), left.clone()  # behind: below 0 where a job is ahead of its pace
    pace = hours.job_flop / hours.horizon
    done, overdue, backlogs = [], [], []
    for slot in range(slots):
        if slot % hours.horizon == 0:
            left = left + hours.job_flop
            asked = asked + hours.job_flop
        captured = load * hours.captured_bytes[slot]
        due = torch.minimum((behind + pace).clamp(min=0.0), left)
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
        behind = behind + pace - trained
        overdue.append(behind.clamp(min=0.0))
        local, bits, there = queues.waiting
        backlogs.append(local + frames.flop_per_byte * bits / 8 + there)
        done += queues.retire()
    done += queues.retire(everything=True)
    quarter = max(1, slots // 4)
    waiting = torch.stack(overdue) + torch.stack(backlogs)
    grown = waiting[-quarter:].mean(0) - waiting[-3 * quarter : -2 * quarter].mean(0)
    came = 2 * quarter * (load * frames.flop_per_byte * hours.captured_bytes.mean(0) + pace)
    return TaskOutcome(
        delay_s=_delays_s(done, slots * hours.slot_s, frames.downlink_s),
        overdue_flop=torch.stack(overdue),
        backlog_flop=torch.stack(backlogs),
        trained=torch.where(asked > 0, 1 - left / torch.where(asked > 0, asked, 1.0), 1.0),
        growth=grown.sum(-1, keepdim=True) / came.sum(-1, keepdim=True),
    )


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


def largest_stable_loads(hours: Hours, serve: Serve, *, most: float, halvings: int, growth: float) -> Tensor:
    """The largest load of every world [S, W], up to `most`, at which it is stable: of the work that comes, at most the
    part `growth` adds to what waits. By bisection; 0 for a world that is not stable at the least load tried."""
    low = torch.zeros(hours.job_flop.shape[0], 1, dtype=torch.float64)
    high = torch.full_like(low, most)
    for _ in range(halvings):
        middle = (low + high) / 2
        stable = passed(hours, serve, middle).growth <= growth
        low, high = torch.where(stable, middle, low), torch.where(stable, high, middle)
    return low.view(hours.seeds, -1)
