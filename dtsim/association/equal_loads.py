"""A search for associations where all MUs bring the same work: how many MUs each BS serves decides everything.

A BS that serves n MUs within z can wait z - n w / F_m for their uploads. So numbers n_m say which MUs each BS reaches,
and whether all MUs can be served is a matching of MUs to BSs. The search changes one n_m at a time, repairs the
matching by augmenting paths, and tries shorter and shorter z. A BS that takes one MU more gives up all that are now too
far at once, which moves and swaps of single MUs seldom find.
"""

from __future__ import annotations

import time

import numpy as np

from dtsim.association.problem import AssociationProblem, Stations, objective_s
from dtsim.core.seeding import Streams

# An MU may have no more BSs than so many, those that would finish it soonest.
_NEAR = 8
# z is first shortened by this part; a part that fails is halved, and the search ends below the last.
_FIRST, _LAST = 0.02, 0.001


def are_equal(problem: AssociationProblem) -> bool:
    """Whether all MUs bring the same work, more than none."""
    work = problem.work_flop
    return bool(work.min() > 0 and work.max() - work.min() <= 1e-9 * work.max())


def matched(problem: AssociationProblem, start: Stations, rounds: int, seed: int, deadline: float) -> Stations:
    """[K] The best assignment that is found from `start` [K] on, or `start`.

    Args:
        problem: P2 with equal loads.
        start: an assignment.
        rounds: how many changes of a BS's number of MUs are tried for each z.
        seed: seed of the changes.
        deadline: no z is tried after it (`time.perf_counter()`).
    """
    from dtsim.association.matching import within
    from dtsim.core.compiled import interruptible

    each_s = problem.work_flop.max() / problem.station_flops
    alone_s = problem.upload_s + each_s[:, np.newaxis]
    near = np.ascontiguousarray(np.argsort(alone_s, axis=0, kind="stable")[:_NEAR].T)
    state = Streams(seed).numpy("association/matching").integers(1, 2**64, 1, dtype=np.uint64, endpoint=False)
    best, best_s, part = start, objective_s(problem, start), _FIRST
    while part >= _LAST and time.perf_counter() < deadline:
        with interruptible():
            left, station = within(
                best_s * (1 - part), each_s, near, problem.upload_s, best.astype(np.int64), rounds, state
            )
        if left == 0:
            best, best_s = station, objective_s(problem, station)
        else:
            part /= 2
    return best
