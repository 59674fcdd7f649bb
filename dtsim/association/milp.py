"""P2 as written, for the MILP solver HiGHS through SciPy: the plain baseline of exact solvers."""

from __future__ import annotations

import time
from threading import Thread
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from dtsim.association.greedy import improve, longest_first
from dtsim.association.problem import (
    Association,
    AssociationProblem,
    Stations,
    Status,
    answer,
    lower_bound_s,
    objective_s,
)
from dtsim.association.search import GapSearch
from dtsim.core.parts import part

# HiGHS's tolerances on rows and on whole numbers, relative to the delay: its bound can be too high by as much.
TOLERANCE = 1e-6


@part
class Milp(GapSearch):
    """Gives z, a and u of (11) to a general solver, without a start."""

    def solve(self, problem: AssociationProblem) -> Association:
        """The optimal solution, or HiGHS's best at the time limit; the greedy one if HiGHS has found none by then."""
        started = time.perf_counter()
        greedy = improve(problem, longest_first(problem))
        unit_s = objective_s(problem, greedy)
        station, bound_s = greedy, lower_bound_s(problem)
        status: Status = "optimal" if unit_s == 0 else "feasible"
        if unit_s > 0:
            found, searched_s, proven = self._search(problem, unit_s)
            bound_s = max(bound_s, searched_s)
            station = greedy if found is None else found
            if proven and bound_s >= objective_s(problem, station) * (1 - 3 * TOLERANCE):
                status = "optimal"
        return answer(problem, station, bound_s=bound_s, started=started, status=status, solver="milp")

    def _search(self, problem: AssociationProblem, unit_s: float) -> tuple[Stations | None, float, bool]:
        """The assignment found, if any, a lower bound on z [s], and whether HiGHS calls it optimal."""
        programme = _programme(problem, unit_s)
        found: list[Any] = []

        def run() -> None:
            found.append(milp(**programme, options={"time_limit": self.time_limit_s, "mip_rel_gap": self.relative_gap}))

        # HiGHS does not hear Ctrl-C: the main thread waits for it and does.
        search = Thread(target=run, daemon=True)
        search.start()
        while search.is_alive():
            search.join(0.1)
        if not found:
            raise RuntimeError("HiGHS ended without a result")
        result = found[0]
        bound = 0.0 if result.mip_dual_bound is None else float(result.mip_dual_bound)
        bound_s = max(bound - TOLERANCE, 0.0) * unit_s if np.isfinite(bound) else 0.0
        if result.x is None:
            return None, bound_s, False
        link = result.x[1 : 1 + problem.stations * problem.users].reshape(problem.stations, problem.users)
        return np.asarray(link.argmax(axis=0), dtype=np.int64), bound_s, result.status == 0


def _programme(problem: AssociationProblem, unit_s: float) -> dict[str, Any]:
    """Minimise z over z, a [M, K] and u [M], with times in units of `unit_s`."""
    stations, users = problem.stations, problem.users
    load = (problem.load_s / unit_s).ravel()
    upload = (problem.upload_s / unit_s).ravel()
    links = stations * users
    station, user = (index.ravel() for index in np.indices((stations, users)))
    link = np.arange(links)
    a, u = 1 + link, 1 + links
    done, wait, one = 0, stations, stations + links  # first row of each kind
    entries = [  # row, column, value
        (done + np.arange(stations), np.zeros(stations, dtype=np.int64), np.ones(stations)),  # z >= u_m + sum a w / F
        (done + np.arange(stations), u + np.arange(stations), -np.ones(stations)),
        (done + station, a, -load),
        (wait + link, u + station, np.ones(links)),  # u_m >= a_mk t_mk
        (wait + link, a, -upload),
        (one + user, a, np.ones(links)),  # sum_m a_mk = 1
    ]
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    matrix = coo_array((value, (row, column)), shape=(one + users, 1 + links + stations)).tocsr()
    low = np.concatenate([np.zeros(stations + links), np.ones(users)])
    high = np.concatenate([np.full(stations + links, np.inf), np.ones(users)])
    whole = np.concatenate([[0], np.ones(links), np.zeros(stations)])
    cost = np.zeros(1 + links + stations)
    cost[0] = 1.0
    upper = np.concatenate([[np.inf], np.ones(links), np.full(stations, np.inf)])
    return {
        "c": cost,
        "integrality": whole,
        "bounds": Bounds(np.zeros_like(cost), upper),
        "constraints": LinearConstraint(matrix, low, high),
    }
