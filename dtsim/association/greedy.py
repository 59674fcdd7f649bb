"""Longest processing time first with local search: a good solution in about a millisecond, without proof.

The local search stands twice, and tests hold the two to the same answers: here in NumPy for small cells, and compiled
in `descent` for large ones. There it is 10 to 100 times faster, but importing numba and loading the compiled code takes
half a second, in which NumPy solves hundreds of small cells.
"""

from __future__ import annotations

import time

import numpy as np

from dtsim.association.problem import (
    RELATIVE_TOLERANCE,
    Array,
    Association,
    AssociationProblem,
    Stations,
    answer,
    finish_s,
    lower_bound_s,
)
from dtsim.core.parts import part

# From this many links (users times stations) on, compiled code pays off.
LARGE = 2_000


@part
class Greedy:
    """Assigns the heaviest MU first, to the BS that then finishes earliest; then runs local search."""

    local_search: bool = True
    """Whether moves and swaps of users follow until none helps."""

    def solve(self, problem: AssociationProblem) -> Association:
        """A heuristic solution with the closed-form lower bound."""
        started = time.perf_counter()
        station = longest_first(problem)
        if self.local_search:
            station = improve(problem, station)
        bound_s = lower_bound_s(problem)
        return answer(problem, station, bound_s=bound_s, started=started, status="heuristic", solver="greedy")


def longest_first(problem: AssociationProblem) -> Stations:
    """[K] The BS of each MU. MUs choose heaviest first the BS that finishes earliest with them; ties: lower index."""
    load_s = problem.load_s
    station = np.zeros(problem.users, dtype=np.int64)
    upload_s = np.zeros(problem.stations)
    compute_s = np.zeros(problem.stations)
    for user in np.argsort(-problem.work_flop, kind="stable"):
        waits_s = np.maximum(upload_s, problem.upload_s[:, user])
        chosen = int(np.argmin(waits_s + compute_s + load_s[:, user]))
        station[user] = chosen
        upload_s[chosen] = waits_s[chosen]
        compute_s[chosen] += load_s[chosen, user]
    return station


def improve(problem: AssociationProblem, station: Stations) -> Stations:
    """[K] `station` after moves and swaps. Each of them makes the later of its two BSs finish earlier.

    The delay z never rises. BSs that do not determine z are balanced too, so that no BS of an optimal solution is
    needlessly late. The sorted finishing times decrease lexicographically, so the search ends.
    """
    if problem.upload_s.size >= LARGE:
        from dtsim.association.descent import descend

        improved: Stations = descend(
            problem.work_flop, problem.upload_s, problem.load_s, problem.station_flops, station
        )
        return improved
    return _improved(problem, station)


def _improved(problem: AssociationProblem, station: Stations) -> Stations:
    """`improve` in NumPy."""
    station = station.copy()
    while True:
        finish = finish_s(problem, station)
        for late in np.argsort(-finish, kind="stable"):
            change = _best_change(problem, station, int(late), finish[late] * (1 - RELATIVE_TOLERANCE))
            if change is not None:
                for user, target in change:
                    station[user] = target
                break
        else:
            return station


def _best_change(
    problem: AssociationProblem, station: Stations, late: int, below_s: float
) -> list[tuple[int, int]] | None:
    """The move or swap out of BS `late` after which both BSs finish earliest; None if that is not before `below_s`."""
    load_s, upload_s = problem.load_s, problem.upload_s
    everyone = np.arange(problem.users)
    work_s = np.bincount(station, weights=problem.work_flop, minlength=problem.stations) / problem.station_flops
    first_s, without_s = _uploads(problem, station)
    leaving, staying = everyone[station == late], everyone[station != late]

    # Moves [users of late, M]: finishing times of the BS left and of the BS joined.
    left_s = without_s[leaving] + work_s[late] - load_s[late, leaving]
    joined_s = np.maximum(first_s[:, None], upload_s[:, leaving]) + work_s[:, None] + load_s[:, leaving]
    moves_s = np.maximum(left_s[:, None], joined_s.T)
    moves_s[:, late] = np.inf

    # Swaps [users of late, users elsewhere].
    theirs = station[staying]
    late_s = (
        np.maximum(without_s[leaving][:, None], upload_s[late, staying])
        + (work_s[late] - load_s[late, leaving])[:, None]
        + load_s[late, staying]
    )
    other_s = (
        np.maximum(without_s[staying], upload_s[theirs][:, leaving].T)
        + (work_s[theirs] - load_s[theirs, staying])
        + load_s[theirs][:, leaving].T
    )
    swaps_s = np.maximum(late_s, other_s)

    best_move = float(moves_s.min(initial=np.inf))
    best_swap = float(swaps_s.min(initial=np.inf))
    if min(best_move, best_swap) >= below_s:
        return None
    if best_move <= best_swap:
        user, target = np.unravel_index(int(moves_s.argmin()), moves_s.shape)
        return [(int(leaving[user]), int(target))]
    user, partner = np.unravel_index(int(swaps_s.argmin()), swaps_s.shape)
    return [(int(leaving[user]), int(theirs[partner])), (int(staying[partner]), late)]


def _uploads(problem: AssociationProblem, station: Stations) -> tuple[Array, Array]:
    """[M] The longest upload to each BS, and [K] the longest upload to each MU's BS without that MU [s]."""
    users = np.arange(problem.users)
    own_s = problem.upload_s[station, users]
    first_s = np.zeros(problem.stations)
    np.maximum.at(first_s, station, own_s)
    # The BS's second longest upload matters only for the MU with the longest one.
    longest = np.full(problem.stations, -1)
    at_first = own_s == first_s[station]
    longest[station[at_first]] = users[at_first]
    others = longest[station] != users
    second_s = np.zeros(problem.stations)
    np.maximum.at(second_s, station[others], own_s[others])
    return first_s, np.where(others, first_s[station], second_s[station])
