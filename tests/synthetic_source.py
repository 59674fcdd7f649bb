"""A made-up network for tests of the allocators: three BSs in a triangle, MUs anywhere around them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dtsim.allocation.problem import AllocationProblem, Frames

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

        distance_m = self._distance_m(uniform(slots, users, 2))
        fading = -torch.log1p(-uniform(slots, users, 3))
        rate_bps = 20e6 * torch.log2(1 + _snr(distance_m) * fading)
        images = torch.floor(10 + 21 * uniform(slots, users))
        retrain_flop = self._retrain_flop(uniform, slots, users)
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

    def frames(self, networks: int, users: int, generator: torch.Generator) -> Frames:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        distance_m = self._distance_m(uniform(networks, users, 2))
        station = distance_m.argmin(-1)
        return Frames(
            station=station,
            retrain_flop=self._retrain_flop(uniform, networks, users),
            snr=_snr(distance_m).gather(-1, station.unsqueeze(-1)).squeeze(-1),
            correlation=2 * uniform(networks, users) - 1,
            captured_bytes=BYTES_PER_IMAGE * torch.arange(10.0, 31.0),
            station_flops=torch.full((3,), 50e9),
            mu_flops=1e9,
            flop_per_byte=FLOP_PER_IMAGE / BYTES_PER_IMAGE,
            downlink_s=1e-3,
            bandwidth_hz=20e6,
            fades=True,
        )

    @staticmethod
    def _distance_m(position: Tensor) -> Tensor:
        distance_m: Tensor = torch.linalg.vector_norm(200.0 * position.unsqueeze(-2) - STATIONS_M, dim=-1)
        return distance_m.clamp(min=1.0)

    def _retrain_flop(self, uniform: Callable[..., Tensor], slots: int, users: int) -> Tensor:
        retrains = uniform(slots, users) < self.retraining * uniform(slots, 1)
        return retrains * (0.4e9 + 1.2e9 * uniform(slots, users))

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


def _snr(distance_m: Tensor) -> Tensor:
    loss = (4 * math.pi * distance_m * 3.5e9 / 299_792_458.0).square()
    return 10 ** ((-10 + 100) / 10) / loss
