from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtsim.association import branch_and_bound
from dtsim.association.annealing import Annealing
from dtsim.association.branch_and_bound import BranchAndBound
from dtsim.association.cpsat import CpSat
from dtsim.association.greedy import Greedy, improve, longest_first
from dtsim.association.milp import Milp
from dtsim.association.packing import carried, subset_sums
from dtsim.association.problem import (
    Association,
    AssociationProblem,
    Solver,
    finish_s,
    lower_bound_s,
    objective_s,
)
from dtsim.association.relaxation import Box, Relaxation
from dtsim.association.strongest import Strongest
from dtsim.core.parts import ConfigError, build
from dtsim.runner.defaults import choices
from tests.composed import node

SOLVERS: list[Solver] = [
    CpSat(),
    BranchAndBound(),
    Annealing(),
    Milp(),
    Greedy(),
    Greedy(local_search=False),
    Strongest(),
]
EXACT: list[Solver] = [CpSat(), BranchAndBound()]
CONF = Path(__file__).parents[1] / "conf" / "solver"


def instance(seed: int, users: int, stations: int, *, retrained: float = 0.3, **fixed: Any) -> AssociationProblem:
    """Users in a 200 m square around BSs 100 m apart, free space at 3.5 GHz, tens of images each."""
    draw = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(stations) / stations
    bs_m = 100 + 57.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mu_m = draw.uniform(0, 200, (users, 2))
    distance_m = np.maximum(np.linalg.norm(bs_m[:, None] - mu_m, axis=-1), 1.0)
    gain = (299_792_458 / 3.5e9 / (4 * np.pi * distance_m)) ** 2
    rate_bps = 20e6 * np.log2(1 + 1e9 * gain)  # -10 dBm over -100 dBm
    captured_bytes = 784 * draw.uniform(14, 26, users)
    work_flop = 4.9e3 * captured_bytes + (draw.random(users) < retrained) * draw.uniform(2e9, 6e9, users)
    values: dict[str, Any] = {
        "work_flop": work_flop,
        "upload_s": 8 * captured_bytes / rate_bps,
        "station_flops": np.full(stations, 50e9),
        "gain": gain,
    }
    return AssociationProblem(**{**values, **fixed})


def brute_force_s(problem: AssociationProblem) -> float:
    every = itertools.product(range(problem.stations), repeat=problem.users)
    return min(objective_s(problem, np.array(station)) for station in every)


def special_cases() -> dict[str, AssociationProblem]:
    mixed = np.array([3e9, 0, 8e7, 3e9, 8e7, 3e9])
    return {
        "zero work": instance(1, 6, 3, work_flop=np.zeros(6)),
        "zero upload": instance(2, 6, 3, upload_s=np.zeros((3, 6))),
        "nothing at all": instance(2, 4, 3, work_flop=np.zeros(4), upload_s=np.zeros((3, 4))),
        "one station": instance(3, 7, 1),
        "one user": instance(4, 1, 3),
        "one user, one station": instance(5, 1, 1),
        "identical users": instance(6, 7, 3, work_flop=np.full(7, 8e7), upload_s=np.full((3, 7), 0.003)),
        "equal work": instance(7, 7, 3, work_flop=np.full(7, 8e7)),
        "two sizes of work": instance(8, 6, 3, work_flop=mixed),
        "unequal stations": instance(9, 6, 3, station_flops=np.array([10e9, 50e9, 200e9])),
        "more stations than users": instance(10, 3, 6),
        "an outage": instance(11, 6, 3, upload_s=instance(11, 6, 3).upload_s * ([[1e6], [1.0], [1.0]])),
    }


def assert_consistent(problem: AssociationProblem, found: Association) -> None:
    assert found.station.shape == (problem.users,)
    assert found.station.dtype == np.int64
    assert found.station.min() >= 0
    assert found.station.max() < problem.stations
    assert found.objective_s == objective_s(problem, found.station)
    assert found.bound_s <= found.objective_s
    if found.objective_s > 0:
        assert found.gap == (found.objective_s - found.bound_s) / found.objective_s
    if found.status == "optimal":
        assert found.gap == 0
    assert found.solve_time_s >= 0


def test_objective_is_longest_upload_plus_shared_compute() -> None:
    problem = AssociationProblem(
        work_flop=np.array([1e9, 2e9, 6e9]),
        upload_s=np.array([[0.01, 0.04, 0.02], [0.03, 0.05, 0.06]]),
        station_flops=np.array([10e9, 20e9]),
        gain=np.ones((2, 3)),
    )
    station = np.array([0, 0, 1])
    # BS 0: 0.04 + 3e9 / 10e9; BS 1: 0.06 + 6e9 / 20e9.
    np.testing.assert_allclose(finish_s(problem, station), [0.34, 0.36])
    assert objective_s(problem, station) == pytest.approx(0.36)
    np.testing.assert_allclose(finish_s(problem, np.array([1, 1, 1])), [0.0, 0.06 + 0.45])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upload_s": np.ones((3, 2))}, "upload_s: shape"),
        ({"gain": np.ones((2, 3))}, "gain: shape"),
        ({"work_flop": np.array([1.0, -1.0, 1.0, 1.0])}, "work_flop: every value"),
        ({"upload_s": np.full((3, 4), np.inf)}, "upload_s: every value"),
        ({"station_flops": np.zeros(3)}, "station_flops: every value must be > 0"),
        ({"work_flop": np.zeros(0)}, "non-empty"),
    ],
)
def test_problem_refuses_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instance(0, 4, 3, **change)


@pytest.mark.parametrize("seed", range(24))
def test_exact_solvers_find_the_brute_force_optimum(seed: int) -> None:
    problem = instance(seed, 2 + seed % 6, 1 + seed % 3, retrained=0.3 * (seed % 4))
    best_s = brute_force_s(problem)
    assert lower_bound_s(problem) <= best_s
    for solver in EXACT:
        found = solver.solve(problem)
        assert_consistent(problem, found)
        assert found.status == "optimal"
        assert found.objective_s == pytest.approx(best_s, rel=1e-8)


@pytest.mark.parametrize("name", special_cases())
def test_solvers_on_special_cases(name: str) -> None:
    problem = special_cases()[name]
    best_s = brute_force_s(problem)
    for solver in SOLVERS:
        found = solver.solve(problem)
        assert_consistent(problem, found)
        assert found.bound_s <= best_s * (1 + 1e-12)
        if solver in EXACT:
            assert found.status == "optimal"
            assert found.objective_s == pytest.approx(best_s, rel=1e-8, abs=1e-15)
        else:
            assert found.objective_s >= best_s * (1 - 1e-12)
            if isinstance(solver, Milp):
                assert found.objective_s == pytest.approx(best_s, rel=1e-5, abs=1e-15)
            elif not isinstance(solver, Annealing):
                assert found.status == "heuristic"


@pytest.mark.parametrize("listed", [1, 20])
def test_tree_is_exact_without_the_help_of_listing(monkeypatch: pytest.MonkeyPatch, listed: int) -> None:
    monkeypatch.setattr(branch_and_bound, "LISTED", listed)
    problems = [instance(seed, 6, 2 + seed % 2, retrained=0.3 * (seed % 3)) for seed in range(40)]
    for problem in [*problems, *special_cases().values()]:
        found = BranchAndBound().solve(problem)
        assert found.status == "optimal"
        assert found.objective_s == pytest.approx(brute_force_s(problem), rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("seed", range(6))
def test_exact_solvers_agree_at_twenty_users(seed: int) -> None:
    even: dict[str, Any] = {"work_flop": np.where(np.arange(20) < 6, 4e9, 77e6)} if seed % 3 == 2 else {}
    problem = instance(seed, 20, 3, retrained=0.3 * (seed % 2), **even)
    cpsat, tree, greedy = (solver.solve(problem) for solver in (CpSat(), BranchAndBound(), Greedy()))
    assert cpsat.status == tree.status == "optimal"
    assert cpsat.objective_s == pytest.approx(tree.objective_s, rel=1e-6)
    assert greedy.bound_s <= tree.objective_s <= greedy.objective_s * (1 + 1e-9)
    for found in (cpsat, tree):  # balanced beyond what z asks for
        np.testing.assert_array_equal(improve(problem, found.station), found.station)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_same_problem_same_answer(solver: Solver) -> None:
    problem = instance(3, 16, 3)
    first, again = solver.solve(problem), solver.solve(problem)
    assert first.station.tobytes() == again.station.tobytes()
    assert (first.objective_s, first.bound_s, first.status) == (again.objective_s, again.bound_s, again.status)


@pytest.mark.parametrize("solver", [CpSat(time_limit_s=0.2), BranchAndBound(time_limit_s=0.2)], ids=repr)
def test_time_limit_returns_the_best_so_far_with_its_gap(solver: Solver) -> None:
    problem = instance(3, 60, 6)
    found = solver.solve(problem)  # an exact answer would take hours
    assert_consistent(problem, found)
    assert found.status == "feasible"
    assert 0 < found.gap < 1
    assert found.objective_s <= Greedy().solve(problem).objective_s


@pytest.mark.parametrize("solver", [CpSat(time_limit_s=1e-6), BranchAndBound(time_limit_s=1e-6)], ids=repr)
def test_no_time_at_all_returns_the_greedy_answer(solver: Solver) -> None:
    problem = instance(3, 20, 3)
    found, greedy = solver.solve(problem), Greedy().solve(problem)
    assert found.status == "feasible"
    assert (found.objective_s, found.bound_s) == (greedy.objective_s, greedy.bound_s)


def test_relative_gap_ends_the_search_early_and_says_so() -> None:
    problem = instance(0, 20, 3, retrained=0.0)
    best_s = CpSat().solve(problem).objective_s
    found = BranchAndBound(relative_gap=0.03).solve(problem)
    assert found.status == "feasible"
    assert 0 < found.gap <= 0.03 + 1e-12
    assert found.bound_s <= best_s <= found.objective_s


def test_local_search_never_worsens_and_ends_where_nothing_helps() -> None:
    for seed in range(20):
        problem = instance(seed, 15, 3)
        start = longest_first(problem)
        better = improve(problem, start)
        assert objective_s(problem, better) <= objective_s(problem, start)
        z_s = objective_s(problem, better)
        for user, station in itertools.product(range(15), range(3)):
            moved = better.copy()
            moved[user] = station
            assert objective_s(problem, moved) >= z_s * (1 - 1e-8)
        for one, other in itertools.combinations(range(15), 2):
            swapped = better.copy()
            swapped[[one, other]] = swapped[[other, one]]
            assert objective_s(problem, swapped) >= z_s * (1 - 1e-8)


def test_longest_first_by_hand() -> None:
    problem = AssociationProblem(
        work_flop=np.array([3.0, 5.0, 4.0, 1.0]),
        upload_s=np.zeros((2, 4)),
        station_flops=np.ones(2),
        gain=np.ones((2, 4)),
    )
    np.testing.assert_array_equal(longest_first(problem), [1, 0, 1, 0])  # 5 | 4, then 3 joins 4, and 1 joins 5


def test_strongest_follows_the_gain_alone() -> None:
    gain = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 2.0]])
    problem = instance(0, 3, 2, gain=gain)
    np.testing.assert_array_equal(Strongest().solve(problem).station, [1, 0, 0])


@pytest.mark.parametrize("seed", range(10))
def test_relaxation_is_a_bound_and_tightening_keeps_the_optimum(seed: int) -> None:
    even: dict[str, Any] = {"work_flop": np.full(6, 8e7)} if seed % 2 else {}
    problem = instance(seed, 6, 3, **even)
    best = min(
        (np.array(each) for each in itertools.product(range(3), repeat=6)), key=lambda each: objective_s(problem, each)
    )
    best_s = objective_s(problem, best)
    unit_s = 1.05 * best_s
    cutoff = 1.0001 * best_s / unit_s
    relaxation = Relaxation(problem, unit_s)
    relaxation.aim(cutoff)
    root = Box(np.ones((3, 6), dtype=np.bool_), np.zeros(3, dtype=np.int64))
    relaxed = relaxation.solve(root, time.perf_counter() + 60)
    assert relaxed is not None
    assert 0 < relaxed.bound <= best_s / unit_s
    box = relaxation.tightened(root, cutoff, relaxed)
    assert box is not None
    assert box.assignments < 3**6
    assert box.allowed[best, np.arange(6)].all()
    pinned = relaxation.solve(
        Box(np.eye(3, dtype=np.bool_)[best].T, np.zeros(3, dtype=np.int64)), time.perf_counter() + 60
    )
    assert pinned is not None
    assert pinned.bound == pytest.approx(best_s / unit_s, rel=1e-6)  # exact once every link is decided


def test_subset_sums_of_equal_loads_are_their_multiples() -> None:
    sums = subset_sums(np.full(8, 7.7e7))
    assert sums is not None
    np.testing.assert_allclose(sums, np.arange(9) / 8, atol=1e-10)
    np.testing.assert_allclose(
        carried(sums, np.array([-1.0, 0.0, 0.2, 0.25, 5.0])), [0, 0, 1 / 8, 2 / 8, 1], atol=1e-10
    )
    assert carried(sums, np.array(0.25)) >= 0.25
    assert subset_sums(np.random.default_rng(0).random(20)) is None


@pytest.mark.parametrize("name", choices("solver"))
def test_yaml_builds_the_defaults(name: str) -> None:
    solver = build(node("solver", name), "solver")
    assert solver == type(solver)()
    assert solver.solve(instance(0, 4, 2)).solver == name


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("cpsat.CpSat", "time_limit_s", 0.0),
        ("cpsat.CpSat", "workers", 0),
        ("cpsat.CpSat", "workers", 1.5),
        ("cpsat.CpSat", "seed", -1),
        ("branch_and_bound.BranchAndBound", "relative_gap", 1.0),
        ("branch_and_bound.BranchAndBound", "time_limit_s", float("inf")),
        ("greedy.Greedy", "local_search", "yes"),
        ("annealing.Annealing", "moves_per_user", 0),
        ("annealing.Annealing", "bound_steps", 1.5),
        ("annealing.Annealing", "seed", -1),
        ("milp.Milp", "relative_gap", 1.0),
        ("strongest.Strongest", "typo", 1),
    ],
)
def test_bad_keys_are_named(name: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        build({"_target_": f"dtsim.association.{name}", key: value}, "solver")
    assert len(error.value.lines) == 1
    assert error.value.lines[0].startswith(f"solver.{key}={value!r}: ")


def test_problem_and_heuristics_import_neither_ortools_nor_highs() -> None:
    code = (
        "import sys, dtsim.association.greedy, dtsim.association.strongest, dtsim.association.annealing; "
        "sys.exit(any(name.split('.')[0] in ('ortools', 'highspy', 'numba') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_highs_prints_nothing() -> None:
    code = (
        "import numpy as np; from dtsim.association.problem import AssociationProblem;"
        "from dtsim.association.relaxation import Relaxation;"
        "Relaxation(AssociationProblem(np.ones(3), np.ones((2, 3)), np.ones(2), np.ones((2, 3))), 1.0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert done.stdout + done.stderr == b""


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.parametrize(
    "solver",
    [
        CpSat(time_limit_s=120.0),
        BranchAndBound(time_limit_s=120.0),
        Annealing(moves_per_user=10**9, most_moves=10**12, time_limit_s=120.0),
        Milp(time_limit_s=8.0),  # HiGHS itself hears nothing and ends with its limit
    ],
    ids=repr,
)
def test_ctrl_c_ends_the_search_at_once(solver: Solver) -> None:
    """Pressed in the middle of a search that would take hours; in CPU time, as a busy machine is slow at anything."""
    pressed_s: list[float] = []

    def press() -> None:
        started_s = time.process_time()
        while time.process_time() < started_s + 0.5:
            time.sleep(0.01)
        pressed_s.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    presses = threading.Thread(target=press)
    try:
        presses.start()
        with pytest.raises(KeyboardInterrupt):
            solver.solve(instance(3, 60, 6))
        ended_s = time.process_time()
    finally:
        presses.join()
        signal.signal(signal.SIGINT, before)
    assert ended_s - pressed_s[0] < (2 if isinstance(solver, Milp) else 10)
