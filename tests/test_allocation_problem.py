"""The slot problem, its optimum and the closed-form allocators."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from dtsim.allocation.allocator import Allocator, TrainableAllocator, prepared
from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.learned.agents import Apg
from dtsim.allocation.learned.observation import decode
from dtsim.allocation.optimal import Optimal, gap, needed_flops
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    apply,
    best_upload_bytes,
    held,
    station_sum,
    system_delay_s,
    user_delay_s,
)
from dtsim.core.cache import Cache
from dtsim.core.parts import build
from dtsim.core.progress import QUIET
from dtsim.runner import experiment, jobs
from tests.agents import TINY, values
from tests.composed import node
from tests.synthetic_source import SyntheticSource

ALLOCATORS: list[Allocator] = [Optimal(), Proportional(), Equal()]


def problem_of(
    captured: list[float],
    rate: list[float],
    retrain: list[float],
    station: list[int],
    stations: int = 2,
    dtype: torch.dtype = torch.float64,
    downlink_s: float = 0.001,
) -> AllocationProblem:
    """c = 1000 FLOP/byte, BSs of 1 GFLOP/s, MUs of 0.1 GFLOP/s."""
    return AllocationProblem(
        captured_bytes=torch.tensor(captured, dtype=dtype),
        rate_bps=torch.tensor(rate, dtype=dtype),
        retrain_flop=torch.tensor(retrain, dtype=dtype),
        station=torch.tensor(station),
        station_flops=torch.full((stations,), 1e9, dtype=dtype),
        mu_flops=1e8,
        flop_per_byte=1000.0,
        downlink_s=downlink_s,
    )


def sampled(slots: int = 200, users: int = 12, seed: int = 3, dtype: torch.dtype = torch.float64) -> AllocationProblem:
    generator = torch.Generator().manual_seed(seed)
    return SyntheticSource().sample(slots, users, generator).to(dtype)


def assert_feasible(problem: AllocationProblem, allocation: Allocation) -> None:
    load = station_sum(allocation.compute_flops.to(torch.float64), problem)
    assert (load <= problem.station_flops.to(torch.float64)).all()
    assert (allocation.compute_flops >= 0).all()
    assert (allocation.upload_bytes >= 0).all()
    assert (allocation.upload_bytes <= problem.captured_bytes).all()


def test_delay_of_a_hand_computed_slot() -> None:
    problem = problem_of([10_000.0, 10_000.0], [8e6, 8e6], [0.0, 5e7], [0, 1])
    allocation = Allocation(torch.tensor([5e8, 1e9]).double(), torch.tensor([5_000.0, 0.0]).double())
    # MU 0: locally 5e6/1e8 = 50 ms; uploads 5 ms + 1 ms, computes 5e6/5e8 = 10 ms.
    # MU 1: locally 100 ms, retrains 50 ms.
    assert user_delay_s(problem, allocation).tolist() == pytest.approx([0.050, 0.100])
    assert system_delay_s(problem, allocation, "makespan").item() == pytest.approx(0.100)
    assert system_delay_s(problem, allocation, "sum").item() == pytest.approx(0.150)


def test_best_split_ends_both_halves_together_and_beats_every_other() -> None:
    problem = problem_of([10_000.0], [8e6], [2e7], [0])
    compute = torch.tensor([5e8]).double()
    best = best_upload_bytes(problem, compute)
    delay = user_delay_s(problem, Allocation(compute, best)).item()
    # 10 us/byte locally, 1 + 2 us/byte at the BS: (100 - 1 - 40) ms / 13 us = 4538.46 byte.
    assert best.item() == pytest.approx(59e-3 / 13e-6)
    others = torch.linspace(0, 10_000, 2001).double().unsqueeze(-1)
    tensors: dict[str, Any] = {name: value for name, value in vars(problem).items() if isinstance(value, torch.Tensor)}
    tried = replace(problem, **{name: value.expand(2001, -1) for name, value in tensors.items()})
    assert user_delay_s(tried, Allocation(compute.expand(2001, 1), others)).min().item() >= delay


class HalfTheCompute:
    """A user-defined allocator: it allocates and knows nothing of caches and progress."""

    def allocate(self, problem: AllocationProblem) -> Allocation:
        compute = Equal().allocate(problem).compute_flops / 2
        return Allocation(compute_flops=compute, upload_bytes=best_upload_bytes(problem, compute))


def test_an_allocator_only_allocates_and_one_that_learns_also_prepares(tiny: list[str], tmp_path: Path) -> None:
    source, cache = SyntheticSource(), Cache(tmp_path / "cache")
    assert not any(isinstance(allocator, TrainableAllocator) for allocator in [*ALLOCATORS, HalfTheCompute()])
    assert prepared(HalfTheCompute(), source, cache, QUIET) == []
    assert values(prepared(Apg(**TINY["apg"]), source, cache, QUIET), "step", "gap")[0] == 0
    target = f"allocator._target_={__name__}.{HalfTheCompute.__name__}"
    # A class without keys: those of the choice that it replaces are taken away.
    (job,) = jobs.plan([*tiny, target, "~allocator.min_upload", f"outputs={tmp_path}"]).jobs
    run = pd.read_csv(experiment.run(job.config) / "run.csv")
    assert run["allocator"].item() == "halfthecompute"
    assert run["allocator_gap_mean"].item() > 0


def test_optimum_agrees_with_a_general_solver() -> None:
    problem = sampled(slots=12, users=4, seed=8)
    found = system_delay_s(problem, Optimal().allocate(problem), "makespan")
    for slot in range(12):
        one = problem.slots(slot)
        worst = []
        for station in range(3):  # BSs share nothing: minimise each one's slowest MU over (f, D_up, z)
            ids = (one.station == station).nonzero().flatten().numpy()
            if len(ids):
                worst.append(_slsqp(one, ids))
        assert found[slot].item() == pytest.approx(max(worst), rel=2e-6)


def _last(x: NDArray[np.float64]) -> float:
    return float(x[-1])


def _slsqp(one: AllocationProblem, ids: NDArray[np.int64]) -> float:
    captured, rate, retrain = (getattr(one, n).numpy()[ids] for n in ("captured_bytes", "rate_bps", "retrain_flop"))
    count, c, down, mu, capacity = len(ids), one.flop_per_byte, one.downlink_s, 1e9, 50e9
    best = np.inf
    for uploads in range(2**count):  # whether an MU uploads decides whether it waits for a result
        on = np.array([bool(uploads >> k & 1) for k in range(count)])

        def slack(x: NDArray[np.float64], on: NDArray[np.bool_] = on) -> NDArray[np.float64]:
            share, part, z = x[:count], x[count : 2 * count] * on, x[-1]
            local = c * captured * (1 - part) / mu
            remote = 8 * captured * part / rate + down * on
            return np.concatenate(
                [z - local, share * (z - remote) - (c * captured * part + retrain) / capacity, [1 - share.sum()]]
            )

        start = np.concatenate([np.full(count, 1 / count), np.full(count, 0.5), [1.0]])
        bounds: Any = [(0.0, 1.0)] * (2 * count) + [(0.0, None)]
        fits: Any = {"type": "ineq", "fun": slack}
        solved = minimize(
            _last,
            start,
            bounds=bounds,
            constraints=fits,
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 1000},
        )
        if slack(solved.x).min() > -1e-9:
            best = min(best, solved.x[-1])
    return float(best)


def test_optimum_uses_all_compute_or_leaves_the_work_to_the_mus() -> None:
    problem = sampled()
    allocation = Optimal().allocate(problem)
    load = station_sum(allocation.compute_flops, problem) / problem.station_flops
    assert ((load == 0) | (load > 1 - 1e-12)).all()


def test_no_allocation_beats_the_optimum() -> None:
    problem = sampled()
    optimum = Optimal().allocate(problem)
    for objective in ("makespan", "sum"):
        least = system_delay_s(problem, optimum, objective)
        for other in ALLOCATORS[1:]:
            assert (system_delay_s(problem, other.allocate(problem), objective) >= least * (1 - 1e-9)).all()
        generator = torch.Generator().manual_seed(0)
        for _ in range(50):
            action = 0.1 * torch.randn(*problem.captured_bytes.shape, 2, generator=generator)
            near = decode(problem, action, 3.0, 1.0)
            assert (system_delay_s(problem, near, objective) >= least * (1 - 1e-9)).all()


def test_a_little_less_time_is_not_feasible() -> None:
    problem = sampled()
    delay = user_delay_s(problem, Optimal().allocate(problem))
    per_station = torch.zeros_like(problem.station_flops).scatter_reduce(-1, problem.station, delay, "amax")
    target = per_station.gather(-1, problem.station) * (1 - 1e-6)
    short = station_sum(needed_flops(problem, target), problem) > problem.station_flops
    busy = per_station > 0
    assert (short | ~busy).all()


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constraints_hold(allocator: Allocator, dtype: torch.dtype) -> None:
    problem = sampled(dtype=dtype)
    allocation = allocator.allocate(problem)
    assert allocation.compute_flops.dtype == allocation.upload_bytes.dtype == dtype
    assert_feasible(problem, allocation)


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize(
    ("name", "problem", "makespan_s"),
    [
        ("nothing to do", problem_of([0.0, 0.0], [8e6, 8e6], [0.0, 0.0], [0, 1]), 0.0),
        ("no rate", problem_of([10_000.0], [0.0], [0.0], [0]), 0.1),
        ("no rate, retraining", problem_of([10_000.0], [0.0], [5e8], [0]), 0.5),
        ("only retraining", problem_of([0.0, 0.0], [8e6, 8e6], [1e8, 1e8], [1, 1]), 0.2),
        ("one MU", problem_of([10_000.0], [8e6], [0.0], [0]), 0.1 - 99e-3 / 12e-6 * 1e-5),
        ("return slower than the MU itself", problem_of([100.0], [8e6], [0.0], [0], downlink_s=1.0), 0.001),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_edges(allocator: Allocator, name: str, problem: AllocationProblem, makespan_s: float) -> None:
    allocation = allocator.allocate(problem)
    assert_feasible(problem, allocation)
    assert system_delay_s(problem, allocation, "makespan").item() == pytest.approx(makespan_s, rel=1e-9)
    assert gap(problem, allocation, "makespan").item() == pytest.approx(0.0, abs=1e-9)


def test_one_slot_is_a_batch_of_one_and_precision_agrees() -> None:
    problem = sampled(slots=20)
    for allocator in ALLOCATORS:
        whole = allocator.allocate(problem)
        single = allocator.allocate(problem.slots(7))
        torch.testing.assert_close(single.compute_flops, whole.compute_flops[7])
        torch.testing.assert_close(single.upload_bytes, whole.upload_bytes[7])
        float32 = allocator.allocate(problem.to(torch.float32))
        coarse = system_delay_s(problem.to(torch.float32), float32, "makespan").double()
        torch.testing.assert_close(coarse, system_delay_s(problem, whole, "makespan"), rtol=2e-5, atol=0.0)


def test_all_mus_on_one_bs_and_relabelled_bss() -> None:
    problem = sampled(slots=50)
    crowded = replace(problem, station=torch.zeros_like(problem.station))
    relabelled = replace(problem, station=2 - problem.station)
    for allocator in ALLOCATORS:
        assert_feasible(crowded, allocator.allocate(crowded))
        torch.testing.assert_close(
            allocator.allocate(problem).compute_flops, allocator.allocate(relabelled).compute_flops
        )


def test_proportional_shares_are_the_works_shares() -> None:
    problem = problem_of([10_000.0, 0.0], [8e6, 8e6], [0.0, 3e7], [0, 0])
    assert Proportional().allocate(problem).compute_flops.tolist() == pytest.approx([0.25e9, 0.75e9])
    assert Equal().allocate(problem).compute_flops.tolist() == pytest.approx([0.5e9, 0.5e9])


def test_a_held_allocation_gives_itself_back_and_fits_the_next_slot() -> None:
    problem = sampled()
    for allocator in ALLOCATORS:
        allocation = allocator.allocate(problem)
        again = apply(held(problem, allocation), problem)
        torch.testing.assert_close(again.compute_flops, allocation.compute_flops)
        torch.testing.assert_close(again.upload_bytes, allocation.upload_bytes)
        later = replace(problem, captured_bytes=problem.captured_bytes * 0.7, rate_bps=problem.rate_bps * 0.5)
        kept = apply(held(problem, allocation), later)
        assert_feasible(later, kept)
        assert torch.isfinite(user_delay_s(later, kept)).all()


def test_held_shares_are_of_each_mus_own_bs_and_data() -> None:
    """Half of a BS's 1 or 4 GFLOP/s and a quarter of the data; an MU that was idle uploads nothing later."""
    flops = torch.tensor([1e9, 4e9], dtype=torch.float64)
    before, after = (
        replace(problem_of(captured, [8e6] * 3, [0.0] * 3, [0, 1, 1]), station_flops=flops)
        for captured in ([4000.0, 8000.0, 0.0], [8000.0, 4000.0, 6000.0])
    )
    given = Allocation(
        compute_flops=torch.tensor([5e8, 2e9, 2e9], dtype=torch.float64),
        upload_bytes=torch.tensor([1000.0, 2000.0, 0.0], dtype=torch.float64),
    )
    later = apply(held(before, given), after)
    assert later.compute_flops.tolist() == given.compute_flops.tolist()
    assert later.upload_bytes.tolist() == [2000.0, 1000.0, 0.0]
    least = torch.tensor([500.0, 3000.0, 100.0], dtype=torch.float64)
    assert apply(held(before, given), replace(after, least_upload_bytes=least)).upload_bytes.tolist() == [
        2000.0,
        3000.0,
        100.0,
    ]


def test_gap_is_the_excess_over_the_optimum() -> None:
    problem = sampled()
    optimum = Optimal().allocate(problem)
    assert gap(problem, optimum, "makespan").max() == 0.0
    least = system_delay_s(problem, optimum, "makespan")
    worse = Equal().allocate(problem)
    expected = system_delay_s(problem, worse, "makespan") / least - 1
    torch.testing.assert_close(gap(problem, worse, "makespan"), expected)


def test_fewer_iterations_stay_within_their_bound() -> None:
    problem = sampled()
    usual = system_delay_s(problem, Proportional().allocate(problem), "makespan")
    exact = system_delay_s(problem, Optimal(iterations=100).allocate(problem), "makespan")
    rough = system_delay_s(problem, Optimal(iterations=20).allocate(problem), "makespan")
    assert (rough - exact <= usual * 2.0**-20).all()


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="rate_bps"):
        problem_of([1.0, 2.0], [1.0], [0.0, 0.0], [0, 0])
    with pytest.raises(ValueError, match="int64"):
        replace(sampled(), station=torch.zeros(200, 12))


@pytest.mark.parametrize("name", ["optimal", "proportional", "equal", "ddpg"])
def test_yaml_lists_every_key_with_its_default(name: str) -> None:
    keys = node("allocator", name)
    part = build(keys, "allocator")
    assert {**dataclasses.asdict(part), "_target_": keys["_target_"]} == keys
    assert type(part)() == part


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_agrees_with_cpu() -> None:
    problem = sampled()
    there = problem.to("cuda")
    for allocator in ALLOCATORS:
        here, moved = allocator.allocate(problem), allocator.allocate(there)
        torch.testing.assert_close(moved.compute_flops.cpu(), here.compute_flops)
        torch.testing.assert_close(gap(there, moved, "sum").cpu(), gap(problem, here, "sum"))
        again = apply(held(there, moved), there)
        torch.testing.assert_close(again.upload_bytes, moved.upload_bytes)
