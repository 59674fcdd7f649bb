"""Uniform random numbers of many streams at once, equal to what NumPy draws from each stream alone.

`numpy.random.default_rng(SeedSequence(seed, spawn_key=(*key, k))).random(n)` costs far more to set up than to draw from
where n is small. Here the streams of all k are computed as arrays. The algorithms are those of NumPy's SeedSequence
(after M. E. O'Neill's seed_seq, 32-bit words) and PCG64 (O'Neill 2014: a 128-bit linear congruential generator with
output XSL-RR); a property test holds the results to NumPy's own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_POOL_WORDS = 4
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_WORD, _LONG = 2**32, 2**64
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# Numbers that are computed at once, for they take a hundred bytes each meanwhile.
_AT_ONCE = 1 << 18


class _Wide(NamedTuple):
    """128-bit integers as two arrays of uint64, modulo 2^128."""

    high: np.ndarray
    low: np.ndarray

    @classmethod
    def of(cls, numbers: list[int]) -> _Wide:
        return cls(
            np.array([number // _LONG % _LONG for number in numbers], dtype=np.uint64),
            np.array([number % _LONG for number in numbers], dtype=np.uint64),
        )

    def at(self, index: np.ndarray) -> _Wide:
        return _Wide(self.high[index], self.low[index])

    def plus(self, other: _Wide) -> _Wide:
        low = self.low + other.low
        return _Wide(self.high + other.high + (low < self.low), low)

    def times(self, other: _Wide) -> _Wide:
        a, b = self.low >> _HALF, self.low & _LOW
        c, d = other.low >> _HALF, other.low & _LOW
        least = b * d
        middle = a * d + (least >> _HALF)
        carried = (middle & _LOW) + b * c
        high = a * c + (middle >> _HALF) + (carried >> _HALF)
        return _Wide(high + self.low * other.high + self.high * other.low, self.low * other.low)


def uniforms(seed: int, key: tuple[int, ...], counts: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1): `counts[k]` of stream (`seed`, spawn key (*`key`, k)) for every k, one stream after another.

    Args:
        seed: any integer >= 0.
        key: the start of the spawn keys, at least one word below 2^32.
        counts: how many numbers each stream gives; int64 [K].

    Returns:
        float64 [sum of `counts`].
    """
    first = np.cumsum(counts) - counts
    groups = np.split(np.arange(len(counts), dtype=np.uint32), np.flatnonzero(np.diff(first // _AT_ONCE)) + 1)
    return np.concatenate([_of_streams(seed, key, streams, counts[streams]) for streams in groups])


def _of_streams(seed: int, key: tuple[int, ...], streams: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers of some `streams` [n], one stream after another."""
    first = np.cumsum(counts) - counts
    stream = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(stream)) - first[stream]
    start, increment = _started(*_seeds(seed, key, streams))
    powers, sums = _jumps(1 << int(counts.max(initial=0)).bit_length())
    state = start.at(stream).times(powers.at(step)).plus(increment.at(stream).times(sums.at(step)))
    mixed, turn = state.high ^ state.low, state.high >> np.uint64(58)
    turned = (mixed >> turn) | (mixed << (np.uint64(64) - turn & np.uint64(63)))
    numbers: np.ndarray = (turned >> np.uint64(11)) * 2.0**-53
    return numbers


def _seeds(seed: int, key: tuple[int, ...], streams: np.ndarray) -> tuple[_Wide, _Wide]:
    """What SeedSequence gives PCG64: its initial state and its sequence number, of each stream."""
    prefix = np.random.SeedSequence(seed, spawn_key=key)
    words = max(_POOL_WORDS, (seed.bit_length() + 31) // 32) + len(key)
    hashed = _POOL_WORDS * _POOL_WORDS + _POOL_WORDS * (words - _POOL_WORDS)  # hashes that filled the prefix's pool
    constant = _INIT_A * pow(_MULT_A, hashed, _WORD) % _WORD
    pool = []
    for word in np.split(prefix.pool, _POOL_WORDS):
        hashing = streams ^ np.uint32(constant)
        constant = constant * _MULT_A % _WORD
        pool.append(_folded(_MIX_L * word - _MIX_R * _folded(hashing * np.uint32(constant))))
    constant = _INIT_B
    out = []
    for index in range(2 * _POOL_WORDS):
        hashing = pool[index % _POOL_WORDS] ^ np.uint32(constant)
        constant = constant * _MULT_B % _WORD
        out.append(_folded(hashing * np.uint32(constant)).astype(np.uint64))
    longs = [low | (high << _HALF) for low, high in zip(out[::2], out[1::2], strict=True)]
    return _Wide(longs[0], longs[1]), _Wide(longs[2], longs[3])


def _folded(word: np.ndarray) -> np.ndarray:
    folded: np.ndarray = word ^ (word >> np.uint32(16))
    return folded


def _started(initial: _Wide, sequence: _Wide) -> tuple[_Wide, _Wide]:
    """PCG64's state after its first draw would have advanced it, and the increment of each stream."""
    one, multiplier = _Wide.of([1]), _Wide.of([_MULTIPLIER])
    increment = _Wide((sequence.high << np.uint64(1)) | (sequence.low >> np.uint64(63)), sequence.low << np.uint64(1))
    increment = increment.plus(one)
    seeded = increment.plus(initial).times(multiplier).plus(increment)
    return seeded.times(multiplier).plus(increment), increment


@lru_cache(maxsize=8)
def _jumps(steps: int) -> tuple[_Wide, _Wide]:
    """a^i and a^0 + … + a^(i-1) for i < `steps`, where a is PCG64's multiplier: i steps in one."""
    powers, sums = [1], [0]
    for _ in range(steps - 1):
        sums.append((sums[-1] + powers[-1]) % _LONG**2)
        powers.append(powers[-1] * _MULTIPLIER % _LONG**2)
    return _Wide.of(powers), _Wide.of(sums)
