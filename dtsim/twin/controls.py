"""Controls that bound the value of generated data: true samples above, pure noise below."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from dtsim.core.parts import part
from dtsim.twin.distribution import closest_counts
from dtsim.twin.generator import ClassConditional, Generated, Generation, Generator, Truth
from dtsim.twin.store import Store


@part
class Oracle(Generation):
    """Fresh real samples of the region's true distribution, which a real twin cannot have."""

    def build(self, truth: Truth) -> Generator:
        """The generator of one run."""
        return _Oracle(self, truth)


class _Oracle(ClassConditional):
    def __init__(self, keys: Generation, truth: Truth) -> None:
        super().__init__(keys)
        self.truth = truth

    def generate(
        self, *, belief: np.ndarray, count: int, region: int, store: Store, rng: np.random.Generator
    ) -> Generated | None:
        """Make `count` samples of the true distribution, whatever `belief` is."""
        true = self.truth.class_distributions[region]
        if count <= 0:
            return None
        return self.make(region, closest_counts(true, count, true > 0), store, rng)

    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        labels = np.repeat(np.arange(len(counts)), counts)
        return Generated(self.truth.fresh(region, labels, rng), 0.0)


@part
class Noise(Generation):
    """Images of uniform pixel noise, with labels from the belief."""

    trainable: ClassVar[tuple[str, ...]] = ("all",)

    def build(self, truth: Truth) -> Generator:
        """The generator of one run."""
        return _Noise(self, truth)


class _Noise(ClassConditional):
    def __init__(self, keys: Generation, truth: Truth) -> None:
        super().__init__(keys)
        self.like = truth.fresh(0, np.empty(0, dtype=np.int64), np.random.default_rng(0))

    def available(self, region: int, store: Store) -> np.ndarray:
        return np.ones(store.classes, dtype=bool)

    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        shape = (len(labels), *self.like.images.shape[1:])
        pixels = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
        device = self.like.images.device
        return Generated(type(self.like)(pixels.to(device), labels.to(device)), 0.0)
