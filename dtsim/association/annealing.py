"""Simulated annealing with a proven bound: near-optimal associations of thousands of users in seconds."""

from __future__ import annotations

import math
import time

import numpy as np
from pydantic import Field

from dtsim.association.equal_loads import are_equal, matched
from dtsim.association.greedy import improve, longest_first
from dtsim.association.lagrangian import lagrangian_bound_s
from dtsim.association.problem import (
    RELATIVE_TOLERANCE,
    Association,
    AssociationProblem,
    Stations,
    Status,
    answer,
    lower_bound_s,
    objective_s,
)
from dtsim.core.parts import part
from dtsim.core.seeding import Streams

# Sharpness of the energy and temperature, at the start and at the end; see `moves`.
SHARPNESS = (16.0, 128.0)
TEMPERATURE = (0.32, 0.0128)
# Moves connect an MU to a BS that alone would take at most this part of z longer than its best BS, ...
REACH = 0.05
# ... to its best few in any case, and to no more than so many.
FEWEST, MOST = 2, 8
# Exact solvers start from an annealed solution from this many links (users times stations) on: below, they soon end.
HARD = 200
# The clock is read after so many moves.
_SLICE = 500_000
# Where loads are equal, a round of the search by matchings stands for so many moves: it takes about as long.
_MOVES_OF_A_ROUND = 5000


@part
class Annealing:
    """Random moves and swaps of users from the greedy solution on; the Lagrangian bound says how good the best is."""

    moves_per_user: int = Field(default=5_000, ge=1, le=10**9)
    """Moves and swaps that are tried, for each user; a million take about 0.1 s."""
    most_moves: int = Field(default=5_000_000, ge=1, le=10**12)
    """Moves and swaps that are tried in all, however many users there are."""
    bound_steps: int = Field(default=300, ge=1, le=10**6)
    """Subgradient steps of the Lagrangian bound."""
    time_limit_s: float = Field(default=60.0, gt=0, le=1e6)
    """Wall time [s] after which no more moves are tried; the answer then depends on the machine's speed."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of the moves."""

    def solve(self, problem: AssociationProblem) -> Association:
        """The best solution of the search, never worse than the greedy one, with the Lagrangian bound."""
        started = time.perf_counter()
        station = annealed(
            problem,
            improve(problem, longest_first(problem)),
            self.moves(problem),
            self.seed,
            started + self.time_limit_s,
        )
        best_s = objective_s(problem, station)
        bound_s = lagrangian_bound_s(problem, best_s, self.bound_steps)
        status: Status = "optimal" if bound_s >= best_s * (1 - RELATIVE_TOLERANCE) else "feasible"
        return answer(problem, station, bound_s=bound_s, started=started, status=status, solver="annealing")

    def moves(self, problem: AssociationProblem) -> int:
        """Number of moves that are tried."""
        return min(self.moves_per_user * problem.users, self.most_moves)


def annealed(problem: AssociationProblem, start: Stations, moves: int, seed: int, deadline: float) -> Stations:
    """[K] The best assignment that `moves` moves find, or `start` [K]; stops at `deadline` (`time.perf_counter()`)."""
    best_s = objective_s(problem, start)
    if problem.stations == 1 or lower_bound_s(problem) >= best_s * (1 - RELATIVE_TOLERANCE):
        return start
    if are_equal(problem):
        found = improve(problem, matched(problem, start, max(1, moves // _MOVES_OF_A_ROUND), seed, deadline))
        return found if objective_s(problem, found) <= best_s else start
    from dtsim.association.moves import anneal
    from dtsim.core.compiled import interruptible

    links = candidates(problem, best_s)
    state = Streams(seed).numpy("association/annealing").integers(1, 2**64, 1, dtype=np.uint64, endpoint=False)
    station, best = start.copy(), start.copy()
    began = time.perf_counter()
    done, left, cooled = 0, moves, 0.0  # how many moves, and the part of the schedule that they took
    while left > 0 and (now := time.perf_counter()) < deadline:
        if done:  # if not all can be done in time, the schedule still ends with the last one that can
            left = min(left, math.ceil(done / (now - began) * (deadline - now)))
        tried = min(_SLICE, left)
        until = cooled + (1 - cooled) * tried / left
        sharpness, temperature = (
            (first * (last / first) ** cooled, first * (last / first) ** until)
            for first, last in (SHARPNESS, TEMPERATURE)
        )
        with interruptible():
            anneal(
                problem.work_flop, problem.upload_s, problem.station_flops, links, station, best, state,
                tried, sharpness, temperature,
            )  # fmt: skip
        done, left, cooled = done + tried, left - tried, until
    best = improve(problem, best)  # BSs that do not determine z are balanced too
    return best if objective_s(problem, best) <= best_s else start


def first_incumbent(problem: AssociationProblem, deadline: float) -> tuple[Stations, float]:
    """An assignment [K] for an exact solver to start from, and a lower bound on any delay [s].

    In small cells these are the greedy solution and the closed-form bound, which cost a millisecond. In large ones,
    where exact solvers prove little in their time limit, they are those of `Annealing` with its default keys.
    """
    station = improve(problem, longest_first(problem))
    if problem.upload_s.size < HARD:
        return station, lower_bound_s(problem)
    by_default = Annealing()
    station = annealed(problem, station, by_default.moves(problem), by_default.seed, deadline)
    return station, lagrangian_bound_s(problem, objective_s(problem, station), by_default.bound_steps)


def candidates(problem: AssociationProblem, delay_s: float) -> Stations:
    """[L, 2] Links, MU and BS, that are worth trying where a solution of `delay_s` is known."""
    alone_s = problem.upload_s + problem.load_s
    order = np.argsort(alone_s, axis=0, kind="stable")[:MOST]
    alone_s = np.take_along_axis(alone_s, order, axis=0)
    near = alone_s <= alone_s[0] + REACH * delay_s
    near[:FEWEST] = True
    user, rank = np.nonzero(near.T)
    return np.stack([user, order[rank, user]], axis=1)
