"""A made-up network for tests of the allocators: three BSs in a triangle, MUs anywhere around them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dtsim.allocation.problem import AllocationProblem

STATIONS_M = torch.tensor([[50.0, 70.0], [150.0, 70.0], [100.0, 70.0 + 50.0 * math.sqrt(3.0)]])
FLOP_PER_IMAGE, BYTES_PER_IMAGE = 3.85e6, 784.0


@dataclass(frozen=True)
class SyntheticSource:
    """Slots with independent positions, Rayleigh fading, tasks, associations and retraining loads."""

    retraining: float = 0.6
    """Highest probability, drawn per slot, that an MU retrains."""

    def description(self) -> dict[str, Any]:
        return {"source": "synthetic", "retraining": self.retraining}

    def sample(self, slots: int, users: int, generator: torch.Generator) -> AllocationProblem:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        position_m = 200.0 * uniform(slots, users, 2)
        distance_m = torch.linalg.vector_norm(position_m.unsqueeze(-2) - STATIONS_M, dim=-1).clamp(min=1.0)
        loss = (4 * math.pi * distance_m * 3.5e9 / 299_792_458.0).square()
        snr = 10 ** ((-10 + 100) / 10) / loss  # [slots, users, 3]
        fading = -torch.log1p(-uniform(slots, users, 3))
        rate_bps = 20e6 * torch.log2(1 + snr * fading)
        images = torch.floor(10 + 21 * uniform(slots, users))
        retrains = uniform(slots, users) < self.retraining * uniform(slots, 1)
        retrain_flop = retrains * (0.4e9 + 1.2e9 * uniform(slots, users))
        balanced = self._balanced(FLOP_PER_IMAGE * images + retrain_flop)
        station = torch.where(uniform(slots, 1) < 0.5, distance_m.argmin(-1), balanced)
        return AllocationProblem(
            captured_bytes=BYTES_PER_IMAGE * images,
            rate_bps=rate_bps.gather(-1, station.unsqueeze(-1)).squeeze(-1),
            retrain_flop=retrain_flop,
            station=station,
            station_flops=torch.full((3,), 50e9),
            mu_flops=1e9,
            flop_per_byte=FLOP_PER_IMAGE / BYTES_PER_IMAGE,
            downlink_s=1e-3,
        )

    @staticmethod
    def _balanced(work_flop: Tensor) -> Tensor:
        """Each MU to the BS with least work so far, the largest work first."""
        order = work_flop.argsort(-1, descending=True)
        load = torch.zeros(work_flop.shape[0], 3)
        station = torch.zeros_like(order)
        for user in order.unbind(-1):
            least = load.argmin(-1, keepdim=True)
            load.scatter_add_(-1, least, work_flop.gather(-1, user.unsqueeze(-1)))
            station.scatter_(-1, user.unsqueeze(-1), least)
        return station
