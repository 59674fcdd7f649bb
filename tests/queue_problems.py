"""Random slots with queues for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from dtsim.allocation.queues.queue_problem import QueueProblem


def queue_problem(*shape: int, seed: int = 0, stations: int = 3, fill: float = 1.0) -> QueueProblem:
    """Slots [*shape] = [..., K] in which MUs lack data, a link, a queue or a job; `fill` scales what waits."""
    rng = torch.Generator().manual_seed(seed)

    def some(most: float, missing: float = 0.3) -> Tensor:
        there = torch.rand(shape, generator=rng, dtype=torch.float64) >= missing
        return there * most * torch.rand(shape, generator=rng, dtype=torch.float64)

    training = some(20e9)
    captured = some(2e5, 0.1)
    return QueueProblem(
        captured_bytes=captured,
        rate_bps=some(1e8, 0.1),
        local_flop=some(fill * 0.5e9),
        uplink_bits=some(fill * 4e6),
        station_flop=some(fill * 2e9),
        training_flop=training,
        due_flop=torch.minimum(some(fill * 4e9), training),
        station=torch.randint(stations, shape, generator=rng),
        station_flops=torch.full((*shape[:-1], stations), 50e9, dtype=torch.float64),
        mu_flops=torch.full(shape, 1e9, dtype=torch.float64),
        flop_per_byte=4910.7,
        downlink_s=1e-3,
        slot_s=0.1,
        least_upload_bytes=0.2 * captured * (training > 10e9),
    )
