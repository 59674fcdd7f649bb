"""Simulated annealing on P2 as a compiled loop: random moves and swaps of MUs, with finishing times kept up to date.

The energy of an assignment is Σ_m exp(P (T_m / z - 1)), where T_m is the finishing time of base station (BS) m and z is
the shortest delay found so far. It tells apart assignments of the same delay by how late the other BSs are; the larger
P, the more the last BS alone counts. Imported late: importing numba takes a second.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dtsim.association.problem import Array, Stations
from dtsim.core.compiled import compiled

# In so many of 32 moves, the MU is one that its BS waits for: nothing but its leaving shortens the wait.
_CRITICAL = np.uint64(8)
# Sharpness P and temperature follow their schedules in steps of this many moves.
_STEP = 1024
# No exponent of an energy is larger: exp would overflow.
_MOST = 50.0
# A rise in energy of this many temperatures is refused without drawing a number.
_HOPELESS = 20.0


@compiled
def random_bits(state: NDArray[np.uint64]) -> np.uint64:
    """64 random bits: xorshift64*."""
    x: np.uint64 = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return x * np.uint64(2685821657736338717)


@compiled
def below(bits: np.uint64, n: int) -> np.int64:
    """A number in [0, n) from the 32 lowest of these bits."""
    return np.int64(((bits & np.uint64(0xFFFFFFFF)) * np.uint64(n)) >> np.uint64(32))


@compiled
def _energy(finish_s: float, sharpness: float, best_s: float) -> float:
    return math.exp(min(sharpness * (finish_s / best_s - 1.0), _MOST))


@compiled
def _waits(
    m: int, members: Stations, count: Stations, upload: Array, longest: Stations, first: Array, second: Array
) -> None:
    """Find the longest and the second longest upload of BS m, and whose the longest is."""
    who, most, next_s = -1, 0.0, 0.0
    for i in range(count[m]):
        k = members[m, i]
        t = upload[m, k]
        if who < 0 or t > most:
            if who >= 0:
                next_s = most
            who, most = k, t
        elif t > next_s:
            next_s = t
    longest[m], first[m], second[m] = who, most, next_s


@compiled
def anneal(
    work: Array,
    upload: Array,
    flops: Array,
    links: Stations,
    station: Stations,
    best: Stations,
    state: NDArray[np.uint64],
    moves: int,
    sharpness: tuple[float, float],
    temperature: tuple[float, float],
) -> tuple[float, Array]:
    """Try `moves` random moves and swaps; a tenth of a second for a million of them.

    Args:
        work: [K] work of each MU [FLOP].
        upload: [M, K] upload times [s].
        flops: [M] compute of each BS [FLOP/s].
        links: [L, 2] pairs of an MU and a BS that a change may connect, by MU; L >= 1.
        station: [K] where to start; changed to where the search ends.
        best: [K] an assignment; changed to the best one of the search if that has a shorter delay.
        state: [1] of the random numbers; changed.
        moves: how many changes are tried.
        sharpness: P of the energy, at the start and at the end; geometric in between.
        temperature: of the acceptance, at the start and at the end; geometric in between.

    Returns:
        The delay of `best` [s], and the finishing times [M] of `station` [s], both up to rounding errors.
    """
    stations, users = upload.shape
    members = np.empty((stations, users), np.int64)
    count, position = np.zeros(stations, np.int64), np.empty(users, np.int64)
    longest = np.empty(stations, np.int64)
    load, first, second = np.zeros(stations), np.empty(stations), np.empty(stations)
    finish, energy, theirs = np.empty(stations), np.empty(stations), np.zeros(stations)
    waited = np.zeros(stations)
    for k in range(users):
        m = station[k]
        position[k] = count[m]
        members[m, count[m]] = k
        count[m] += 1
        load[m] += work[k]
        theirs[best[k]] += work[k]
        waited[best[k]] = max(waited[best[k]], upload[best[k], k])
    best_s = 0.0
    for m in range(stations):
        _waits(m, members, count, upload, longest, first, second)
        finish[m] = first[m] + load[m] / flops[m]
        best_s = max(best_s, waited[m] + theirs[m] / flops[m])
    begin = np.zeros(users + 1, np.int64)
    for link in range(links.shape[0]):
        begin[links[link, 0] + 1] += 1
    for k in range(users):
        begin[k + 1] += begin[k]
    p, t = sharpness[0], temperature[0]
    sharper = (sharpness[1] / sharpness[0]) ** (_STEP / moves)
    cooler = (temperature[1] / temperature[0]) ** (_STEP / moves)
    for m in range(stations):
        energy[m] = _energy(finish[m], p, best_s)
    for move in range(moves):
        if move % _STEP == 0 and move > 0:
            p *= sharper
            t *= cooler
            for m in range(stations):
                energy[m] = _energy(finish[m], p, best_s)
        bits = random_bits(state)
        chosen = below(bits >> np.uint64(32), links.shape[0])
        k, b = links[chosen, 0], links[chosen, 1]
        if (bits >> np.uint64(1)) & np.uint64(31) < _CRITICAL:
            awaited = longest[below(bits >> np.uint64(32), stations)]
            if awaited >= 0 and begin[awaited] < begin[awaited + 1]:
                k = awaited
                b = links[begin[k] + below(random_bits(state) >> np.uint64(32), begin[k + 1] - begin[k]), 1]
        a = station[k]
        if a == b:
            continue
        wait_a = second[a] if longest[a] == k else first[a]
        shifted = work[k]
        other = -1
        if bits & np.uint64(1) and count[b] > 0:  # a swap
            other = int(members[b, below(random_bits(state) >> np.uint64(32), count[b])])
            wait_a = max(wait_a, upload[a, other])
            wait_b = max(second[b] if longest[b] == other else first[b], upload[b, k])
            shifted -= work[other]
        else:
            wait_b = max(first[b], upload[b, k])
        finish_a = wait_a + (load[a] - shifted) / flops[a]
        finish_b = wait_b + (load[b] + shifted) / flops[b]
        energy_a, energy_b = _energy(finish_a, p, best_s), _energy(finish_b, p, best_s)
        rise = energy_a + energy_b - energy[a] - energy[b]
        if rise > 0:
            if rise > _HOPELESS * t:
                continue
            if (random_bits(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0) >= math.exp(-rise / t):
                continue
        i = position[k]
        if other >= 0:
            j = position[other]
            members[a, i], members[b, j] = other, k
            position[other], position[k] = i, j
            station[other] = a
        else:
            count[a] -= 1
            last = members[a, count[a]]
            members[a, i], position[last] = last, i
            members[b, count[b]], position[k] = k, count[b]
            count[b] += 1
        station[k] = b
        load[a] -= shifted
        load[b] += shifted
        _waits(a, members, count, upload, longest, first, second)
        _waits(b, members, count, upload, longest, first, second)
        finish[a], finish[b], energy[a], energy[b] = finish_a, finish_b, energy_a, energy_b
        if rise < 0 and finish_a < best_s and finish_b < best_s:
            latest = 0.0
            for m in range(stations):
                latest = max(latest, finish[m])
                if latest >= best_s:
                    break
            if latest < best_s:
                best_s = latest
                best[:] = station
                for m in range(stations):
                    energy[m] = _energy(finish[m], p, best_s)
    return best_s, finish
