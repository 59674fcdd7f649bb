"""Association at scale: compiled moves against recomputation, bounds against brute force, annealing against greedy."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtsim.association import annealing, greedy, moves
from dtsim.association.annealing import Annealing, annealed, candidates
from dtsim.association.branch_and_bound import BranchAndBound
from dtsim.association.cpsat import CpSat
from dtsim.association.descent import descend
from dtsim.association.equal_loads import are_equal, matched
from dtsim.association.greedy import Greedy, improve, longest_first
from dtsim.association.instances import LOADS, SIZES, Loads, instance
from dtsim.association.lagrangian import lagrangian_bound_s
from dtsim.association.matching import within
from dtsim.association.milp import Milp
from dtsim.association.moves import anneal
from dtsim.association.problem import (
    Array,
    AssociationProblem,
    Solver,
    Stations,
    finish_s,
    lower_bound_s,
    objective_s,
)

BRIEF = Annealing(moves_per_user=500, bound_steps=60)


def brute_force_s(problem: AssociationProblem) -> float:
    """The least delay of all assignments, listed as one array [M^K, K]."""
    every = np.array(list(itertools.product(range(problem.stations), repeat=problem.users)))
    delay_s = np.zeros(len(every))
    for m, flops in enumerate(problem.station_flops):
        mine = every == m
        wait_s = np.where(mine, problem.upload_s[m], 0.0).max(axis=1)
        delay_s = np.maximum(delay_s, wait_s + (mine * problem.work_flop).sum(axis=1) / flops)
    return float(delay_s.min())


def small(seed: int) -> AssociationProblem:
    """Up to six MUs and three BSs of every kind, adversarial ones included: ties, zeros, outages, extreme ratios."""
    rng = np.random.default_rng(seed)
    users, stations = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    works: dict[int, Callable[[], Array]] = {
        0: lambda: rng.uniform(0.5, 2.0, users) * 1e8,
        1: lambda: np.full(users, 8e7),
        2: lambda: rng.choice([8e7, 3e9], users),
        3: lambda: rng.choice([0.0, 8e7, 3e9], users),
        4: lambda: 10.0 ** rng.uniform(-3, 12, users),
        5: lambda: np.zeros(users),
        6: lambda: 1e8 + 0.1 * rng.integers(0, 3, users).astype(np.float64),  # equal but for rounding
    }
    uploads: dict[int, Callable[[], Array]] = {
        0: lambda: rng.uniform(0, 0.01, (stations, users)),
        1: lambda: np.zeros((stations, users)),
        2: lambda: rng.choice([0.001, 0.002, 0.05], (stations, users)),
        3: lambda: np.full((stations, users), 0.003),
        4: lambda: 10.0 ** rng.uniform(-9, 3, (stations, users)),
        5: lambda: rng.choice([0.001, 1e6], (stations, users)),
    }
    flops: Array = np.full(stations, 5e10) if seed % 2 else 10.0 ** rng.uniform(8, 12, stations)
    return AssociationProblem(
        work_flop=works[seed % 7](),
        upload_s=uploads[seed // 7 % 6](),
        station_flops=flops,
        gain=np.ones((stations, users)),
    )


def compiled(problem: AssociationProblem, station: Stations) -> Stations:
    found: Stations = descend(problem.work_flop, problem.upload_s, problem.load_s, problem.station_flops, station)
    return found


def test_bounds_are_below_the_brute_force_optimum_on_500_instances() -> None:
    higher = 0
    for seed in range(500):
        problem = small(seed)
        best_s = brute_force_s(problem)
        start_s = objective_s(problem, longest_first(problem))
        closed_s = lower_bound_s(problem)
        assert closed_s <= best_s, seed
        for incumbent_s, steps in ((start_s, 60), (best_s * (1 + 1e-9), 20), (10 * start_s, 20)):
            bound_s = lagrangian_bound_s(problem, incumbent_s, steps)
            assert closed_s <= bound_s <= max(best_s, closed_s) * (1 + 1e-12), seed
            higher += bound_s > closed_s * (1 + 1e-6)
    assert higher > 200  # they are not the closed form in disguise


def test_the_bound_is_never_above_an_incumbent_and_rises_with_steps() -> None:
    problem = instance(120, 8, "mixed", 0)
    station = Greedy().solve(problem)
    few, many = (lagrangian_bound_s(problem, station.objective_s, steps) for steps in (2, 200))
    assert station.bound_s <= few < many <= station.objective_s
    assert many > 0.98 * station.objective_s


@pytest.mark.parametrize("loads", LOADS)
def test_compiled_descent_gives_the_answers_of_the_one_in_numpy(loads: Loads) -> None:
    for users, stations, seed in ((9, 2, 0), (40, 4, 1), (90, 6, 2)):
        problem = instance(users, stations, loads, seed)
        rng = np.random.default_rng(seed)
        for start in (longest_first(problem), rng.integers(0, stations, users), np.zeros(users, dtype=np.int64)):
            np.testing.assert_array_equal(compiled(problem, start), greedy._improved(problem, start))


def test_compiled_descent_agrees_on_ties_zeros_and_extreme_ratios() -> None:
    for seed in range(300):
        problem = small(seed)
        start = np.random.default_rng(seed).integers(0, problem.stations, problem.users)
        np.testing.assert_array_equal(compiled(problem, start), greedy._improved(problem, start), err_msg=str(seed))


def test_large_cells_are_improved_by_the_compiled_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = instance(60, 6, "inference", 0)
    start = longest_first(problem)
    by_numpy = improve(problem, start)
    monkeypatch.setattr(greedy, "LARGE", 1)
    monkeypatch.setattr(greedy, "_improved", None)
    np.testing.assert_array_equal(improve(problem, start), by_numpy)


@st.composite
def searches(draw: st.DrawFn) -> tuple[AssociationProblem, Stations, int, int]:
    """A problem, an assignment, a seed and a number of moves."""
    if draw(st.booleans()):
        problem = small(draw(st.integers(0, 10_000)))
    else:
        size = draw(st.sampled_from([(12, 2), (30, 4), (50, 5)]))
        problem = instance(*size, draw(st.sampled_from(LOADS)), draw(st.integers(0, 100)))
    start = np.random.default_rng(draw(st.integers(0, 100))).integers(0, problem.stations, problem.users)
    return problem, start, draw(st.integers(1, 2**63)), draw(st.integers(1, 5_000))


@settings(max_examples=60, deadline=None)
@given(searches())
def test_finishing_times_of_the_moves_equal_recomputation(
    search: tuple[AssociationProblem, Stations, int, int],
) -> None:
    problem, start, seed, tried = search
    if objective_s(problem, start) == 0:
        return
    links = np.array(list(itertools.product(range(problem.users), range(problem.stations))))
    station, best = start.copy(), start.copy()
    state = np.array([seed], dtype=np.uint64)
    best_s, finish = anneal(
        problem.work_flop, problem.upload_s, problem.station_flops, links, station, best, state,
        tried, (16.0, 64.0), (0.3, 0.01),
    )  # fmt: skip
    # Up to the rounding errors of sums in which one load may dwarf the others.
    exact = finish_s(problem, station)
    scale = problem.work_flop.sum() / problem.station_flops
    np.testing.assert_allclose(finish, exact, rtol=1e-9, atol=1e-12 * max(scale.max(), 1e-300))
    assert best_s == pytest.approx(objective_s(problem, best), rel=1e-9, abs=1e-12 * scale.max())
    assert objective_s(problem, best) <= objective_s(problem, start) * (1 + 1e-9) + 1e-12 * scale.max()


def test_a_change_may_only_take_a_link_that_it_was_given() -> None:
    problem = instance(30, 4, "mixed", 0)
    start = longest_first(problem)

    def ended(station_of: Stations) -> Stations:
        links = np.stack([np.arange(30), station_of], axis=1)
        station, best = start.copy(), start.copy()
        anneal(
            problem.work_flop, problem.upload_s, problem.station_flops, links, station, best,
            np.array([5], dtype=np.uint64), 3_000, (16.0, 64.0), (10.0, 10.0),
        )  # fmt: skip
        return station

    np.testing.assert_array_equal(ended(start), start)  # nobody has another BS to go to
    elsewhere = start.copy()
    elsewhere[np.flatnonzero(start == 0)] = 1
    changed = ended(elsewhere)
    assert (changed != start).any()
    assert set(changed[start > 1]) <= set(start[start > 1])
    np.testing.assert_array_equal(changed[start > 1], start[start > 1])


@pytest.mark.parametrize("loads", LOADS)
@pytest.mark.parametrize("size", [(20, 3), (60, 5), (150, 12)])
def test_annealing_is_never_worse_than_greedy_and_proves_what_it_says(size: tuple[int, int], loads: Loads) -> None:
    problem = instance(*size, loads, 7)
    found, start = BRIEF.solve(problem), Greedy().solve(problem)
    assert found.objective_s <= start.objective_s
    assert start.bound_s <= found.bound_s <= found.objective_s
    assert found.objective_s == objective_s(problem, found.station)
    assert found.status in ("feasible", "optimal")
    np.testing.assert_array_equal(improve(problem, found.station), found.station)


def test_annealing_is_never_worse_than_greedy_on_small_instances() -> None:
    for seed in range(0, 300, 3):
        problem = small(seed)
        found = Annealing(moves_per_user=30, bound_steps=10).solve(problem)
        assert found.objective_s <= Greedy().solve(problem).objective_s, seed
        assert found.bound_s <= brute_force_s(problem) * (1 + 1.1e-9), seed  # a proof is valid up to 1e-9


def test_annealing_is_deterministic_and_its_seed_matters() -> None:
    problem = instance(150, 12, "inference", 0)
    first, again, other = BRIEF.solve(problem), BRIEF.solve(problem), Annealing(**{**vars(BRIEF), "seed": 1})
    assert first.station.tobytes() == again.station.tobytes()
    assert (first.objective_s, first.bound_s) == (again.objective_s, again.bound_s)
    assert first.station.tobytes() != other.solve(problem).station.tobytes()


def test_more_moves_find_shorter_delays() -> None:
    few, many = (
        np.mean([Annealing(moves_per_user=each).solve(instance(150, 12, "inference", s)).objective_s for s in (0, 1)])
        for each in (20, 4_000)
    )
    assert many < few


def test_moves_are_capped_in_large_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = instance(60, 6, "mixed", 0)
    assert Annealing().moves(problem) == 60 * 5_000
    assert Annealing(most_moves=1_000).moves(problem) == 1_000
    monkeypatch.setattr(annealing, "_SLICE", 1_000)  # several slices, the last one short
    start = longest_first(problem)
    found = annealed(problem, start, 4_500, 0, time.perf_counter() + 60)
    assert objective_s(problem, found) < objective_s(problem, start)


def test_a_search_that_runs_out_of_time_still_cools_down(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[tuple[int, float]] = []

    def recorded(*arguments: Any) -> object:
        ends.append((arguments[7], arguments[9][1]))
        return anneal(*arguments)

    monkeypatch.setattr(moves, "anneal", recorded)
    monkeypatch.setattr(annealing, "_SLICE", 20_000)
    problem = instance(60, 6, "inference", 0)
    start = longest_first(problem)
    annealed(problem, start, 10**9, 0, time.perf_counter() + 0.5)
    assert len(ends) >= 5 and sum(tried for tried, _ in ends) < 10**9
    assert ends[-1][1] < annealing.TEMPERATURE[0] / 4  # warmer than at the end only if the machine was busy
    ends.clear()
    annealed(problem, start, 50_000, 0, time.perf_counter() + 600)
    assert [tried for tried, _ in ends] == [20_000, 20_000, 10_000]
    assert ends[-1][1] == pytest.approx(annealing.TEMPERATURE[1])


def test_without_time_the_answer_is_greedys() -> None:
    problem = instance(60, 6, "inference", 0)
    found, start = Annealing(time_limit_s=1e-9).solve(problem), Greedy().solve(problem)
    np.testing.assert_array_equal(found.station, start.station)
    assert found.bound_s > start.bound_s


def test_candidates_are_the_quickest_links_of_each_user() -> None:
    problem = instance(60, 12, "inference", 0)
    links = candidates(problem, Greedy().solve(problem).objective_s)
    alone_s = problem.upload_s + problem.load_s
    for k in range(problem.users):
        own = links[links[:, 0] == k, 1]
        assert annealing.FEWEST <= own.size <= annealing.MOST
        assert set(own) == set(np.argsort(alone_s[:, k], kind="stable")[: own.size])


@pytest.mark.parametrize("solver", [CpSat(time_limit_s=0.3), BranchAndBound(time_limit_s=0.3)], ids=repr)
def test_exact_solvers_start_from_annealing_where_cells_are_large(solver: Solver) -> None:
    problem = instance(100, 10, "mixed", 0)
    found, start = solver.solve(problem), Greedy().solve(problem)
    assert found.objective_s < start.objective_s
    assert found.bound_s > start.bound_s
    assert found.gap < 0.015


def test_a_stronger_bound_and_start_keep_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annealing, "HARD", 1)
    for seed in range(0, 60, 2):
        problem = small(seed)
        best_s = brute_force_s(problem)
        for solver in (CpSat(), BranchAndBound()):
            found = solver.solve(problem)
            assert found.status == "optimal", seed
            assert found.objective_s == pytest.approx(best_s, rel=1e-8, abs=1e-15), seed


@pytest.mark.parametrize("seed", range(0, 60, 5))
def test_milp_finds_the_brute_force_optimum(seed: int) -> None:
    problem = small(seed)
    found = Milp().solve(problem)
    best_s = brute_force_s(problem)
    assert found.objective_s == pytest.approx(best_s, rel=1e-5, abs=1e-15)
    assert found.bound_s <= best_s * (1 + 3e-6) + 1e-300


def test_milp_without_time_gives_the_greedy_answer() -> None:
    problem = instance(60, 6, "mixed", 0)
    found, start = Milp(time_limit_s=1e-6).solve(problem), Greedy().solve(problem)
    assert found.objective_s == start.objective_s
    assert found.bound_s >= start.bound_s
    assert found.status == "feasible"


def drawn() -> Iterator[tuple[Loads, AssociationProblem]]:
    for kind in LOADS:
        yield kind, instance(40, 4, kind, 3)


def test_instances_are_what_they_say_and_always_the_same() -> None:
    assert get_args(Loads) == LOADS
    for kind, problem in drawn():
        again = instance(40, 4, kind, 3)
        np.testing.assert_array_equal(problem.work_flop, again.work_flop)
        np.testing.assert_array_equal(problem.upload_s, again.upload_s)
        assert (problem.users, problem.stations) == (40, 4)
        assert (instance(40, 4, kind, 4).upload_s != problem.upload_s).any()
        heavy = (problem.work_flop > 1e9).sum()
        assert {"mixed": 0 < heavy < 30, "retraining": heavy == 40}.get(kind, heavy == 0)
        assert (np.unique(problem.work_flop).size == 1) == (kind == "equal")
    for users, stations in SIZES[:3]:
        assert instance(users, stations, "equal", 0).upload_s.shape == (stations, users)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1, "mixed", 0), "users=0"),
        ((1, 0, "mixed", 0), "stations=0"),
        ((1, 1, "some", 0), "loads='some'"),
        ((1, 1, "mixed", -1), "seed=-1"),
    ],
)
def test_instances_refuse_what_they_cannot_be(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instance(*values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "loads", "most_gap", "most_cpu_s"),
    [
        ((1000, 50), "mixed", 0.01, 1.0),
        ((1000, 50), "retraining", 0.01, 1.0),
        ((1000, 50), "inference", 0.015, 1.0),
        ((3000, 100), "mixed", 0.015, 5.0),
        ((3000, 100), "inference", 0.015, 5.0),
    ],
)
def test_gaps_of_thousands_of_users(size: tuple[int, int], loads: Loads, most_gap: float, most_cpu_s: float) -> None:
    Annealing(moves_per_user=1).solve(instance(200, 10, "mixed", 0))  # loads what is compiled
    gaps, cpu_s = [], []
    for seed in range(10 if size[0] == 1000 else 3):
        problem = instance(*size, loads, seed)
        start_s = time.process_time()
        found = Annealing().solve(problem)
        cpu_s.append(time.process_time() - start_s)
        gaps.append(found.gap)
    assert np.median(gaps) <= most_gap
    assert np.median(cpu_s) <= 2 * most_cpu_s  # a machine may be busy, and half as fast


def test_an_interrupted_loop_raises_what_ctrl_c_raises() -> None:
    from dtsim.core.compiled import interruptible

    with pytest.raises(KeyboardInterrupt), interruptible():
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()
    with pytest.raises(SystemError), interruptible():
        raise SystemError("another")


@pytest.mark.parametrize("seed", range(3))
def test_equal_loads_are_served_within_a_delay_that_is_all_but_optimal(seed: int) -> None:
    problem = instance(300, 20, "equal", seed)
    start = improve(problem, longest_first(problem))
    found = matched(problem, start, 1000, 0, math.inf)
    assert objective_s(problem, found) < 0.99 * objective_s(problem, start)
    assert objective_s(problem, found) < 1.015 * lagrangian_bound_s(problem, objective_s(problem, start))
    np.testing.assert_array_equal(found, matched(problem, start, 1000, 0, math.inf))
    np.testing.assert_array_equal(start, matched(problem, start, 1000, 0, -math.inf))  # no time


def test_what_a_matching_serves_within_a_delay_takes_no_longer() -> None:
    """Brute force says for which delays there is an assignment; BSs differ in speed."""
    rng = np.random.default_rng(5)
    served = 0
    for _ in range(40):
        problem = AssociationProblem(
            work_flop=np.full(5, 2e9),
            upload_s=rng.uniform(0.01, 0.3, (3, 5)),
            station_flops=np.array([10e9, 20e9, 40e9]),
            gain=np.ones((3, 5)),
        )
        best_s = brute_force_s(problem)
        near = np.tile(np.arange(3), (5, 1))
        for share, possible in ((1.001, True), (0.999, False)):
            left, station = within(
                share * best_s,
                problem.work_flop[0] / problem.station_flops,
                near,
                problem.upload_s,
                longest_first(problem).astype(np.int64),
                500,
                np.array([7], dtype=np.uint64),
            )
            if left == 0:
                assert possible and objective_s(problem, station) <= share * best_s * (1 + 1e-12)
                served += 1
    assert served >= 36  # of 40 that are possible


def test_loads_are_equal_up_to_rounding_and_not_where_there_are_none() -> None:
    problem = instance(10, 3, "equal", 0)
    assert are_equal(problem)
    assert not are_equal(instance(10, 3, "inference", 0))
    assert not are_equal(replace(problem, work_flop=np.zeros(10)))
