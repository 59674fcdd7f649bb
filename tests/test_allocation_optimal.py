"""The optimum against a convex solver, and its edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.optimal import Optimal
from dtsim.allocation.problem import AllocationProblem, station_delay_s, station_sum, user_delay_s
from tests.synthetic_source import SyntheticSource

cp = pytest.importorskip("cvxpy")

USERS, EACH = 8, 25


def cases() -> AllocationProblem:
    """200 slots, 25 of each kind: ordinary ones, and every kind of odd one."""
    generator = torch.Generator().manual_seed(11)
    retraining = SyntheticSource().sample(8 * EACH, USERS, generator).to(torch.float64)
    kind = (torch.arange(8 * EACH) // EACH).unsqueeze(-1)
    some = torch.rand(8 * EACH, USERS, generator=generator) < 0.4
    first = torch.arange(USERS) == 0
    captured, rate, retrain = retraining.captured_bytes, retraining.rate_bps, retraining.retrain_flop
    retrain = torch.where(kind == 0, 0.0, retrain)  # 0: no retraining; 1: as it comes
    rate = torch.where(((kind == 2) & some) | (kind == 7), 0.0, rate)  # 2: some cannot upload; 7: nobody can
    captured = torch.where((kind == 3) & some, 0.0, captured)  # 3: some have no data
    only = (kind == 4) & ~first  # 4: one MU, the others have nothing to do
    captured, retrain = torch.where(only, 0.0, captured), torch.where(only, 0.0, retrain)
    station = torch.where(kind == 5, 1, retraining.station)  # 5: all on one BS
    retrain = torch.where(kind == 6, 4e8 + 1e5 * captured, retrain)  # 6: all retrain
    return replace(retraining, captured_bytes=captured, rate_bps=rate, retrain_flop=retrain, station=station)


@dataclass
class Programme:
    """A BS whose uploading MUs are given: minimise z in [low, high] with offset + sum weight / (z - pole) <= 1.

    An MU that uploads D - z f_loc / c, what it cannot compute by z itself, needs the compute
    (c D + W - f_loc z) / (z - downlink - 8 / R (D - z f_loc / c)) = -f_loc / a + C / (z - pole), convex in z; one that
    uploads nothing needs W / z. All in units of the BS's compute.
    """

    cell: tuple[int, int]
    low: float
    high: float
    offset: float
    weight: np.ndarray
    pole: np.ndarray

    def possible(self) -> bool:
        """Whether z = high will do."""
        room = self.offset + float((self.weight / (self.high - self.pole)).sum()) <= 1
        return bool((self.pole < self.high).all()) and room


def programmes(problem: AllocationProblem) -> Iterator[Programme]:
    """For each BS one for every set of MUs that may upload: those that would take longest alone."""
    c, downlink_s = problem.flop_per_byte, problem.downlink_s
    captured, rate, retrain, own, station = (
        getattr(problem, n).numpy() for n in ("captured_bytes", "rate_bps", "retrain_flop", "mu_flops", "station")
    )
    for slot, bs in np.ndindex(len(station), problem.station_flops.shape[-1]):
        ids = np.flatnonzero(station[slot] == bs)
        alone_s = c * captured[slot, ids] / own[slot, ids]
        ids, alone_s = ids[np.argsort(-alone_s)], np.sort(alone_s)[::-1]
        capacity = problem.station_flops[slot, bs].item()
        data, bps, work, flops = (values[slot, ids] for values in (captured, rate, retrain, own))
        for uploading in range(len(ids) + 1):
            up, stay = slice(None, uploading), slice(uploading, None)
            if (bps[up] == 0).any():
                break
            stretch = 1 + 8 * flops[up] / (c * bps[up])
            pole = (downlink_s + 8 * data[up] / bps[up]) / stretch
            rest = c * data[up] + work[up] - flops[up] * pole
            low = alone_s[stay].max(initial=0.0)
            one = Programme(
                cell=(slot, bs),
                low=low,
                high=alone_s[up].min() if uploading else low + 2 * work.sum() / capacity,
                offset=-(flops[up] / stretch).sum() / capacity,
                weight=np.concatenate([rest / stretch, work[stay]]) / capacity,
                pole=np.concatenate([pole, np.zeros(len(ids) - uploading)]),
            )
            if (rest > 0).all() and 0 < one.high >= one.low and one.possible():
                yield one


def solver_delay_s(problem: AllocationProblem) -> NDArray[np.float64]:
    """Delay of each BS [B, M] by the convex solver; 0 where there is no work."""
    todo = list(programmes(problem))
    best = np.full(problem.station_flops.shape, np.inf)
    for start in range(0, len(todo), 50):  # few at once: the solver's tolerance is that of the sum
        some = todo[start : start + 50]
        unit_s = np.array([one.high for one in some])
        owner = np.repeat(np.arange(len(some)), [len(one.weight) for one in some])
        weight, pole = (np.concatenate([getattr(one, n) for one in some]) / unit_s[owner] for n in ("weight", "pole"))
        member = np.zeros((len(some), len(owner)))
        member[owner, np.arange(len(owner))] = 1
        z = cp.Variable(len(some))
        asked = member[:, weight > 0] @ cp.multiply(
            weight[weight > 0], cp.inv_pos(z[owner[weight > 0]] - pole[weight > 0])
        )
        limits = [z >= np.array([one.low for one in some]) / unit_s, z <= 1]
        solved = cp.Problem(cp.Minimize(cp.sum(z)), [asked + np.array([one.offset for one in some]) <= 1, *limits])
        solved.solve(solver=cp.CLARABEL)
        assert solved.status == cp.OPTIMAL
        for one, value in zip(some, z.value * unit_s, strict=True):
            best[one.cell] = min(best[one.cell], value)
    busy = station_sum(problem.captured_bytes + problem.retrain_flop, problem) > 0
    assert np.isfinite(best[busy]).all()
    return np.where(busy, best, 0.0)


def test_optimum_is_the_convex_solver_s_within_a_millionth() -> None:
    problem = cases()
    delay_s = station_delay_s(problem, user_delay_s(problem, Optimal().allocate(problem))).numpy()
    expected_s = solver_delay_s(problem)
    assert (delay_s > 0).sum() > 450
    np.testing.assert_allclose(delay_s, expected_s, rtol=1e-6, atol=0)


def least_compute(problem: AllocationProblem, delay_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute [B, K] with which each MU is done by `delay_s` [B, K], the least over a grid of uploads; may be inf."""
    part = np.linspace(0, 1, 4001)
    least, captured, rate, retrain, own = (
        getattr(problem, n).numpy()[..., np.newaxis]
        for n in ("least_upload_bytes", "captured_bytes", "rate_bps", "retrain_flop", "mu_flops")
    )
    upload = least + part * (captured - least)
    c, by = problem.flop_per_byte, delay_s[..., np.newaxis]
    with np.errstate(divide="ignore", invalid="ignore"):
        sending_s = np.where(upload > 0, 8 * upload / rate + problem.downlink_s, 0.0)
        needed = (c * upload + retrain) / (by - sending_s)
    needed = np.where(c * upload + retrain > 0, np.where(sending_s < by, needed, np.inf), 0.0)
    found: NDArray[np.float64] = np.where(c * (captured - upload) / own <= by, needed, np.inf).min(axis=-1)
    return found


def test_the_optimum_with_a_least_upload_is_the_shortest_delay_that_the_compute_suffices_for() -> None:
    problem = cases()
    random = torch.rand(problem.rate_bps.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    least = torch.where(problem.rate_bps > 0, problem.captured_bytes * random, 0.0)
    bounded = replace(problem, least_upload_bytes=least)
    for allocator in (Optimal(), Proportional(), Equal()):
        allocation = allocator.allocate(bounded)
        assert (allocation.upload_bytes >= least).all() and (allocation.upload_bytes <= problem.captured_bytes).all()
        assert (station_sum(allocation.compute_flops, problem) <= problem.station_flops * (1 + 1e-12)).all()
    of_station = station_delay_s(bounded, user_delay_s(bounded, Optimal().allocate(bounded)))
    free = station_delay_s(problem, user_delay_s(problem, Optimal().allocate(problem)))
    assert (of_station >= free * (1 - 1e-9)).all() and (of_station > 1.05 * free).sum() > 40
    for factor, suffices in ((1.01, True), (0.99, False)):
        needed = least_compute(bounded, factor * of_station.gather(-1, problem.station).numpy())
        enough = station_sum(torch.from_numpy(needed), problem) <= problem.station_flops
        assert (enough == suffices)[of_station > 0].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_case_is_feasible_and_finite(dtype: torch.dtype) -> None:
    problem = cases().to(dtype)
    allocation = Optimal().allocate(problem)
    assert torch.isfinite(user_delay_s(problem, allocation)).all()
    assert (allocation.upload_bytes <= problem.captured_bytes).all()
    assert (allocation.upload_bytes[problem.rate_bps == 0] == 0).all()


def test_any_leading_dimensions() -> None:
    problem = cases()
    tensors = {name: value for name, value in vars(problem).items() if isinstance(value, torch.Tensor)}
    folded = replace(problem, **{name: value.unflatten(0, (8, EACH)) for name, value in tensors.items()})
    here, there = Optimal().allocate(problem), Optimal().allocate(folded)
    assert torch.equal(there.compute_flops.flatten(0, 1), here.compute_flops)
