"""Class distributions: their divergence, and the closest distribution that can be generated, eq. (8)."""

from __future__ import annotations

import heapq

import numpy as np
from scipy.optimize import brentq

from dtsim.core.shapes import Counts, PerClass, Shares, Which


def smoothed(distribution: PerClass, smoothing: float) -> Shares:
    """`distribution` [C] mixed with the share `smoothing` of the uniform one, so that no probability is zero."""
    total = distribution.sum()
    uniform = np.full(len(distribution), 1 / len(distribution))
    return (1 - smoothing) * (distribution / total if total > 0 else uniform) + smoothing * uniform


def kl_divergence_nat(p: Shares, q: Shares) -> float:
    """KL(p ‖ q) in nat; q has no zeros; [C] each. Classes with p = 0 contribute 0."""
    own = p > 0
    return float(np.sum(p[own] * np.log(p[own] / q[own])))


def within_budget(belief: Shares, available: Which, budget_nat: float) -> Shares:
    """The most even distribution P, that of the largest entropy, over the available classes with KL(P ‖ Q) ≤ budget.

    The Lagrangian of max −Σ p log p subject to Σ p log(p / q) ≤ budget is stationary where log p = s log q + constant
    with 0 ≤ s ≤ 1. So P is Q to the power of s, normalized over the available classes: Q's restriction to them at
    s = 1, uniform at s = 0. KL rises as s falls. The divergence due to the restriction is unavoidable: if it is the
    budget or more, P is the restriction.

    Args:
        belief: Q, positive; [C].
        available: classes that can be generated, at least one; bool [C].
        budget_nat: largest KL of P, in nat.

    Returns:
        P, zero for unavailable classes; [C].
    """
    relative = belief / belief[available].max()  # powers of a tiny probability must not vanish together

    def evened(power: float) -> np.ndarray:
        raised = np.where(available, relative**power, 0.0)
        evened: np.ndarray = raised / raised.sum()
        return evened

    def excess(power: float) -> float:
        return kl_divergence_nat(evened(power), belief) - budget_nat

    if excess(1.0) >= 0:
        return evened(1.0)
    return evened(0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, 1.0)))


def closest_counts(target: Shares, count: int, available: Which) -> Counts:
    """The class counts whose distribution is closest to `target` in KL divergence, eq. (8).

    𝒫 is the executable set: `count` samples in whole numbers of the classes in `available`. Σ n log(n / q) is separable
    and convex in the counts, so a greedy choice of the cheapest class for each sample is exact. The integer optimum
    differs from the continuous one by less than one sample per class, so only the last samples, about C, are assigned
    one by one.

    Args:
        target: Q, positive where available; [C].
        count: number of samples, > 0.
        available: classes that can be generated, at least one; bool [C].

    Returns:
        Counts that sum to `count`; int64 [C].
    """
    q = np.where(available, target, 0.0)
    counts: np.ndarray = np.maximum(np.floor(count * q / q.sum()).astype(np.int64) - len(q), 0)

    def cost(label: int) -> float:  # of one more sample: the difference of n log(n / q)
        n = int(counts[label])
        return float((n + 1) * np.log((n + 1) / q[label]) - (n * np.log(n / q[label]) if n else 0.0))

    heap = [(cost(label), label) for label in np.flatnonzero(available).tolist()]
    heapq.heapify(heap)
    for _ in range(count - int(counts.sum())):
        _, label = heapq.heappop(heap)
        counts[label] += 1
        heapq.heappush(heap, (cost(label), label))
    return counts
