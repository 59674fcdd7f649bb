"""Problem P3 of a slot: share each BS's compute among its MUs and split each MU's data, eqs. (3)-(7), (10), (16)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dtsim.core.shapes import PerSlot, PerStation, PerUser
from dtsim.physical import delay
from dtsim.physical.delay import Objective


@dataclass(frozen=True, init=False)
class AllocationProblem:
    """The input of an allocator for one slot, or for a batch of slots (leading dimensions); K MUs, M BSs.

    `station_flops` may be [M] and `mu_flops` a single number: both are expanded to the batch.

    Raises:
        ValueError: if shapes do not match or `station` is not int64.
    """

    captured_bytes: Tensor
    """Data that each MU captured, D [..., K], byte."""
    rate_bps: Tensor
    """Uplink rate of each MU to its serving BS, R [..., K], bit/s."""
    retrain_flop: Tensor
    """Retraining work charged to this slot, b W [..., K], FLOP; always done at the BS."""
    station: Tensor
    """Index of each MU's serving BS [..., K], int64 in 0 … M-1."""
    station_flops: Tensor
    """Compute of each BS, F [..., M], FLOP/s."""
    mu_flops: Tensor
    """Compute of each MU, f_loc [..., K], FLOP/s."""
    flop_per_byte: float
    """Work to infer one byte, c, FLOP/byte."""
    downlink_s: float
    """Delay of returning a result, s, eq. (3); charged to an MU that uploads."""
    least_upload_bytes: Tensor
    """Data that each MU uploads at least [..., K], byte; by default 0."""

    def __init__(
        self,
        *,
        captured_bytes: Tensor,
        rate_bps: Tensor,
        retrain_flop: Tensor,
        station: Tensor,
        station_flops: Tensor,
        mu_flops: Tensor | float,
        flop_per_byte: float,
        downlink_s: float,
        least_upload_bytes: Tensor | None = None,
    ) -> None:
        shape, dtype, device = captured_bytes.shape, captured_bytes.dtype, captured_bytes.device
        per_user = {"rate_bps": rate_bps, "retrain_flop": retrain_flop, "station": station}
        for name, values in {**per_user, "least_upload_bytes": least_upload_bytes}.items():
            if values is not None and values.shape != shape:
                raise ValueError(f"{name}: shape {tuple(values.shape)} must be {tuple(shape)}")
        if station.dtype != torch.int64:
            raise ValueError(f"station: dtype {station.dtype} must be torch.int64")
        vars(self).update(  # the dataclass is frozen, and its fields are not set yet
            captured_bytes=captured_bytes,
            rate_bps=rate_bps,
            retrain_flop=retrain_flop,
            station=station,
            station_flops=station_flops.expand(*shape[:-1], station_flops.shape[-1]),
            mu_flops=torch.as_tensor(mu_flops, dtype=dtype, device=device).expand(shape),
            flop_per_byte=flop_per_byte,
            downlink_s=downlink_s,
            least_upload_bytes=torch.zeros_like(captured_bytes) if least_upload_bytes is None else least_upload_bytes,
        )

    def slots(self, index: int | slice | Tensor) -> AllocationProblem:
        """The slots that `index` selects along the leading dimension."""
        return replace(self, **{name: getattr(self, name)[index] for name in _TENSORS})

    def to(self, target: torch.dtype | torch.device | str) -> AllocationProblem:
        """This problem on another device or in another floating-point type (`station` stays int64)."""
        moved = {name: getattr(self, name).to(target) for name in _TENSORS}
        return replace(self, **moved | {"station": moved["station"].to(torch.int64)})


_TENSORS = (
    *("captured_bytes", "rate_bps", "retrain_flop", "station", "station_flops", "mu_flops"),
    "least_upload_bytes",
)


@dataclass(frozen=True)
class Allocation:
    """An answer to P3."""

    compute_flops: Tensor
    """Compute that each MU gets from its BS, f [..., K], FLOP/s."""
    upload_bytes: Tensor
    """Data that each MU uploads, D_up [..., K], byte; the rest it computes itself."""


@dataclass(frozen=True)
class Shares:
    """An allocation as fractions, which stays valid while the association does not change."""

    compute: Tensor
    """Fraction of its BS's compute that each MU gets [..., K]."""
    upload: Tensor
    """Fraction of its data that each MU uploads [..., K]."""


class ProblemSource(Protocol):
    """Source of training slots for a learned allocator: the twin's copy of the network."""

    def description(self) -> dict[str, object]:
        """All values that determine the slots' distribution (JSON-able); the key of a trained policy."""

    def sample(self, slots: int, users: int, rng: torch.Generator) -> AllocationProblem:
        """`slots` independent slots of `users` MUs [slots, users], float32, on the rng's device (CPU)."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """P networks, each in one frame: what is fixed within the frame, and the distributions of what changes per slot.

    In each slot an MU captures one of `captured_bytes`, all equally likely, and its rate is B log2(1 + snr |h|^2),
    eqs. (1) and (2). Fading starts as h ~ CN(0, 1) and continues as h' = rho h + sqrt(1 - rho^2) w, w ~ CN(0, 1).

    Raises:
        ValueError: if shapes do not match, `station` is out of range or `captured_bytes` is empty.
    """

    station: Tensor
    """Index of each MU's serving BS [P, K], int64."""
    retrain_flop: Tensor
    """Retraining work charged to every slot [P, K], FLOP."""
    snr: Tensor
    """SNR (1) of each MU at its serving BS where |h| = 1, linear [P, K]."""
    correlation: Tensor
    """rho, the correlation of h one slot apart [P, K]."""
    captured_bytes: Tensor
    """Possible amounts of data that an MU captures in a slot [L], byte."""
    station_flops: Tensor
    """Compute of each BS [M], FLOP/s."""
    mu_flops: float
    """Compute of an MU, FLOP/s."""
    flop_per_byte: float
    """Work to infer one byte, c, FLOP/byte."""
    downlink_s: float
    """Delay of returning a result, s."""
    bandwidth_hz: float
    """Uplink bandwidth of an MU, B, Hz."""
    fades: bool
    """Whether h changes; otherwise it stays 1."""

    def __post_init__(self) -> None:
        shape = self.station.shape
        for name in ("retrain_flop", "snr", "correlation"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: shape {tuple(getattr(self, name).shape)} must be {tuple(shape)}")
        if self.station.min() < 0 or self.station.max() >= len(self.station_flops):
            raise ValueError(f"station: must be in 0 … {len(self.station_flops) - 1}")
        if not len(self.captured_bytes):
            raise ValueError("captured_bytes: must not be empty")

    def problem(self, network: Tensor, captured_bytes: Tensor, rate_bps: Tensor) -> AllocationProblem:
        """A slot of each network in `network` [N], with the drawn `captured_bytes` and `rate_bps` [N, K]."""
        return AllocationProblem(
            captured_bytes=captured_bytes,
            rate_bps=rate_bps,
            retrain_flop=self.retrain_flop[network],
            station=self.station[network],
            station_flops=self.station_flops,
            mu_flops=self.mu_flops,
            flop_per_byte=self.flop_per_byte,
            downlink_s=self.downlink_s,
        )


class FrameSource(ProblemSource, Protocol):
    """A source whose slots also come in frames, as in the two-timescale model."""

    def frames(self, networks: int, users: int, rng: torch.Generator) -> Frames:
        """`networks` independent networks of `users` MUs, float32, on the rng's device (CPU)."""


def station_sum(values: PerUser, problem: AllocationProblem) -> PerStation:
    """Sum of `values` [..., K] over the MUs of each BS: [..., M]."""
    return torch.zeros_like(problem.station_flops, dtype=values.dtype).scatter_add(-1, problem.station, values)


def station_max(values: PerUser, problem: AllocationProblem) -> PerStation:
    """Largest of the non-negative `values` [..., K] among the MUs of each BS, 0 where it has none: [..., M]."""
    return delay.slowest(values, problem.station, problem.station_flops.shape[-1])


def serving(values: PerStation, problem: AllocationProblem) -> PerUser:
    """For each MU [..., K], the entry of `values` [..., M] of its serving BS."""
    return values.gather(-1, problem.station)


def inference_flop(problem: AllocationProblem) -> PerUser:
    """Work of inferring all captured data, c D [..., K], FLOP."""
    return problem.flop_per_byte * problem.captured_bytes


def granted(share: PerUser, problem: AllocationProblem) -> PerUser:
    """Compute in FLOP/s for `share` [..., K] of the serving BS's capacity; shares of a BS sum to at most 1.

    The result is reduced by the rounding error of a sum of K terms, so that (6) holds exactly.
    """
    margin = 1.0 - share.shape[-1] * torch.finfo(share.dtype).eps
    return share * serving(problem.station_flops, problem) * margin


def user_delay_s(problem: AllocationProblem, allocation: Allocation) -> PerUser:
    """Delay of each MU [..., K], s, eqs. (3)-(5), (10); infinite if it needs its BS but has no compute or no rate."""
    local_bytes = problem.captured_bytes - allocation.upload_bytes
    return split_delay_s(problem, local_bytes, allocation.upload_bytes, allocation.compute_flops)


def split_delay_s(
    problem: AllocationProblem, local_bytes: PerUser, upload_bytes: PerUser, compute_flops: PerUser
) -> PerUser:
    """`user_delay_s` with the locally computed data given separately from the upload; [..., K] each."""
    return delay.user_delay_s(
        delay.local_delay_s(local_bytes, problem.flop_per_byte, problem.mu_flops),
        delay.upload_delay_s(upload_bytes, problem.rate_bps, problem.downlink_s),
        delay.compute_delay_s(upload_bytes, problem.flop_per_byte, compute_flops),
        delay.retrain_delay_s(problem.retrain_flop, compute_flops),
    )


def station_delay_s(problem: AllocationProblem, delay_s: PerUser) -> PerStation:
    """Largest of the MUs' delays [..., K] at each BS [..., M], s; 0 for a BS without MUs."""
    return station_max(delay_s, problem)


def system_delay_s(problem: AllocationProblem, allocation: Allocation, objective: Objective) -> PerSlot:
    """System delay of each slot [...], s: the slowest MU (`makespan`) or each BS's slowest, summed (`sum`).

    Raises:
        ValueError: if `objective` is unknown.
    """
    stations = problem.station_flops.shape[-1]
    return delay.system_delay_s(user_delay_s(problem, allocation), problem.station, stations, objective)


def best_upload_bytes(problem: AllocationProblem, compute_flops: PerUser) -> PerUser:
    """The split that minimises each MU's delay at a given `compute_flops` [..., K]: bytes to upload [..., K].

    Both parts finish together: c (D - U) / f_loc = 8 U / R + downlink + (c U + W) / f, or U = 0 if the BS's part
    would finish later even without data; never less than the least upload. An MU without rate or compute uploads
    nothing beyond that.
    """
    local_s_per_byte = problem.flop_per_byte / problem.mu_flops
    remote_s_per_byte = 8 / problem.rate_bps + problem.flop_per_byte / compute_flops
    retrain_s = torch.where(problem.retrain_flop > 0, problem.retrain_flop / compute_flops, 0.0)
    lead_s = local_s_per_byte * problem.captured_bytes - problem.downlink_s - retrain_s
    upload = lead_s.clamp(min=0.0) / (local_s_per_byte + remote_s_per_byte)
    return torch.minimum(torch.maximum(upload, problem.least_upload_bytes), problem.captured_bytes)


def held(problem: AllocationProblem, allocation: Allocation) -> Shares:
    """`allocation` as shares, for reuse in later slots with the same association."""
    upload = allocation.upload_bytes / problem.captured_bytes
    return Shares(
        compute=allocation.compute_flops / serving(problem.station_flops, problem),
        upload=torch.where(problem.captured_bytes > 0, upload, 0.0),
    )


def apply(shares: Shares, problem: AllocationProblem) -> Allocation:
    """The allocation that `shares` give in another slot."""
    upload = torch.maximum(shares.upload * problem.captured_bytes, problem.least_upload_bytes)
    return Allocation(
        compute_flops=shares.compute * serving(problem.station_flops, problem),
        upload_bytes=torch.minimum(upload, problem.captured_bytes),
    )
