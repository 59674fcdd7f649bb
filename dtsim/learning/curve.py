"""The learning curve of one update of one MU's model."""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from dtsim.core.rows import Row
from dtsim.learning.probe import Probe


class Curve:
    """Watches a training: mean loss of each epoch, and accuracy before, between and after the epochs."""

    def __init__(self, probe: Probe, *, region: int, before: nn.Module, epochs: int, steps_per_epoch: int) -> None:
        """Start with the model `before` the update, measured by `probe` in `region`."""
        self._probe, self._region = probe, region
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._losses: list[float] = []
        self._accuracy = [probe.accuracy(before, region)]

    def watch(self, step: int, losses: list[float], model: nn.Module) -> None:
        """Record `losses`, the last of which belongs to training step `step`, counted from 1."""
        self._losses += losses
        if step % self._steps_per_epoch == 0 and step < self._epochs * self._steps_per_epoch:
            self._accuracy.append(self._probe.measure(model, self._region))

    def rows(self, after: nn.Module, flop_per_epoch: float) -> list[Row]:
        """Rows of learning_curve.csv without user, frame, slot and time: step, epoch, flop, metric, value.

        Args:
            after: the trained model.
            flop_per_epoch: work of one epoch, in FLOP.
        """
        losses = [float(np.mean(part)) for part in np.array_split(np.array(self._losses), self._epochs)]
        accuracy = [*self._accuracy, self._probe.accuracy(after, self._region)]
        values = [("loss", epoch, loss) for epoch, loss in enumerate(losses, start=1)]
        values += [("accuracy", epoch, value) for epoch, value in enumerate(accuracy) if math.isfinite(value)]
        return [
            {
                "step": epoch * self._steps_per_epoch,
                "epoch": epoch,
                "flop": epoch * flop_per_epoch,
                "metric": metric,
                "value": value,
            }
            for metric, epoch, value in values
        ]
