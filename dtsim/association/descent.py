"""The local search of `greedy.improve` as compiled loops: the same changes in the same order, for large cells.

What the best change between two BSs is depends on their MUs alone, so it is kept until one of the two changes. Imported
late: importing numba takes a second.
"""

from __future__ import annotations

import numpy as np

from dtsim.association.problem import RELATIVE_TOLERANCE, Array, Stations
from dtsim.core.compiled import compiled

# Rounding errors of a bound on a pair's finishing times.
_MARGIN = 1 - 1e-12


@compiled
def _refresh(
    m: int,
    members: Stations,
    count: Stations,
    work: Array,
    upload: Array,
    flops: Array,
    work_s: Array,
    longest: Stations,
    first: Array,
    second: Array,
) -> None:
    """What BS m has to do, and its longest and second longest upload; summed in the order of MUs, as NumPy does."""
    total = 0.0
    first[m], second[m], longest[m] = 0.0, 0.0, -1
    for i in range(count[m]):
        k = members[m, i]
        total += work[k]
        if upload[m, k] >= first[m]:  # the last of equal ones
            if longest[m] >= 0:
                second[m] = first[m]
            first[m], longest[m] = upload[m, k], k
        elif upload[m, k] > second[m]:
            second[m] = upload[m, k]
    work_s[m] = total / flops[m]


@compiled
def _best_between(
    a: int,
    b: int,
    below_s: float,
    members: Stations,
    heavier: Stations,
    count: Stations,
    work: Array,
    flops: Array,
    upload: Array,
    load: Array,
    work_s: Array,
    longest: Stations,
    first: Array,
    second: Array,
) -> tuple[float, int, float, int, int]:
    """The best move from a to b: finishing time, MU; and the best swap: finishing time, MU of a, MU of b.

    Only what ends before `below_s` counts. That leaves a range of works for the partner of a swap, and `heavier` holds
    the MUs of each BS in the order of their work.
    """
    move_s, mover = below_s, -1
    swap_s, one, other = below_s, -1, -1
    slack_s = 1e-9 * below_s  # for rounding errors
    for i in range(count[a]):
        k = members[a, i]
        without_k = second[a] if longest[a] == k else first[a]
        rest_s = work_s[a] - load[a, k]
        left_s = without_k + work_s[a] - load[a, k]  # in this order, so that it is rounded as in NumPy
        if left_s >= below_s + slack_s:
            continue
        later_s = max(left_s, max(first[b], upload[b, k]) + work_s[b] + load[b, k])
        if later_s < move_s:
            move_s, mover = later_s, k
        most = (swap_s - left_s + slack_s) * flops[a]
        least = (work_s[b] + load[b, k] + max(second[b], upload[b, k]) - swap_s - slack_s) * flops[b]
        if least > most:
            continue
        low, high = 0, count[b]
        while low < high:
            middle = (low + high) // 2
            if work[heavier[b, middle]] < least:
                low = middle + 1
            else:
                high = middle
        for j in range(low, count[b]):
            q = heavier[b, j]
            if work[q] > most:
                break
            without_q = second[b] if longest[b] == q else first[b]
            later_s = max(
                max(without_k, upload[a, q]) + rest_s + load[a, q],
                max(without_q, upload[b, k]) + (work_s[b] - load[b, q]) + load[b, k],
            )
            if later_s < swap_s or (later_s == swap_s and one == k and q < other):
                swap_s, one, other = later_s, k, q
    return move_s if mover >= 0 else np.inf, mover, swap_s if one >= 0 else np.inf, one, other


@compiled
def _take(m: int, k: int, members: Stations, count: int) -> None:
    """Remove MU k from the `count` MUs of BS m, which keep their order."""
    i = 0
    while members[m, i] != k:
        i += 1
    for j in range(i, count - 1):
        members[m, j] = members[m, j + 1]


@compiled
def _give(m: int, k: int, members: Stations, count: int, rank: Stations) -> None:
    """Add MU k to the `count` MUs of BS m, which are in the order of `rank`."""
    i = count
    while i > 0 and rank[members[m, i - 1]] > rank[k]:
        members[m, i] = members[m, i - 1]
        i -= 1
    members[m, i] = k


@compiled
def descend(work: Array, upload: Array, load: Array, flops: Array, station: Stations) -> Stations:
    """[K] `station` after moves and swaps, each of which makes the later of its two BSs finish earlier.

    Args:
        work: [K] work of each MU [FLOP].
        upload: [M, K] upload times [s].
        load: [M, K] compute times [s].
        flops: [M] compute of each BS [FLOP/s].
        station: [K] where to start.
    """
    stations, users = upload.shape
    station = station.copy()
    members, heavier = np.empty((stations, users), np.int64), np.empty((stations, users), np.int64)
    count = np.zeros(stations, np.int64)
    itself = np.arange(users)
    by_work = np.argsort(work, kind="mergesort")
    rank = np.empty(users, np.int64)
    rank[by_work] = itself
    work_s, first, second = np.empty(stations), np.empty(stations), np.empty(stations)
    longest = np.empty(stations, np.int64)
    for k in range(users):
        members[station[k], count[station[k]]] = k
        count[station[k]] += 1
    count[:] = 0
    for k in by_work:
        heavier[station[k], count[station[k]]] = k
        count[station[k]] += 1
    for m in range(stations):
        _refresh(m, members, count, work, upload, flops, work_s, longest, first, second)
    # The best change of each pair, and at which versions of the two BSs it was found.
    version = np.zeros(stations, np.int64)
    found_at = np.full((stations, stations, 2), -1, np.int64)
    times = np.empty((stations, stations, 2))
    whom = np.empty((stations, stations, 3), np.int64)
    finish = first + work_s
    while True:
        changed = False
        for a in np.argsort(-finish, kind="mergesort"):
            below = finish[a] * (1 - RELATIVE_TOLERANCE)
            move_s, mover, target = np.inf, -1, -1
            swap_s, one, other, partner = np.inf, -1, -1, -1
            for b in range(stations):
                if b == a:
                    continue
                # Together they keep their work, and each of them waits for its second longest upload or longer.
                least = (flops[a] * (work_s[a] + second[a]) + flops[b] * (work_s[b] + second[b])) / (
                    flops[a] + flops[b]
                )
                if least * _MARGIN >= below or least * _MARGIN > min(move_s, swap_s):
                    continue
                if found_at[a, b, 0] != version[a] or found_at[a, b, 1] != version[b]:
                    t, k, s, i, j = _best_between(
                        a, b, below, members, heavier, count, work, flops, upload, load, work_s, longest, first, second
                    )
                    times[a, b, 0], times[a, b, 1] = t, s
                    whom[a, b, 0], whom[a, b, 1], whom[a, b, 2] = k, i, j
                    found_at[a, b, 0], found_at[a, b, 1] = version[a], version[b]
                # Of equal ones the MU with the lower index, then the BS or partner with the lower index.
                if times[a, b, 0] < move_s or (times[a, b, 0] == move_s and whom[a, b, 0] < mover):
                    move_s, mover, target = times[a, b, 0], whom[a, b, 0], b
                if times[a, b, 1] < swap_s or (
                    times[a, b, 1] == swap_s
                    and (whom[a, b, 1] < one or (whom[a, b, 1] == one and whom[a, b, 2] < other))
                ):
                    swap_s, one, other, partner = times[a, b, 1], whom[a, b, 1], whom[a, b, 2], b
            if min(move_s, swap_s) >= below:
                continue
            if move_s <= swap_s:
                k, b = mover, target
            else:
                k, b = one, partner
                for order, place in ((members, itself), (heavier, rank)):
                    _take(b, other, order, count[b])
                    _give(a, other, order, count[a], place)
                count[b] -= 1
                count[a] += 1
                station[other] = a
            for order, place in ((members, itself), (heavier, rank)):
                _take(a, k, order, count[a])
                _give(b, k, order, count[b], place)
            count[a] -= 1
            count[b] += 1
            station[k] = b
            for m in (a, b):
                version[m] += 1
                _refresh(m, members, count, work, upload, flops, work_s, longest, first, second)
                finish[m] = first[m] + work_s[m]
            changed = True
            break
        if not changed:
            return station
