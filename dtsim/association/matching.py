"""Loops of the search for equal loads, compiled; `equal_loads` says what they do.

Imported late: importing numba takes a second.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtsim.association.moves import below, random_bits
from dtsim.association.problem import Array, Stations
from dtsim.core.compiled import compiled

_UNSEEN, _NOBODY = -2, -1
# A change that leaves n more MUs without a BS is accepted with probability exp(-n / _TEMPERATURE).
_TEMPERATURE = 0.3
# Probability that the BS to change is near an MU without a BS; else it is near an MU that such a BS serves.
_DIRECT = 0.7
# Only so many of an MU's BSs are drawn for a change.
_DRAWN = 4
_BITS = 1 << 30


class _Matching(NamedTuple):
    """Which BS serves which MU, and how many it may serve."""

    near: Stations  # [K, N], BSs that an MU may have
    upload: Array  # [M, K], s
    reach: Array  # [M], longest upload that a BS waits for, s
    room: Stations  # [M], most MUs that a BS may serve
    at: Stations  # [K], BS of each MU
    place: Stations  # [K], where the MU stands among its BS's members
    members: Stations  # [M, K], MUs of each BS, of which the first `served` are valid
    served: Stations  # [M], how many it serves
    via: Stations  # [M], scratch: the MU through which a path reaches the BS
    queue: Stations  # [M], scratch


@compiled
def _join(k: int, m: int, of: _Matching) -> None:
    of.at[k], of.place[k] = m, of.served[m]
    of.members[m, of.served[m]] = k
    of.served[m] += 1


@compiled
def _leave(k: int, of: _Matching) -> None:
    m = of.at[k]
    last = of.members[m, of.served[m] - 1]
    of.members[m, of.place[k]], of.place[last] = last, of.place[k]
    of.served[m] -= 1
    of.at[k] = _NOBODY


@compiled
def _match(k: int, of: _Matching) -> bool:
    """Give MU k a BS, by an augmenting path over BSs: others make room for it where they must. False if none does."""
    of.via[:] = _UNSEEN
    head, tail, goal = 0, 0, _NOBODY
    user, slot, here = k, 0, _NOBODY
    while goal == _NOBODY:
        for b in of.near[user]:
            if of.via[b] == _UNSEEN and of.upload[b, user] <= of.reach[b]:
                of.via[b] = user
                if of.served[b] < of.room[b]:
                    goal = b
                    break
                of.queue[tail] = b
                tail += 1
        while goal == _NOBODY and (here == _NOBODY or slot >= of.served[here]):
            if head == tail:
                return False
            here, slot = of.queue[head], 0
            head += 1
        if goal == _NOBODY:
            user = of.members[here, slot]
            slot += 1
    while goal != _NOBODY:
        user = of.via[goal]
        before = of.at[user]
        if before != _NOBODY:
            _leave(user, of)
        _join(user, goal, of)
        goal = before
    return True


@compiled
def _rematch(of: _Matching) -> int:
    """Give BSs to as many MUs without one as can be; how many are left."""
    left = 0
    for k in range(of.at.size):
        if of.at[k] == _NOBODY and not _match(k, of):
            left += 1
    return left


@compiled
def _drawn(k: int, of: _Matching, state: NDArray[np.uint64]) -> int:
    """One of the BSs nearest to MU k."""
    m: int = of.near[k, below(random_bits(state), min(_DRAWN, of.near.shape[1]))]
    return m


@compiled
def _give_room(m: int, room: int, z_s: float, each_s: Array, of: _Matching, state: NDArray[np.uint64]) -> None:
    """Let BS m serve `room` MUs within `z_s`; those that it no longer reaches, or has no room for, lose it."""
    of.room[m] = room
    of.reach[m] = z_s - room * each_s[m]
    i = 0
    while i < of.served[m]:
        if of.upload[m, of.members[m, i]] > of.reach[m]:
            _leave(of.members[m, i], of)
        else:
            i += 1
    while of.served[m] > room:
        _leave(of.members[m, below(random_bits(state), of.served[m])], of)


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
    room = np.zeros(stations, np.int64)
    for k in range(users):
        room[start[k]] += 1
    of = _Matching(
        near, upload, z_s - room * each_s, room, np.full(users, _NOBODY), np.zeros(users, np.int64),
        np.zeros((stations, users), np.int64), np.zeros(stations, np.int64),
        np.zeros(stations, np.int64), np.zeros(stations, np.int64),
    )  # fmt: skip
    for k in range(users):
        if upload[start[k], k] <= of.reach[start[k]]:
            _join(k, start[k], of)
    left = _rematch(of)
    unmatched = np.zeros(users, np.int64)
    at, place, count, members = of.at.copy(), of.place.copy(), of.served.copy(), of.members.copy()
    for _ in range(rounds):
        if left == 0:
            break
        free = 0
        for k in range(users):
            if of.at[k] == _NOBODY:
                unmatched[free] = k
                free += 1
        m = _drawn(unmatched[below(random_bits(state), free)], of, state)
        if of.served[m] > 0 and below(random_bits(state), _BITS) >= _DIRECT * _BITS:
            m = _drawn(of.members[m, below(random_bits(state), of.served[m])], of, state)
        change = 1 if below(random_bits(state), 2) else -1
        if room[m] + change < 0:
            continue
        at[:], place[:], count[:] = of.at, of.place, of.served
        for b in range(stations):
            members[b, : count[b]] = of.members[b, : count[b]]
        _give_room(m, room[m] + change, z_s, each_s, of, state)
        now = _rematch(of)
        chance = below(random_bits(state), _BITS) / _BITS
        if now <= left or chance < math.exp((left - now) / _TEMPERATURE):
            left = now
            continue
        of.at[:], of.place[:], of.served[:] = at, place, count
        for b in range(stations):
            of.members[b, : count[b]] = members[b, : count[b]]
        _give_room(m, room[m] - change, z_s, each_s, of, state)  # as before: nobody loses it
    return left, of.at
