"""P2 as an integer programme for OR-Tools' CP-SAT: the default solver, optimal for tens of users within its limit."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from ortools.sat.python import cp_model
from pydantic import Field

from dtsim.association.annealing import first_incumbent
from dtsim.association.greedy import improve
from dtsim.association.packing import carried, subset_sums
from dtsim.association.problem import (
    RELATIVE_TOLERANCE,
    Association,
    AssociationProblem,
    Stations,
    Status,
    answer,
    objective_s,
)
from dtsim.association.search import Search
from dtsim.core.parts import part

# CP-SAT's unit as a fraction of the greedy solution's delay: rounding K loads down costs K / 2^30, 2e-8 at K = 20.
RESOLUTION = 2**30


@part
class CpSat(Search):
    """CP-SAT on links and waits; it starts from the greedy solution, in large cells from an annealed one."""

    workers: int = Field(default=1, ge=1, le=1024)
    """Search threads; more than one are faster, but need not return the same of several optimal answers."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of CP-SAT's own random choices."""

    def solve(self, problem: AssociationProblem) -> Association:
        """The optimal solution, or the best one at the time limit; at worst the greedy one."""
        started = time.perf_counter()
        station, bound_s = first_incumbent(problem, started + self.time_limit_s)
        status: Status = "optimal"
        if bound_s < objective_s(problem, station) * (1 - RELATIVE_TOLERANCE):
            found, searched_s, status = self._search(problem, station, bound_s, started)
            bound_s = max(bound_s, searched_s)
            # BSs that do not determine z are balanced too: see `improve`.
            station = improve(problem, min(found, station, key=lambda each: objective_s(problem, each)))
        return answer(problem, station, bound_s=bound_s, started=started, status=status, solver="cpsat")

    def _search(
        self, problem: AssociationProblem, start: Stations, bound_s: float, started: float
    ) -> tuple[Stations, float, Status]:
        """The best assignment found, a lower bound on z [s] and the status."""
        unit_s = objective_s(problem, start) / RESOLUTION
        model, links = _model(problem, start, bound_s, unit_s)
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.max_time_in_seconds = max(self.time_limit_s - (time.perf_counter() - started), 0.0)
        parameters.num_workers = self.workers
        parameters.random_seed = self.seed
        parameters.catch_sigint_signal = False  # Python handles Ctrl-C
        with ThreadPoolExecutor(1) as thread:  # the main thread stays free to receive Ctrl-C
            search = thread.submit(solver.solve, model)
            try:
                code = search.result()
            except BaseException:
                solver.stop_search()
                raise
        station = start.copy()
        if code in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            for (m, k), link in links.items():
                if solver.boolean_value(link):
                    station[k] = m
        # Times were rounded down, so the integer bound is valid for the exact times too.
        return (
            station,
            solver.best_objective_bound * unit_s,
            "optimal" if code == cp_model.OPTIMAL else "feasible",
        )


def _model(
    problem: AssociationProblem, start: Stations, bound_s: float, unit_s: float
) -> tuple[cp_model.CpModel, dict[tuple[int, int], cp_model.IntVar]]:
    """P2 in whole multiples of `unit_s`, with `start` as hint and z from `bound_s` on, and its variables a.

    u_m is written as Σ_j δ_mj y_mj as in `Relaxation`, with which CP-SAT prunes much earlier than with
    u_m ≥ a_mk t_mk: y_mj says that BS m waits for its j-th shortest upload, δ_mj longer than for the one before.
    """
    upload = np.floor(problem.upload_s / unit_s).astype(np.int64)
    load = np.floor(problem.load_s / unit_s).astype(np.int64)
    # A link that alone takes longer than the hint's delay cannot improve on the hint.
    cutoff_s = unit_s * RESOLUTION * (1 + RELATIVE_TOLERANCE)
    allowed = problem.upload_s + problem.load_s <= cutoff_s
    model = cp_model.CpModel()
    least = int(bound_s / unit_s) - problem.users - 1  # K loads and an upload, each rounded down
    z = model.new_int_var(max(least, 0), RESOLUTION, "z")
    links = {(int(m), int(k)): model.new_bool_var(f"a_{m}_{k}") for m, k in np.argwhere(allowed)}
    for k in range(problem.users):
        model.add_exactly_one(links[m, k] for m in range(problem.stations) if allowed[m, k])
    sums = subset_sums(problem.work_flop)
    share = problem.work_flop / max(problem.work_flop.sum(), np.finfo(float).tiny)
    weight = np.floor(share * RESOLUTION).astype(np.int64)
    for m in range(problem.stations):
        users = [int(k) for k in np.argsort(problem.upload_s[m], kind="stable") if allowed[m, k]]
        waits = [model.new_bool_var(f"y_{m}_{k}") for k in users]
        steps = np.diff(upload[m, users], prepend=0)
        for k, wait in zip(users, waits, strict=True):
            model.add_implication(links[m, k], wait)
        for shorter, longer in pairwise(waits):
            model.add_implication(longer, shorter)
        waiting = sum(int(step) * wait for step, wait in zip(steps, waits, strict=True))
        model.add(z >= waiting + sum(int(load[m, k]) * links[m, k] for k in users))
        if sums is not None:  # if there are few different loads, a longer wait reduces the carried load in steps
            room = (cutoff_s - np.append(0.0, problem.upload_s[m, users])) * problem.station_flops[m]
            fits = np.ceil(carried(sums, room / problem.work_flop.sum()) * RESOLUTION).astype(np.int64)
            taken = sum(int(drop) * wait for drop, wait in zip(-np.diff(fits), waits, strict=True))
            model.add(sum(int(weight[k]) * links[m, k] for k in users) + taken <= int(fits[0]))
    model.minimize(z)
    for (m, k), link in links.items():
        model.add_hint(link, int(start[k] == m))
    return model, links
