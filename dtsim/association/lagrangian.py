"""A lower bound on P2 that large cells can afford: a Lagrangian relaxation over the waits of base stations.

Suppose that some assignment has a delay of z or less. A BS m that waits t for its longest upload then serves only MUs
whose upload takes t or less, and at most the work F_m (z - t). If MU k is worth λ_k ≥ 0, all BSs together are worth
Σ_k λ_k, because each MU has one BS. Hence

    Σ_k λ_k ≤ Σ_m V_m(z),  V_m(z) = max over waits t of the most that m can be worth within its room and reach.

V_m is bounded from above by letting MUs be divided: the most valuable ones per work are taken until the room is full.
Where loads come in few sizes, the room is first rounded down to a sum that loads can have. Any λ for which the
inequality fails at z proves that every assignment takes longer than z; subgradient steps look for the λ that proves the
most.
"""

from __future__ import annotations

import numpy as np

from dtsim.association.packing import subset_sums
from dtsim.association.problem import AssociationProblem, lower_bound_s

STEPS = 300
"""Subgradient steps after which the bound hardly rises."""

_PRECISION = 1e-6
# By how much the steps aim beyond the incumbent, relatively: the last ones only where the bound is still poor.
_BEYOND = (0.0, 0.005, 0.02, 0.05)
_POOR = 0.03
# A load below this fraction of the mean counts as that much, so that every MU has a value per work.
_LEAST_LOAD = 1e-12


def lagrangian_bound_s(problem: AssociationProblem, incumbent_s: float, steps: int = STEPS) -> float:
    """A lower bound on the delay of any assignment [s], never below the closed-form one.

    Args:
        problem: P2.
        incumbent_s: delay of a known assignment [s]; it sets the length of steps and is never exceeded.
        steps: subgradient steps.
    """
    closed_s = lower_bound_s(problem)
    if problem.work_flop.sum() == 0 or closed_s >= incumbent_s:
        return closed_s
    from dtsim.association.multipliers import ascend, proven

    work = np.maximum(problem.work_flop, _LEAST_LOAD * problem.work_flop.mean())
    order = np.argsort(problem.upload_s, axis=1, kind="stable")
    upload_s = np.take_along_axis(problem.upload_s, order, axis=1)
    shares = subset_sums(problem.work_flop)
    sums = np.zeros(0) if shares is None else shares * work.sum()
    slack = 0.0 if shares is None else float(2 * sums[0])  # see `packing.carried`
    bound_s = 0.0
    # Where the worth rises in jumps, steps that aim at an incumbent that is all but optimal may lead nowhere.
    for place, beyond in enumerate((0.0,) if shares is None else _BEYOND):
        if place > 1 and bound_s > (1 - _POOR) * incumbent_s:
            break
        instance = (work, upload_s, order, problem.station_flops, sums, slack, incumbent_s * (1 + beyond))
        value = ascend(work, *instance, steps)
        bound_s = max(bound_s, proven(value, *instance, _PRECISION))
    added_s = (work - problem.work_flop).sum() / problem.station_flops.min()
    return float(max(closed_s, min((bound_s - added_s) * (1 - 1e-9), incumbent_s)))
