"""Class distributions: how far apart they are, and which one of those that can be made is closest, eq. (8)."""

from __future__ import annotations

import heapq

import numpy as np
from scipy.optimize import brentq

from dtsim.core.shapes import Counts, PerClass, Shares, Which


def smoothed(distribution: PerClass, smoothing: float) -> Shares:
    """`distribution` [C] mixed with `smoothing` of the uniform one, so that no class has probability zero."""
    total = distribution.sum()
    uniform = np.full(len(distribution), 1 / len(distribution))
    return (1 - smoothing) * (distribution / total if total > 0 else uniform) + smoothing * uniform


def kl_divergence_nat(p: Shares, q: Shares) -> float:
    """KL(p ‖ q) in nat of two distributions, q without zeros; [C] each. A class that p lacks adds nothing."""
    own = p > 0
    return float(np.sum(p[own] * np.log(p[own] / q[own])))


def within_budget(belief: Shares, available: Which, budget_nat: float) -> Shares:
    """The most even distribution P over the classes that can be made with KL(P ‖ Q) within the budget.

    P goes from Q, restricted to the available classes, towards their uniform distribution until KL(P ‖ Q) has risen
    to the budget. What the restriction alone costs cannot be avoided: where that is the budget or more, it is P. KL is
    convex along the line and least at its start, so it rises and the answer is unique.

    Args:
        belief: Q, positive; [C].
        available: which classes can be made, at least one; bool [C].
        budget_nat: KL that P may have, in nat.

    Returns:
        P; zero where nothing can be made; [C].
    """
    closest: np.ndarray = np.where(available, belief, 0.0) / belief[available].sum()
    uniform = available / available.sum()

    def excess(share: float) -> float:
        return kl_divergence_nat((1 - share) * closest + share * uniform, belief) - budget_nat

    if excess(0.0) >= 0:
        return closest
    share = 1.0 if excess(1.0) <= 0 else float(brentq(excess, 0.0, 1.0))
    mixed: np.ndarray = (1 - share) * closest + share * uniform
    return mixed


def closest_counts(target: Shares, count: int, available: Which) -> Counts:
    """The class counts whose distribution is closest to `target` in KL divergence, eq. (8).

    𝒫 is what can really be made: `count` samples in whole numbers of the classes in `available`. Σ n log(n / q) is
    separable and convex in the counts, so giving each sample in turn to the class where it costs least is exact. The
    integer optimum lies less than one sample a class from the continuous one, so all but the last C or so samples of a
    class need no search.

    Args:
        target: Q, positive where available; [C].
        count: samples to make, > 0.
        available: which classes can be made, at least one; bool [C].

    Returns:
        Counts that sum to `count`; int64 [C].
    """
    q = np.where(available, target, 0.0)
    counts: np.ndarray = np.maximum(np.floor(count * q / q.sum()).astype(np.int64) - len(q), 0)

    def cost(label: int) -> float:  # of one more sample: d/dn of n log(n / q), as a difference
        n = int(counts[label])
        return float((n + 1) * np.log((n + 1) / q[label]) - (n * np.log(n / q[label]) if n else 0.0))

    heap = [(cost(label), label) for label in np.flatnonzero(available).tolist()]
    heapq.heapify(heap)
    for _ in range(count - int(counts.sum())):
        _, label = heapq.heappop(heap)
        counts[label] += 1
        heapq.heappush(heap, (cost(label), label))
    return counts
