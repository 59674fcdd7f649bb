"""Loops of the search for equal loads, compiled; `equal_loads` says what they do.

Imported late: importing numba takes a second.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dtsim.association.moves import below, random_bits
from dtsim.association.problem import Array, Stations
from dtsim.core.compiled import compiled

_UNSEEN, _NOBODY = -2, -1
# MUs that have no BS, in a chance of exp(-1) that so many more are accepted.
_TEMPERATURE = 0.3
# Of so many 32-bit numbers, the share for a BS of an unmatched MU; the others are of an MU that is served there.
_DIRECT = 0.7


@compiled
def _join(k: int, m: int, at: Stations, place: Stations, members: Stations, count: Stations) -> None:
    at[k], place[k] = m, count[m]
    members[m, count[m]] = k
    count[m] += 1


@compiled
def _leave(k: int, at: Stations, place: Stations, members: Stations, count: Stations) -> None:
    m = at[k]
    last = members[m, count[m] - 1]
    members[m, place[k]], place[last] = last, place[k]
    count[m] -= 1
    at[k] = _NOBODY


@compiled
def _match(
    k: int,
    near: Stations,
    upload: Array,
    reach: Array,
    room: Stations,
    at: Stations,
    place: Stations,
    members: Stations,
    count: Stations,
    via: Stations,
    queue: Stations,
) -> bool:
    """Give MU k a BS, by an augmenting path over BSs: others make room for it where they must. False if none does."""
    via[:] = _UNSEEN
    head, tail, goal = 0, 0, _NOBODY
    user, slot, here = k, 0, _NOBODY
    while goal == _NOBODY:
        for b in near[user]:
            if via[b] == _UNSEEN and upload[b, user] <= reach[b]:
                via[b] = user
                if count[b] < room[b]:
                    goal = b
                    break
                queue[tail] = b
                tail += 1
        while goal == _NOBODY and (here == _NOBODY or slot >= count[here]):
            if head == tail:
                return False
            here, slot = queue[head], 0
            head += 1
        if goal == _NOBODY:
            user = members[here, slot]
            slot += 1
    while goal != _NOBODY:
        user = via[goal]
        before = at[user]
        if before != _NOBODY:
            _leave(user, at, place, members, count)
        _join(user, goal, at, place, members, count)
        goal = before
    return True


@compiled
def _rematch(
    near: Stations,
    upload: Array,
    reach: Array,
    room: Stations,
    at: Stations,
    place: Stations,
    members: Stations,
    count: Stations,
    via: Stations,
    queue: Stations,
) -> int:
    """Give BSs to as many MUs without one as can be; how many are left."""
    left = 0
    for k in range(at.size):
        if at[k] == _NOBODY and not _match(k, near, upload, reach, room, at, place, members, count, via, queue):
            left += 1
    return left


@compiled
def within(
    z_s: float, each_s: Array, near: Stations, upload: Array, start: Stations, rounds: int, state: NDArray[np.uint64]
) -> tuple[int, Stations]:
    """Look for an assignment that takes `z_s` or less.

    Args:
        z_s: delay [s].
        each_s: [M] time that a BS computes for one MU [s].
        near: [K, N] the BSs that each MU may have.
        upload: [M, K] upload times [s].
        start: [K] an assignment; each BS begins with room for as many MUs as it has there.
        rounds: how many changes of one BS's room are tried.
        state: [1] state of the random bits.

    Returns:
        How many MUs are left without a BS, and the BS of each MU [K].
    """
    stations, users = upload.shape
    room, count = np.zeros(stations, np.int64), np.zeros(stations, np.int64)
    at, place = np.full(users, _NOBODY), np.zeros(users, np.int64)
    members = np.zeros((stations, users), np.int64)
    via, queue = np.zeros(stations, np.int64), np.zeros(stations, np.int64)
    for k in range(users):
        room[start[k]] += 1
    reach = z_s - room * each_s
    for k in range(users):
        m = start[k]
        if upload[m, k] <= reach[m]:
            _join(k, m, at, place, members, count)
    left = _rematch(near, upload, reach, room, at, place, members, count, via, queue)
    unmatched = np.zeros(users, np.int64)
    kept_at, kept_place, kept_count, kept_members = at.copy(), place.copy(), count.copy(), members.copy()
    for _ in range(rounds):
        if left == 0:
            break
        free = 0
        for k in range(users):
            if at[k] == _NOBODY:
                unmatched[free] = k
                free += 1
        k = unmatched[below(random_bits(state), free)]
        m = near[k, below(random_bits(state), min(4, near.shape[1]))]
        if count[m] > 0 and below(random_bits(state), 1 << 30) >= _DIRECT * (1 << 30):
            k = members[m, below(random_bits(state), count[m])]
            m = near[k, below(random_bits(state), min(4, near.shape[1]))]
        change = 1 if below(random_bits(state), 2) else -1
        if room[m] + change < 0:
            continue
        kept_at[:], kept_place[:], kept_count[:] = at, place, count
        for b in range(stations):
            kept_members[b, : count[b]] = members[b, : count[b]]
        room[m] += change
        reach[m] = z_s - room[m] * each_s[m]
        i = 0
        while i < count[m]:  # those that it no longer reaches
            if upload[m, members[m, i]] > reach[m]:
                _leave(members[m, i], at, place, members, count)
            else:
                i += 1
        while count[m] > room[m]:
            _leave(members[m, below(random_bits(state), count[m])], at, place, members, count)
        now = _rematch(near, upload, reach, room, at, place, members, count, via, queue)
        chance = below(random_bits(state), 1 << 30) / (1 << 30)
        if now <= left or chance < math.exp((left - now) / _TEMPERATURE):
            left = now
        else:
            room[m] -= change
            reach[m] = z_s - room[m] * each_s[m]
            at[:], place[:], count[:] = kept_at, kept_place, kept_count
            for b in range(stations):
                members[b, : count[b]] = kept_members[b, : count[b]]
    return left, at
