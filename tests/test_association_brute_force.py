"""Solvers of P2 on small problems of every kind, against listing all assignments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtsim.association.annealing import Annealing
from dtsim.association.branch_and_bound import BranchAndBound
from dtsim.association.cpsat import CpSat
from dtsim.association.greedy import Greedy
from dtsim.association.milp import Milp
from dtsim.association.problem import AssociationProblem, Solver
from dtsim.association.strongest import Strongest

EXACT: list[Solver] = [CpSat(), BranchAndBound()]
HEURISTIC: list[Solver] = [Annealing(moves_per_user=50), Milp(), Greedy(), Greedy(local_search=False), Strongest()]


@st.composite
def problem(draw: st.DrawFn) -> AssociationProblem:
    """Up to five MUs and three BSs; loads that are equal, in few sizes or all different, links good, bad and free."""
    users, stations = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    work = st.one_of(st.sampled_from([0.0, 8e7, 3e9]), st.floats(0.0, 5e9))
    upload = st.one_of(st.sampled_from([0.0, 0.003, 0.05, 2.0]), st.floats(0.0, 0.2))
    links = st.lists(upload, min_size=users, max_size=users)
    return AssociationProblem(
        work_flop=np.array(draw(st.lists(work, min_size=users, max_size=users))),
        upload_s=np.array(draw(st.lists(links, min_size=stations, max_size=stations))),
        station_flops=np.array(
            draw(st.lists(st.sampled_from([1e10, 5e10, 2e11]), min_size=stations, max_size=stations))
        ),
        gain=np.array(draw(st.lists(links, min_size=stations, max_size=stations))),
    )


def delay_s(problem: AssociationProblem, station: tuple[int, ...]) -> float:
    """z of P2, written out: each BS waits for its longest upload and then has all its work to do."""
    ends = []
    for m in range(problem.stations):
        own = [k for k, where in enumerate(station) if where == m]
        work = math.fsum(problem.work_flop[k] for k in own)
        ends.append(max((problem.upload_s[m, k] for k in own), default=0.0) + work / problem.station_flops[m])
    return float(max(ends))


@settings(max_examples=50)
@given(problem())
def test_every_solver_says_what_its_answer_takes_and_never_more_than_it_knows(problem: AssociationProblem) -> None:
    best_s = min(
        delay_s(problem, station) for station in itertools.product(range(problem.stations), repeat=problem.users)
    )
    for solver in [*EXACT, *HEURISTIC]:
        found = solver.solve(problem)
        assert found.objective_s == pytest.approx(delay_s(problem, tuple(found.station.tolist())), rel=1e-12, abs=1e-15)
        assert found.bound_s <= best_s * (1 + 1e-7) + 1e-12
        assert found.objective_s >= best_s * (1 - 1e-12)
        if solver in EXACT:
            assert found.status == "optimal"
            assert found.objective_s == pytest.approx(best_s, rel=1e-7, abs=1e-12)
        else:
            assert (found.status == "heuristic") == (not isinstance(solver, (Annealing, Milp)))


@settings(max_examples=50)
@given(problem())
def test_local_search_leaves_no_move_that_helps(problem: AssociationProblem) -> None:
    found = Greedy().solve(problem)
    assert found.objective_s <= Greedy(local_search=False).solve(problem).objective_s * (1 + 1e-12)
    for user, station in itertools.product(range(problem.users), range(problem.stations)):
        moved = found.station.copy()
        moved[user] = station
        assert delay_s(problem, tuple(moved.tolist())) >= found.objective_s * (1 - 1e-8)
