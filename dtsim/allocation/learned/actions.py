"""Action (18): the meaning of a policy's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from dtsim.allocation.learned.observation import WORK, decode
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    granted,
    serving,
    split_delay_s,
    station_sum,
    user_delay_s,
)

ActionKind: TypeAlias = Literal["residual", "simplex", "raw"]
"""A correction of the proportional allocation, shares that sum to 1 by construction, or free shares (the paper's)."""

SHARE_FLOOR = 1e-3
"""Smallest `raw` share: with zero compute, an MU's delay would be infinite."""


@dataclass(frozen=True, kw_only=True)
class Actions:
    """Actions [..., K, columns] in [-1, 1] of one kind.

    "residual": see `decode`. "simplex": the softmax of compute_range times the first column shares each BS's compute
    among its MUs; the second column is the upload fraction, mapped from [-1, 1] to [0, 1]. "raw": share of the BS's
    compute, upload fraction and local fraction, each mapped from [-1, 1] to [0, 1]. Raw shares may exceed the capacity,
    eq. (6), and raw fractions may not sum to 1; training adds the penalties of (19) for both.
    """

    kind: ActionKind
    compute_range: float
    upload_range: float

    @property
    def columns(self) -> int:
        """Number of outputs of the policy for each MU."""
        return 3 if self.kind == "raw" else 2

    def allocation(self, problem: AllocationProblem, action: Tensor) -> Allocation:
        """The allocation that is executed; it violates no constraint.

        A `raw` action is projected: the shares of an overloaded BS are scaled down to its capacity, and the MU
        computes all data that it does not upload.
        """
        if self.kind == "residual":
            return decode(problem, action, self.compute_range, self.upload_range)
        first, second = _unit(problem, action)[:2]
        if self.kind == "simplex":
            weight = (self.compute_range * (2 * first - 1)).exp()
            share = weight / serving(station_sum(weight, problem), problem)
        else:
            share = _above_floor(first)
            share = share / serving(station_sum(share, problem), problem).clamp(min=1.0)
        upload = torch.where(problem.rate_bps > 0, second * problem.captured_bytes, 0.0)
        upload = torch.maximum(upload, problem.least_upload_bytes)
        return Allocation(compute_flops=granted(share, problem), upload_bytes=upload)

    def delay_s(self, problem: AllocationProblem, action: Tensor) -> Tensor:
        """Delay of each MU [..., K], s, that the reward uses: executed, or as a `raw` action asks before projection."""
        if self.kind != "raw":
            return user_delay_s(problem, self.allocation(problem, action))
        first, second, third = _unit(problem, action)
        compute = _above_floor(first) * serving(problem.station_flops, problem)
        upload = torch.where(problem.rate_bps > 0, second * problem.captured_bytes, 0.0)
        return split_delay_s(problem, third * problem.captured_bytes, upload, compute)

    def penalty(self, problem: AllocationProblem, action: Tensor, data: float, compute: float) -> Tensor:
        """Penalties of (19) [...]: `data` times the sum over MUs of |D_loc + D_up - D| / D, plus `compute` times the
        sum over BSs of the excess over their capacity, as a fraction of it. 0 unless the actions are `raw`."""
        if self.kind != "raw":
            return action.new_zeros(action.shape[:-2])
        first, second, third = _unit(problem, action)
        excess = (station_sum(_above_floor(first), problem) - 1.0).clamp(min=0.0)
        return data * (second + third - 1.0).abs().sum(-1) + compute * excess.sum(-1)

    def log_gain(self, observation: Tensor, action: Tensor, members: Tensor) -> Tensor:
        """Log of the ratio of each MU's share to its proportional share [..., K], as an input of a critic.

        Args:
            observation: [..., K, F].
            action: [..., K, columns] in [-1, 1].
            members: 1 where a BS serves an MU [..., K, M].
        """
        usual, first = observation[..., WORK], action[..., 0]
        if self.kind == "raw":
            return _above_floor((first + 1) / 2).log() - usual
        weight = self.compute_range * first
        if self.kind == "residual":
            weight = weight + usual
        total = members @ (members.mT @ weight.exp().unsqueeze(-1))
        return weight - total.squeeze(-1).log() - usual


def _unit(problem: AllocationProblem, action: Tensor) -> tuple[Tensor, ...]:
    """Columns of `action` mapped to [0, 1], in the problem's dtype."""
    return ((action.to(problem.captured_bytes.dtype).clamp(-1.0, 1.0) + 1) / 2).unbind(-1)


def _above_floor(fraction: Tensor) -> Tensor:
    return SHARE_FLOOR + (1 - SHARE_FLOOR) * fraction
