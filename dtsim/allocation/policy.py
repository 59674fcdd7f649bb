"""State (17), action (18) and the networks of a learned allocator: one small network shared by all MUs.

An MU's network sees the MU and the mean over the MUs of its BS, so one set of weights serves any K and M.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from dtsim.allocation.heuristics import proportional_share, with_best_split
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    best_upload_bytes,
    granted,
    inference_flop,
    serving,
    station_delay_s,
    station_sum,
    user_delay_s,
)

Reward: TypeAlias = Literal["station_log_ratio", "log_ratio"]
"""What a learner is paid for, eq. (19): the delay of every BS, or of the slowest only, over the proportional one."""

FEATURES = (
    "log of the time to infer all of its data itself, over the BS's delay under the proportional share",
    "log of the time to upload all of its data, over the same",
    "log of its share of the BS's work (data and retraining)",
    "log of its delay under the proportional share, over the BS's",
    "log of the BS's work over its capacity, over the BS's delay",
    "log of the BS's delay over the slot's longest",
    "part of its work that is retraining",
    "part of its data that it uploads under the proportional share",
    "return delay over the BS's delay",
    "index of its BS",
)
"""Columns of an observation, eq. (17). Ratios only: slots with and without retraining differ tenfold in scale.

Model age and generated data act on a slot through the retraining work alone, so that stands for them.
"""

LOG_BOUND = 8.0
"""Logarithms are cut at this magnitude; e^-8 of a BS's delay is nothing."""
_TINY = 1e-30
_WORK, _DELAY, _STATION = 2, 3, 9  # columns that the critic reads by meaning
_SLOT_DELAY = 5


def observe(problem: AllocationProblem) -> Tensor:
    """Observation [..., K, len(FEATURES)] of each MU, float32, eq. (17)."""
    share = proportional_share(problem)
    allocation = with_best_split(share, problem)
    delay_s = user_delay_s(problem, allocation)
    station_s = station_delay_s(problem, delay_s)
    scale_s = serving(station_s, problem)
    work_flop = inference_flop(problem) + problem.retrain_flop
    station_work_s = serving(station_sum(work_flop, problem) / problem.station_flops, problem)
    columns = [
        _log_ratio(inference_flop(problem) / problem.mu_flops, scale_s),
        _log_ratio(8 * problem.captured_bytes / problem.rate_bps.clamp(min=_TINY), scale_s),
        share.clamp(min=_TINY).log().clamp(min=-LOG_BOUND),
        _log_ratio(delay_s, scale_s),
        _log_ratio(station_work_s, scale_s),
        _log_ratio(scale_s, station_s.amax(-1, keepdim=True)),
        _part(problem.retrain_flop, work_flop),
        _part(allocation.upload_bytes, problem.captured_bytes),
        _part(torch.full_like(scale_s, problem.downlink_s), scale_s).clamp(max=1.0),
        problem.station,
    ]
    return torch.stack([column.to(torch.float32) for column in columns], -1)


def _log_ratio(value: Tensor, reference: Tensor) -> Tensor:
    ratio = value.clamp(min=_TINY) / reference.clamp(min=_TINY)
    return ratio.log().clamp(-LOG_BOUND, LOG_BOUND)


def _part(value: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, value / whole, 0.0)


def decode(problem: AllocationProblem, action: Tensor, compute_range: float, upload_range: float) -> Allocation:
    """The allocation that `action` [..., K, 2] in [-1, 1] means, eq. (18): corrections that cannot break a constraint.

    The first column multiplies the MU's proportional share by e^(compute_range a) before the shares of its BS are
    made to sum to 1; the second multiplies the odds of its best upload fraction for that share by e^(upload_range a).
    The zero action is the proportional allocation.
    """
    action = action.to(problem.captured_bytes.dtype).clamp(-1.0, 1.0)
    weight = proportional_share(problem) * (compute_range * action[..., 0]).exp()
    total = serving(station_sum(weight, problem), problem)
    compute = granted(_part(weight, total), problem)
    best = _part(best_upload_bytes(problem, compute), problem.captured_bytes)
    odds = (upload_range * action[..., 1]).exp()
    upload = (best * odds / (1 - best + best * odds)).clamp(0.0, 1.0)
    return Allocation(compute_flops=compute, upload_bytes=upload * problem.captured_bytes)


def _together(observation: Tensor) -> Tensor:
    """1 where two MUs share a BS [..., K, K], float32."""
    station = observation[..., _STATION]
    return (station.unsqueeze(-1) == station.unsqueeze(-2)).to(torch.float32)


class SetNetwork(nn.Module):
    """Per-user layers with the mean over the MUs of the same BS mixed in twice."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.encode = nn.Linear(inputs, hidden)
        self.mix = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(2))
        self.out = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, together: Tensor) -> Tensor:
        """[..., K, inputs] and [..., K, K] to [..., K, outputs]."""
        mean = together / together.sum(-1, keepdim=True)
        hidden = torch.relu(self.encode(features))
        for layer in self.mix:
            hidden = torch.relu(layer(torch.cat([hidden, mean @ hidden], -1)))
        out: Tensor = self.out(hidden)
        return out


class SetActor(nn.Module):
    """Deterministic policy: observation [..., K, F] to action [..., K, 2] in (-1, 1). Untrained it says 0."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.network = SetNetwork(_STATION, hidden, 2)

    def forward(self, observation: Tensor) -> Tensor:
        """Action for each MU."""
        return torch.tanh(self.network(observation[..., :_STATION], _together(observation)))


class SetCritic(nn.Module):
    """Value of an action: scores each MU's delay and, as delays do, takes the slowest of each BS.

    The score is the logarithm of the MU's delay over its BS's under the proportional share: what it is at the zero
    action is observed, the network learns what the action changes. `pool` says what is made of the scores: the
    mean over BSs of the slowest MU ("station") or the slowest MU of the slot ("slot").
    """

    def __init__(self, hidden: int, compute_range: float, pool: str, sharpness: float) -> None:
        super().__init__()
        self.network = SetNetwork(_STATION + 3, hidden, 1)
        self.compute_range, self.pool, self.sharpness = compute_range, pool, sharpness

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Value [..., 1] of action [..., K, 2] in observation [..., K, F]."""
        together = _together(observation)
        action = action.clamp(-1.0, 1.0)
        change = self.compute_range * action[..., 0]
        share = observation[..., _WORK].exp()
        total = (together @ (share * change.exp()).unsqueeze(-1)).squeeze(-1) / (
            (together @ share.unsqueeze(-1)).squeeze(-1)
        )
        gained = (change - total.log()).unsqueeze(-1)  # log of new share over proportional share
        features = torch.cat([observation[..., :_STATION], action, gained], -1)
        score = observation[..., _DELAY] + self.network(features, together).squeeze(-1)
        if self.pool == "slot":
            score = score + observation[..., _SLOT_DELAY]
            return -self._slowest(score, torch.ones_like(together))[..., :1]
        slowest = self._slowest(score, together)
        weight = 1 / together.sum(-1)  # every BS counts once, however many MUs it serves
        return -((slowest * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True))

    def _slowest(self, score: Tensor, together: Tensor) -> Tensor:
        """Smooth maximum of `score` over the MUs that `together` marks, for each MU."""
        weight = torch.softmax((self.sharpness * score.unsqueeze(-2)).masked_fill(together == 0, -torch.inf), -1)
        return (weight * score.unsqueeze(-2)).sum(-1)
