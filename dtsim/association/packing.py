"""What a base station can carry when loads come in few sizes, which the linear relaxation does not see."""

from __future__ import annotations

import numpy as np

from dtsim.association.problem import Array

# More different sums than this lie so close together that they cut nothing off.
MOST_SUMS = 5_000
# Sums are exact in whole numbers of this fraction of the total.
RESOLUTION = 2.0**40


def subset_sums(work: Array) -> Array | None:
    """Ascending sums of all subsets of `work` [K] as shares of its total, rounded up; None where they are too many.

    Equal inference loads, and equal retraining loads beside them, give few; loads that all differ give 2^K.
    """
    total = float(work.sum())
    if total == 0:
        return None
    sums = np.zeros(1, dtype=np.int64)
    for item in np.floor(work / total * RESOLUTION).astype(np.int64):
        sums = np.unique(np.concatenate([sums, sums + item]))
        if sums.size > MOST_SUMS:
            return None
    return (sums + work.size) / RESOLUTION


def carried(sums: Array, room: Array) -> Array:
    """The largest share of the work that fits into `room` (any shape, a share of the work itself); 0 where none does.

    Both are rounded so that the answer is never below the truth.
    """
    # A sum was rounded up by at most K units, which is the sum of no loads; twice that covers the floats too.
    slack = 2 * sums[0]
    index = np.searchsorted(sums, room + slack, side="right") - 1
    return np.where(index >= 0, sums[np.maximum(index, 0)], 0.0)
