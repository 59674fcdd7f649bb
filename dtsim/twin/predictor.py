"""How the twin predicts frame accuracy, eq. (14), from what it has observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field

from dtsim.parts import part


@dataclass(frozen=True)
class Situation:
    """What a prediction is made from, for every MU; all int64 [K]."""

    region: np.ndarray
    """Where the MU is."""
    trained_region: np.ndarray
    """The region that its model was last trained in (the home region for the base model)."""
    age_frames: np.ndarray
    """Frames since its model was last updated."""


class Predictor(Protocol):
    """Learns frame accuracy from observations and predicts it, eq. (14)."""

    def predict(self, situation: Situation) -> np.ndarray:
        """Predicted frame accuracy of every MU; float64 [K]."""

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        """Learn that in `situation` each MU's model got `correct` of `images` right; int64 [K] each."""


Key = tuple[int | str | bool, ...]
Level = Callable[[int, int, int], Key]


class ShrunkenTable:
    """A table of accuracies at several levels of detail, each shrunk towards the coarser one.

    At a level with n images of which s were right, the estimate is (s + κ p) / (n + κ): the posterior mean of a
    binomial rate under a beta prior with mean p, the coarser level's estimate, and the weight of κ images. A cell that
    was never seen therefore answers what its coarser cell does, and at the coarsest what the base model scored.
    """

    def __init__(self, levels: Iterable[Level], shrinkage_images: float, base_accuracy: float) -> None:
        self.levels = list(levels)
        self.shrinkage_images = shrinkage_images
        self.base_accuracy = base_accuracy
        self.counts: dict[Key, np.ndarray] = {}  # [right, seen]

    def predict(self, situation: Situation) -> np.ndarray:
        """Predicted frame accuracy of every MU; float64 [K]."""
        return np.array([self._estimate(*cell) for cell in _cells(situation)])

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        """Count each MU's result in its cell at every level."""
        for cell, right, seen in zip(_cells(situation), correct, images, strict=True):
            for level in self.levels:
                self.counts.setdefault(level(*cell), np.zeros(2))[:] += (right, seen)

    def _estimate(self, region: int, trained_region: int, age: int) -> float:
        estimate = self.base_accuracy
        for level in self.levels:
            right, seen = self.counts.get(level(region, trained_region, age), (0.0, 0.0))
            estimate = (right + self.shrinkage_images * estimate) / (seen + self.shrinkage_images)
        return float(estimate)


def _cells(situation: Situation) -> list[tuple[int, int, int]]:
    return list(
        zip(
            situation.region.tolist(),
            situation.trained_region.tolist(),
            situation.age_frames.tolist(),
            strict=True,
        )
    )


@part
class BetaBinomial:
    """Region × region that the model was last trained in × age, with shrinkage."""

    shrinkage_images: float = Field(50.0, gt=0)
    """Weight of the coarser level, in images."""
    max_age_frames: int = Field(3, ge=0)
    """Ages above this share a cell, in frames."""

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that starts from `base_accuracy`, the base model's on held-out samples of its own classes."""
        oldest = self.max_age_frames
        return ShrunkenTable(
            [
                lambda region, trained, age: ("moved", region != trained),
                lambda region, trained, age: (region, trained),
                lambda region, trained, age: (region, trained, min(age, oldest)),
            ],
            self.shrinkage_images,
            base_accuracy,
        )


@part
class RegionAge:
    """Region × age, as eq. (14) reads."""

    shrinkage_images: float = Field(50.0, gt=0)
    """Weight of the coarser level, in images."""
    max_age_frames: int = Field(3, ge=0)
    """Ages above this share a cell, in frames."""

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that starts from `base_accuracy`, the base model's on held-out samples of its own classes."""
        oldest = self.max_age_frames
        return ShrunkenTable(
            [
                lambda region, trained, age: ("region", region),
                lambda region, trained, age: ("region and age", region, min(age, oldest)),
            ],
            self.shrinkage_images,
            base_accuracy,
        )
