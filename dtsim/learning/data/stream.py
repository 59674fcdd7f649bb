"""The images that users capture: which ones, drawn from their region's class distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtsim.learning.data.splits import ClassIndex


@dataclass(frozen=True)
class Capture:
    """The images of one user in one slot; those inferred and those uploaded have the same labels."""

    labels: np.ndarray
    """[n] int64."""
    test: np.ndarray
    """[n] int64: places in the test split, inferred and scored."""
    increment: np.ndarray
    """[n] int64: places in the increment split, uploaded for retraining."""


@dataclass(frozen=True)
class ImageStream:
    """Draws captures; what it draws depends on the rng, the region and the number of images alone."""

    distributions: np.ndarray
    """[R, C]: probability of each class in each region; a row sums to 1."""
    test: ClassIndex
    """Where the test split holds each class."""
    increment: ClassIndex
    """Where the increment split holds each class."""

    def draw(self, region: int, images: int, rng: np.random.Generator) -> Capture:
        """`images` images as they appear in `region`."""
        labels = rng.choice(self.distributions.shape[1], size=images, p=self.distributions[region])
        return Capture(
            labels=labels,
            test=self.test.draw(labels, rng),
            increment=self.increment.draw(labels, rng),
        )
