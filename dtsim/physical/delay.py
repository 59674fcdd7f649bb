"""Delays of inference and retraining, equations (3)-(7) and (10): pure functions on any batch dimensions.

Each user k is served by one base station, `station` [..., K] (int64 index). Work is in FLOP, data in byte.
Zero work takes zero time, whatever the rate or share of compute; work at rate 0 takes infinite time.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dtsim.core.shapes import Capacities, PerLink, PerSlot, PerStation, PerUser, Served

Objective = Literal["makespan", "sum"]


def at_station(values: PerLink, station: Served) -> PerUser:
    """`values` [..., M, K] on each user's link to its serving base station, [..., K]."""
    return values.gather(-2, station.unsqueeze(-2)).squeeze(-2)


def upload_delay_s(upload_bytes: PerUser, rate_bps: PerUser, downlink_s: float) -> PerUser:
    """Transmission delay T^tx in s, eq. (3), [..., K]: 8 D^up / R and the fixed return delay.

    `rate_bps` [..., K] is the rate of the serving link. If nothing is uploaded, no result is returned either: 0.
    """
    upload_s = _duration_s(8 * upload_bytes, rate_bps)
    return torch.where(upload_bytes > 0, upload_s + downlink_s, upload_s)


def local_delay_s(local_bytes: PerUser, flop_per_byte: PerUser | float, mu_flops: PerUser | float) -> PerUser:
    """Local compute delay T^loc = c D^loc / f^loc in s, eq. (4), [..., K]."""
    return local_bytes * flop_per_byte / mu_flops


def compute_delay_s(upload_bytes: PerUser, flop_per_byte: PerUser | float, compute_flops: PerUser) -> PerUser:
    """Compute delay T^cmp = c D^up / f at the base station in s, eq. (5), [..., K]; f is the user's share."""
    return _duration_s(upload_bytes * flop_per_byte, compute_flops)


def retrain_delay_s(retrain_flop: PerUser, compute_flops: PerUser) -> PerUser:
    """Retraining delay b T^re = W / f in s, eq. (10), [..., K]; W is the slot's charge, 0 where b = 0."""
    return _duration_s(retrain_flop, compute_flops)


def capacity_excess(compute_flops: PerUser, station: Served, station_flops: Capacities) -> PerStation:
    """Excess of each base station's allocated compute over its capacity, eq. (6), in FLOP/s, [..., M]; 0 if it fits."""
    mask = _serves(station, station_flops.shape[-1])
    given = torch.where(mask, compute_flops.unsqueeze(-2), 0).sum(-1)
    return (given - station_flops).clamp(min=0)


def station_delay_s(
    upload_s: PerUser, compute_s: PerUser, retrain_s: PerUser, station: Served, stations: int
) -> PerStation:
    """Delay T_m of each base station in s, eq. (7), [..., M]: that of its slowest user; 0 if it serves none."""
    return slowest(upload_s + compute_s + retrain_s, station, stations)


def user_delay_s(local_s: PerUser, upload_s: PerUser, compute_s: PerUser, retrain_s: PerUser) -> PerUser:
    """Delay T_k of each user in s, [..., K]: the local part and the base station's part run in parallel."""
    return torch.maximum(local_s, upload_s + compute_s + retrain_s)


def system_delay_s(user_s: PerUser, station: Served, stations: int, objective: Objective) -> PerSlot:
    """System delay of a slot in s, [...], from the users' delays [..., K].

    "makespan" is the slowest user's delay. "sum" adds up the base stations' delays, each the largest T_k of its
    users. This is eq. (7) with the local part included; without it, uploading nothing would cost nothing.

    Raises:
        ValueError: if `objective` is unknown.
    """
    if objective == "makespan":
        return user_s.amax(-1)
    if objective == "sum":
        return slowest(user_s, station, stations).sum(-1)
    raise ValueError(f"objective={objective!r}: must be makespan or sum")


def slowest(user_s: Tensor, station: Tensor, stations: int) -> Tensor:
    """Largest of the non-negative `user_s` [..., K] among each base station's users, [..., M]; 0 if it has none."""
    none_s = user_s.new_zeros(*user_s.shape[:-1], stations)
    return none_s.scatter_reduce(-1, station.expand_as(user_s), user_s, "amax", include_self=True)


def _duration_s(amount: Tensor, speed: Tensor) -> Tensor:
    """amount / speed with 0 / 0 = 0; gradients are finite there too."""
    return amount / torch.where((amount == 0) & (speed == 0), 1, speed)


def _serves(station: Tensor, stations: int) -> Tensor:
    """a_mk as booleans, [..., M, K]."""
    return station.unsqueeze(-2) == torch.arange(stations, device=station.device).unsqueeze(-1)
