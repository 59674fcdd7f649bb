"""What data the twin generates: its distribution, eq. (8), its amount, eq. (9), and the samples themselves."""

from __future__ import annotations

import heapq
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from dtsim.learning.splits import Labelled
from dtsim.parts import part
from dtsim.twin.store import Store


class Generator(Protocol):
    """Generates training data from the twin's store. A class of one's own needs these two methods."""

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """How many samples to generate, eq. (9).

        Args:
            real: real samples at hand, n_real.
            wanted: size that an update's training set should have (`retraining.samples`).
            divergence_nat: KL from what the model was last trained on to what the twin now sees.
        """

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, generator: np.random.Generator
    ) -> Labelled | None:
        """Generate `count` samples for an MU in `region` whose class distribution is believed to be `belief` [C] > 0.

        None where the store holds nothing to generate from.
        """


def smoothed(distribution: np.ndarray, smoothing: float) -> np.ndarray:
    """`distribution` [C] mixed with `smoothing` of the uniform one, so that no class has probability zero."""
    total = distribution.sum()
    uniform = np.full(len(distribution), 1 / len(distribution))
    return (1 - smoothing) * (distribution / total if total > 0 else uniform) + smoothing * uniform


def kl_divergence_nat(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p ‖ q) in nat of two distributions without zeros; [C] each."""
    return float(np.sum(p * np.log(p / q)))


def closest_counts(belief: np.ndarray, count: int, available: np.ndarray) -> np.ndarray:
    """The class counts whose distribution is closest to `belief` in KL divergence, eq. (8).

    𝒫 is what can really be made: `count` samples in whole numbers of the classes in `available`. Σ n log(n / q) is
    separable and convex in the counts, so giving each sample in turn to the class where it costs least is exact. The
    integer optimum lies less than one sample a class from the continuous one, so all but the last C or so samples of a
    class need no search.

    Args:
        belief: Q, positive; [C].
        count: samples to make, > 0.
        available: which classes can be made, at least one; bool [C].

    Returns:
        Counts that sum to `count`; int64 [C].
    """
    q = np.where(available, belief, 0.0)
    counts = np.maximum(np.floor(count * q / q.sum()).astype(np.int64) - len(q), 0)

    def cost(label: int) -> float:  # of one more sample: d/dn of n log(n / q), as a difference
        n = counts[label]
        return (n + 1) * np.log((n + 1) / q[label]) - (n * np.log(n / q[label]) if n else 0.0)

    heap = [(cost(label), label) for label in np.flatnonzero(available).tolist()]
    heapq.heapify(heap)
    for _ in range(count - int(counts.sum())):
        _, label = heapq.heappop(heap)
        counts[label] += 1
        heapq.heappush(heap, (cost(label), label))
    return counts


@part
class Replay:
    """Class-conditional replay: stored samples of the same region, pooled over the MUs that uploaded them."""

    amount: Literal["fill", "kl"] = "fill"
    """How ρ_k is chosen: fill the update's set, or rise with the divergence."""
    min_ratio: float = Field(1.0, ge=0)
    """ρ_k at no divergence, for amount=kl."""
    max_ratio: float = Field(5.0, ge=0)
    """ρ_k at large divergence, for amount=kl."""
    kl_scale_nat: float = Field(0.25, gt=0)
    """Divergence at which ρ_k has gone 63 % of the way from min_ratio to max_ratio, in nat."""

    def __post_init__(self) -> None:
        """Check what involves two keys."""
        if self.max_ratio < self.min_ratio:
            raise ValueError(f"max_ratio={self.max_ratio}: must be >= min_ratio={self.min_ratio}")

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """n_DT = ρ_k n_real, eq. (9)."""
        if self.amount == "fill":
            return max(0, wanted - real)
        rise = 1 - np.exp(-divergence_nat / self.kl_scale_nat)
        return round((self.min_ratio + (self.max_ratio - self.min_ratio) * rise) * real)

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, generator: np.random.Generator
    ) -> Labelled | None:
        """Draw from the store of `region` in the counts closest to `belief`, eq. (8)."""
        available = store.stored(region) > 0
        if count <= 0 or not available.any():
            return None
        return store.draw(region, closest_counts(belief, count, available), generator)


@part
class NoGenerator:
    """No generated data: the twin only keeps and predicts."""

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """Always 0."""
        return 0

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, generator: np.random.Generator
    ) -> Labelled | None:
        """Never anything."""
        return None
