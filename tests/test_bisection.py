"""The exact optimum of P3 by bisection: nothing beats it, and less time is not enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dtsim.allocation.optimal import Optimal, gap
from dtsim.allocation.problem import Allocation, AllocationProblem, system_delay_s, user_delay_s
from dtsim.physical.delay import Objective

FLOP_PER_BYTE, DOWNLINK_S = 5e3, 1e-5
MU_FLOPS = 1e9
MOST = 4


def tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def slot(draw: st.DrawFn) -> AllocationProblem:
    """A slot of up to four MUs and two BSs: idle MUs, MUs without a link, and BSs without an MU among them."""
    users = draw(st.integers(1, MOST))

    def some(values: st.SearchStrategy[float]) -> Tensor:
        return tensor(draw(st.lists(values, min_size=users, max_size=users)))

    return AllocationProblem(
        captured_bytes=some(st.one_of(st.just(0.0), st.floats(1e3, 1e5))),
        rate_bps=some(st.one_of(st.just(0.0), st.floats(1e6, 2e8))),
        retrain_flop=some(st.one_of(st.just(0.0), st.floats(1e7, 5e9))),
        station=torch.tensor(draw(st.lists(st.integers(0, 1), min_size=users, max_size=users))),
        station_flops=tensor(draw(st.lists(st.floats(5e9, 1e11), min_size=2, max_size=2))),
        mu_flops=MU_FLOPS,
        flop_per_byte=FLOP_PER_BYTE,
        downlink_s=DOWNLINK_S,
    )


def needed(problem: AllocationProblem, user: int, within_s: float) -> float:
    """The least compute that lets `user` end in time, over uploads tried one by one; infinite where none does."""
    data, rate = float(problem.captured_bytes[user]), float(problem.rate_bps[user])
    work = float(problem.retrain_flop[user])
    least = math.inf
    for upload in np.linspace(max(0.0, data - within_s * MU_FLOPS / FLOP_PER_BYTE), data, 25):
        if FLOP_PER_BYTE * (data - upload) / MU_FLOPS > within_s * (1 + 1e-12) or (upload and not rate):
            continue
        left_s = within_s - (8 * upload / rate + DOWNLINK_S if upload else 0.0)
        flop = FLOP_PER_BYTE * upload + work
        least = min(least, 0.0 if not flop else flop / left_s if left_s > 0 else math.inf)
    return least


@settings(max_examples=30)
@given(slot())
def test_a_bs_cannot_end_earlier(problem: AllocationProblem) -> None:
    """With a hundred-thousandth less time its MUs would need more compute than there is."""
    delay_s = user_delay_s(problem, Optimal().allocate(problem))
    assert torch.isfinite(delay_s).all()
    for station, flops in enumerate(problem.station_flops.tolist()):
        users = torch.nonzero(problem.station == station).flatten().tolist()
        end_s = max((float(delay_s[user]) for user in users), default=0.0)
        if end_s > 0:
            assert sum(needed(problem, user, end_s * (1 - 1e-5)) for user in users) > flops
            assert sum(needed(problem, user, end_s * (1 + 1e-5)) for user in users) <= flops


@settings(max_examples=30)
@given(slot(), st.data())
def test_no_allocation_beats_it_and_it_is_one(problem: AllocationProblem, data: st.DataObject) -> None:
    users = len(problem.station)
    best = Optimal().allocate(problem)
    given_flops = torch.zeros(2, dtype=torch.float64).index_add(0, problem.station, best.compute_flops)
    assert (given_flops <= problem.station_flops).all()  # (6)
    assert ((best.upload_bytes >= 0) & (best.upload_bytes <= problem.captured_bytes)).all()
    share, split = (
        tensor(data.draw(st.lists(st.floats(low, 1.0), min_size=users, max_size=users))) for low in (0.01, 0.0)
    )
    whole = torch.zeros(2, dtype=torch.float64).index_add(0, problem.station, share)[problem.station]
    other = Allocation(
        compute_flops=share / whole * problem.station_flops[problem.station],
        upload_bytes=torch.where(problem.rate_bps > 0, split * problem.captured_bytes, 0.0),
    )
    objectives: tuple[Objective, ...] = ("makespan", "sum")
    for objective in objectives:
        least, found = (system_delay_s(problem, one, objective) for one in (best, other))
        assert least <= found * (1 + 1e-9)
        assert gap(problem, best, objective) <= 1e-9
        if least > 0:
            assert gap(problem, other, objective).item() == pytest.approx((found / least - 1).item(), abs=1e-9)
