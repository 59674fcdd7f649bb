"""The multipliers of the Lagrangian bound as compiled loops; `lagrangian` says what they mean.

Imported late: importing numba takes a second.
"""

from __future__ import annotations

import numpy as np

from dtsim.association.problem import Array, Stations
from dtsim.core.compiled import compiled

# The step is shortened by this factor after so many steps without a better bound.
_SHORTER, _PATIENCE = 0.5, 6
# A bound that rises by less than this, relatively, counts as none that is better.
_RISE = 1e-5
# No guess of the bound is further above the last, relatively.
_JUMP = 0.01
# No step aims closer to the incumbent than this, relatively.
_NEAREST = 1e-4


@compiled
def _ranked(value: Array, work: Array, user_at: Stations, rank: Stations) -> None:
    """Sort MUs by value per work, highest first: `user_at` [K] rank -> MU, `rank` [K] MU -> rank."""
    key = np.empty(work.size)
    for k in range(work.size):
        key[k] = -value[k] / work[k]
    order = np.argsort(key)
    for r in range(work.size):
        user_at[r] = order[r]
        rank[order[r]] = r


@compiled
def _worth(
    z_s: float,
    flops: float,
    value: Array,
    work: Array,
    upload: Array,
    order: Stations,
    user_at: Stations,
    rank: Stations,
    sums: Array,
    slack: float,
    present: Array,
) -> tuple[float, int, int, float]:
    """The most that one BS can be worth within `z_s`, over all its waits, where MUs may be divided.

    A longer wait offers one more MU and leaves less room. So the least valuable MUs drop out one by one and none comes
    back: one pass finds the best share of MUs for every wait.

    Args:
        z_s: delay [s].
        flops: compute of the BS [FLOP/s].
        value: [K] what each MU is worth.
        work: [K] work of each MU [FLOP].
        upload: [K] upload times to this BS, ascending [s].
        order: [K] the MUs in that order.
        user_at: [K] rank -> MU, see `_ranked`.
        rank: [K] MU -> rank.
        sums: ascending sums that loads can have [FLOP]; empty: any.
        slack: by how much a sum may exceed the room, for its rounding [FLOP].
        present: [K] scratch, zeros before and after.

    Returns:
        The worth; how many MUs the best wait offers; from which rank on MUs are left out; the share of the MU of that
        rank that is taken.
    """
    users = work.size
    best, best_offered, best_cut, best_share = 0.0, 0, users, 0.0
    cut, taken, worth = users, 0.0, 0.0
    fits = sums.size - 1
    offered = 0
    for j in range(users):
        room = flops * (z_s - upload[j])
        if room <= 0:
            break
        if sums.size > 0:
            while fits >= 0 and sums[fits] > room + slack:
                fits -= 1
            if fits < 0:
                break
            room = sums[fits]
        k = order[j]
        offered += 1
        present[rank[k]] = 1.0
        if rank[k] < cut:
            taken += work[k]
            worth += value[k]
        while taken > room:
            last = cut - 1
            while last >= 0 and present[last] == 0.0:
                last -= 1
            if last < 0:  # nobody is left: what is taken is a rounding error
                taken, worth = 0.0, 0.0
                break
            taken -= work[user_at[last]]
            worth -= value[user_at[last]]
            cut = last
        share = 0.0
        if cut < users:
            share = min(max((room - taken) / work[user_at[cut]], 0.0), 1.0)
        whole = worth + (share * value[user_at[cut]] if cut < users else 0.0)
        if whole > best:
            best, best_offered, best_cut, best_share = whole, offered, cut, share
    for j in range(offered):
        present[rank[order[j]]] = 0.0
    return best, best_offered, best_cut, best_share


@compiled
def _surplus(
    z_s: float,
    value: Array,
    work: Array,
    upload: Array,
    order: Stations,
    flops: Array,
    sums: Array,
    slack: float,
    uncovered: Array,
) -> tuple[float, float]:
    """By how much the worth of all MUs exceeds what all BSs can be worth within `z_s`, and how fast it falls with z.

    Where it is positive no assignment has a delay of `z_s` or less. `uncovered` [K] becomes 1 minus the shares of each
    MU that BSs take: the direction in which the surplus grows.
    """
    stations, users = upload.shape
    user_at, rank = np.empty(users, np.int64), np.empty(users, np.int64)
    present = np.zeros(users)
    _ranked(value, work, user_at, rank)
    surplus, slope = 0.0, 0.0
    for k in range(users):
        surplus += value[k]
        uncovered[k] = 1.0
    for m in range(stations):
        worth, offered, cut, share = _worth(
            z_s, flops[m], value, work, upload[m], order[m], user_at, rank, sums, slack, present
        )
        surplus -= worth
        if cut < users:
            slope += flops[m] * value[user_at[cut]] / work[user_at[cut]]
        for j in range(offered):
            k = order[m, j]
            if rank[k] < cut:
                uncovered[k] -= 1.0
            elif rank[k] == cut:
                uncovered[k] -= share
    return surplus, slope


@compiled
def ascend(
    start: Array,
    work: Array,
    upload: Array,
    order: Stations,
    flops: Array,
    sums: Array,
    slack: float,
    incumbent_s: float,
    steps: int,
) -> Array:
    """[K] What each MU is worth after `steps` steps along the subgradient that raise the bound.

    Args:
        start: [K] first multipliers.
        work: [K] work of each MU, > 0 [FLOP].
        upload: [M, K] upload times of each BS, ascending [s].
        order: [M, K] the MUs in that order.
        flops: [M] compute of each BS [FLOP/s].
        sums: ascending sums that loads can have [FLOP]; empty: any.
        slack: by how much a sum may exceed the room, for its rounding [FLOP].
        incumbent_s: delay of a known assignment [s].
        steps: number of steps.
    """
    value, best = start.copy(), start.copy()
    uncovered = np.empty(work.size)
    z_s, best_s, length, waited = 0.95 * incumbent_s, 0.0, 1.0, 0
    for _ in range(steps):
        surplus, slope = _surplus(z_s, value, work, upload, order, flops, sums, slack, uncovered)
        if slope <= 0:
            break
        z_s = min(z_s + surplus / slope, incumbent_s)
        waited += 1
        better = z_s > best_s
        if better and sums.size > 0:  # the worth rises in jumps, so where it reaches the total is a guess
            z_s = min(z_s, (1 + _JUMP) * best_s) if best_s > 0 else z_s
            better = _surplus(z_s, value, work, upload, order, flops, sums, slack, uncovered)[0] > 0
        if better:
            if z_s > best_s * (1 + _RISE):
                waited = 0
            best_s = z_s
            best[:] = value
        elif waited > _PATIENCE:
            length *= _SHORTER
            waited = 0
            value[:] = best
        norm = 0.0
        for k in range(work.size):
            norm += uncovered[k] * uncovered[k] * work[k]
        if norm <= 0:
            break
        # Polyak's step towards the incumbent; an MU moves in proportion to its work, which is what it is worth.
        step = length * max(incumbent_s - z_s, _NEAREST * incumbent_s) * slope / norm
        for k in range(work.size):
            value[k] = max(value[k] + step * uncovered[k] * work[k], 0.0)
    return best


@compiled
def proven(
    value: Array,
    work: Array,
    upload: Array,
    order: Stations,
    flops: Array,
    sums: Array,
    slack: float,
    incumbent_s: float,
    precision: float,
) -> float:
    """The longest delay [s], up to the relative `precision`, that these multipliers prove no assignment to have."""
    uncovered = np.empty(work.size)
    total = value.sum()
    low_s, high_s, z_s = 0.0, incumbent_s, incumbent_s
    for _ in range(100):
        surplus, slope = _surplus(z_s, value, work, upload, order, flops, sums, slack, uncovered)
        if surplus > 1e-9 * total:  # more than rounding errors can be
            low_s = max(low_s, z_s)
        else:
            high_s = min(high_s, z_s)
        if high_s - low_s <= precision * high_s:
            break
        z_s = z_s + surplus / slope - 0.1 * precision * z_s if slope > 0 else 0.0
        if not low_s < z_s < high_s:
            z_s = 0.5 * (low_s + high_s)
    return low_s
