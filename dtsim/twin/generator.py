"""The data that the twin generates: their amount, eq. (9), their classes, eq. (8), and the samples."""

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
    """Generated samples and their cost."""

    samples: Labelled
    flop: float
    """Work of fitting and of sampling, in FLOP as counted by torch."""


class Generator(Protocol):
    """Generates training data from the twin's store, for one run."""

    @property
    def fills(self) -> bool:
        """Whether real and generated samples together are `wanted` at most, so that real ones may be left out."""

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """Number of samples to generate, eq. (9).

        Args:
            real: number of available real samples, n_real.
            wanted: target size of an update's training set (`retraining.samples`).
            divergence_nat: KL between the model's last training distribution and the twin's current belief.
        """

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, rng: np.random.Generator
    ) -> Generated | None:
        """Generate `count` samples for an MU in `region` with the believed class distribution `belief` [C] > 0.

        None if no class is available.
        """


class Truth(Protocol):
    """The true state of the world; only controls use it."""

    @property
    def class_distributions(self) -> np.ndarray:
        """The probability of each class in each region; [R, C]."""

    def fresh(self, region: int, labels: np.ndarray, rng: np.random.Generator) -> Labelled:
        """Images of `labels` [n] that MUs could upload, as transformed in `region`, whether uploaded or not."""


class GeneratorPart(Protocol):
    """The interface of a class in conf/generator."""

    def build(self, truth: Truth) -> Generator:
        """The generator of one run, not fitted yet."""


@part
class Generation:
    """The keys of eqs. (8) and (9), which all generators share. A user-defined generator adds `build`."""

    trainable: ClassVar[tuple[str, ...]] = ("all", "head")
    """Values of `retraining.trainable` that its samples support: images (all) or feature vectors (head)."""

    amount: Literal["fill", "kl"] = "fill"
    """`fill`: ρ_k fills retraining.samples, and real samples beyond them are left out; `kl`: ρ_k rises with the KL
    divergence, whatever the size."""
    min_ratio: float = Field(default=1.0, ge=0, le=1000)
    """ρ_k at no divergence (amount=kl)."""
    max_ratio: float = Field(default=5.0, ge=0, le=1000)
    """ρ_k at large divergence (amount=kl)."""
    kl_scale_nat: float = Field(default=0.25, gt=0, le=1000)
    """Divergence where ρ_k has gone 63 % of the way from min_ratio to max_ratio [nat] (amount=kl)."""
    kl_budget_nat: float = Field(default=0.0, ge=0, le=1000)
    """KL(P ‖ Q) spent on evening out the classes [nat]; 0: P is the closest to Q."""

    def __post_init__(self) -> None:
        """Check keys that depend on each other."""
        if self.max_ratio < self.min_ratio:
            raise ValueError(f"max_ratio={self.max_ratio}: must be >= min_ratio={self.min_ratio}")

    @property
    def fills(self) -> bool:
        """Whether `amount` is `fill`."""
        return self.amount == "fill"

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """n_DT = ρ_k n_real, eq. (9)."""
        if self.amount == "fill":
            return max(0, wanted - real)
        rise = 1 - float(np.exp(-divergence_nat / self.kl_scale_nat))
        return round((self.min_ratio + (self.max_ratio - self.min_ratio) * rise) * real)

    def class_counts(self, belief: np.ndarray, count: int, available: np.ndarray) -> np.ndarray:
        """Number of samples of each class, eq. (8); int64 [C]."""
        target = within_budget(belief, available, self.kl_budget_nat) if self.kl_budget_nat else belief
        return closest_counts(target, count, available)


class ClassConditional(ABC):
    """A generator that makes a given number of samples of each available class."""

    def __init__(self, keys: Generation) -> None:
        self.keys = keys

    @property
    def fills(self) -> bool:
        """Whether real samples beyond `wanted` are left out."""
        return self.keys.fills

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """n_DT, eq. (9)."""
        return self.keys.count(real=real, wanted=wanted, divergence_nat=divergence_nat)

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, rng: np.random.Generator
    ) -> Generated | None:
        """Make `count` samples with the class counts of eq. (8)."""
        available = self.available(region, store)
        if count <= 0 or not available.any():
            return None
        return self.make(region, self.keys.class_counts(belief, count, available), store, rng)

    def available(self, region: int, store: Store) -> np.ndarray:
        """Classes that can be generated for `region`: those stored from it; bool [C]."""
        return store.stored(region) > 0

    @abstractmethod
    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        """Make `counts` [C] samples of each class; counts of unavailable classes are 0."""


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
    """No generated data: the twin only stores and predicts."""

    def build(self, truth: Truth) -> Generator:
        """The generator itself, since it has no state."""
        return self

    @property
    def fills(self) -> bool:
        """No: without generated data an update trains on all real samples."""
        return False

    def count(self, *, real: int, wanted: int, divergence_nat: float) -> int:
        """Always 0."""
        return 0

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, rng: np.random.Generator
    ) -> Generated | None:
        """Never anything."""
        return None
