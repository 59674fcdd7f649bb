"""What data the twin generates: how much, eq. (9), of which classes, eq. (8), and the samples themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from dtsim.core.parts import part
from dtsim.learning.data.splits import Labelled
from dtsim.twin.distribution import closest_counts, within_budget
from dtsim.twin.store import Store


@dataclass(frozen=True)
class Generated:
    """Samples and what it took to make them."""

    samples: Labelled
    flop: float
    """Work of fitting and of sampling, in FLOP as counted by torch."""


class Generator(Protocol):
    """Generates training data from the twin's store, for one run."""

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """How many samples to generate, eq. (9).

        Args:
            real: real samples at hand, n_real.
            wanted: size that an update's training set should have (`retraining.samples`).
            divergence_nat: KL from what the model was last trained on to what the twin now sees.
        """

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, rng: np.random.Generator
    ) -> Generated | None:
        """Generate `count` samples for an MU in `region` whose class distribution is believed to be `belief` [C] > 0.

        None where there is nothing to generate from.
        """


class Truth(Protocol):
    """What is really out there. Only controls look at it."""

    @property
    def class_distributions(self) -> np.ndarray:
        """The probability of each class in each region; [R, C]."""

    def fresh(self, region: int, labels: np.ndarray, rng: np.random.Generator) -> Labelled:
        """Images of `labels` [n] that MUs could upload, as `region` shows them, whether uploaded or not."""


class GeneratorPart(Protocol):
    """What a generator's YAML file names."""

    def build(self, truth: Truth) -> Generator:
        """The generator of one run, with nothing fitted yet."""


@part
class Generation:
    """The keys of eqs. (8) and (9), which all generators share. A generator of one's own adds `build`."""

    trainable: ClassVar[tuple[str, ...]] = ("all", "head")
    """Values of `retraining.trainable` whose samples it can make: images, or feature vectors."""

    amount: Literal["fill", "kl"] = "fill"
    """`fill`: ρ_k fills retraining.samples; `kl`: ρ_k rises with the KL divergence."""
    min_ratio: float = Field(default=1.0, ge=0)
    """ρ_k at no divergence (amount=kl)."""
    max_ratio: float = Field(default=5.0, ge=0)
    """ρ_k at large divergence (amount=kl)."""
    kl_scale_nat: float = Field(default=0.25, gt=0)
    """Divergence where ρ_k has gone 63 % of the way from min_ratio to max_ratio [nat] (amount=kl)."""
    kl_budget_nat: float = Field(default=0.0, ge=0)
    """KL(P ‖ Q) spent on evening out the classes [nat]; 0: P is the closest to Q."""

    def __post_init__(self) -> None:
        """Check what involves two keys."""
        if self.max_ratio < self.min_ratio:
            raise ValueError(f"max_ratio={self.max_ratio}: must be >= min_ratio={self.min_ratio}")

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """n_DT = ρ_k n_real, eq. (9)."""
        if self.amount == "fill":
            return max(0, wanted - real)
        rise = 1 - float(np.exp(-divergence_nat / self.kl_scale_nat))
        return round((self.min_ratio + (self.max_ratio - self.min_ratio) * rise) * real)

    def class_counts(self, belief: np.ndarray, count: int, available: np.ndarray) -> np.ndarray:
        """Samples to make of each class, eq. (8); int64 [C]."""
        target = within_budget(belief, available, self.kl_budget_nat) if self.kl_budget_nat else belief
        return closest_counts(target, count, available)


class ClassConditional(ABC):
    """A generator that makes what it is told to of each class it can make."""

    def __init__(self, keys: Generation) -> None:
        self.keys = keys

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """n_DT, eq. (9)."""
        return self.keys.count(real=real, wanted=wanted, divergence_nat=divergence_nat)

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, rng: np.random.Generator
    ) -> Generated | None:
        """Make `count` samples in the counts that eq. (8) gives."""
        available = self.available(region, store)
        if count <= 0 or not available.any():
            return None
        return self.make(region, self.keys.class_counts(belief, count, available), store, rng)

    def available(self, region: int, store: Store) -> np.ndarray:
        """The classes that can be made for `region`: those stored of it; bool [C]."""
        return store.stored(region) > 0

    @abstractmethod
    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        """Make `counts` [C] samples of each class, none of one that is not available."""


@part
class Replay(Generation):
    """Class-conditional replay: stored samples of the same region, pooled over the MUs that uploaded them."""

    def build(self, truth: Truth) -> Generator:
        """The generator of one run."""
        return _Replay(self)


class _Replay(ClassConditional):
    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        return Generated(store.draw(region, counts, rng), 0.0)


@part
class NoGenerator:
    """No generated data: the twin only keeps and predicts."""

    def build(self, truth: Truth) -> Generator:
        """Itself: it keeps nothing."""
        return self

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """Always 0."""
        return 0

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, rng: np.random.Generator
    ) -> Generated | None:
        """Never anything."""
        return None
