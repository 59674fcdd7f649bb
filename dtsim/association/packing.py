"""The largest load that a base station can carry when loads have few sizes; the linear relaxation ignores this."""

from __future__ import annotations

import numpy as np

from dtsim.association.problem import Array

# With more sums than this, they are so close together that they tighten no bound.
MOST_SUMS = 5_000
# Sums are exact in integer multiples of this fraction of the total.
RESOLUTION = 2.0**40


def subset_sums(work: Array) -> Array | None:
    """Ascending sums of all subsets of `work` [K] as shares of its total, rounded up; None if there are too many.

    Equal inference loads, even with equal retraining loads added, give few sums; K different loads give 2^K.
    """
    total = float(work.sum())
    if total == 0:
        return None
    sums = np.zeros(1, dtype=np.int64)
    sizes, counts = np.unique(np.floor(work / total * RESOLUTION).astype(np.int64), return_counts=True)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        # 1, 2, 4, ... and what is left of the count: their subsets are all numbers up to it.
        step = 1
        while count > 0:
            step = min(step, count)
            sums = np.unique(np.concatenate([sums, sums + step * size]))
            if sums.size > MOST_SUMS:
                return None
            count -= step
            step *= 2
    return (sums + work.size) / RESOLUTION


def carried(sums: Array, room: Array) -> Array:
    """The largest share of the work that fits into `room` (any shape, itself a share of the work); 0 if none fits.

    Rounding errs upwards, so the result is never below the exact value.
    """
    # Each sum is at most K units too high; twice that margin also covers floating-point errors.
    slack = 2 * sums[0]
    index = np.searchsorted(sums, room + slack, side="right") - 1
    return np.where(index >= 0, sums[np.maximum(index, 0)], 0.0)
