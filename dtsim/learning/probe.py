"""Held-out images of every region, for measuring the accuracy of models."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from dtsim.learning.data.splits import Labelled
from dtsim.learning.training import accuracy


class Probe:
    """One set of images for each region, the same for every MU and scheme; they are never used for training."""

    def __init__(self, sets: list[Labelled]) -> None:
        """Measure on `sets`, one transformed set for each region; the accuracy on an empty set is NaN."""
        self._sets = sets
        self._known: WeakKeyDictionary[nn.Module, dict[int, float]] = WeakKeyDictionary()

    def measure(self, model: nn.Module, region: int) -> float:
        """Accuracy of `model`, which may still be in training, in `region`."""
        held_out = self._sets[region]
        return accuracy(model, held_out.images, held_out.labels)

    def accuracy(self, model: nn.Module, region: int) -> float:
        """Accuracy of `model`, whose weights are final, in `region`; repeated calls use a cached value."""
        known = self._known.setdefault(model, {})
        if region not in known:
            known[region] = self.measure(model, region)
        return known[region]
