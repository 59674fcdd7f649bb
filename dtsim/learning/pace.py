"""How fast this machine trains a model, from a few steps that are timed."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import nn

from dtsim.learning.data.splits import Labelled
from dtsim.learning.training import Training, train

_BATCH = 64
_STEPS = 3


def seconds_per_image(model: nn.Module, data: Labelled, keys: Training) -> float:
    """Wall time of a training step divided by its images, in seconds; `model` is not changed.

    Measured on small batches and after a first step, in which torch prepares what later steps use again.
    """
    size = min(_BATCH, keys.batch_size, len(data))
    short = replace(keys, epochs=1, batch_size=size, learning_rate=1e-6)

    def steps(count: int) -> float:
        some = slice(0, count * size)
        started = time.perf_counter()
        train(model, data.images[some], data.labels[some], short, rng=torch.Generator())
        return time.perf_counter() - started

    first = steps(1)
    if first > 1.0:  # a large model, whose first step is hardly slower than the others
        return first / size
    return steps(_STEPS) / min(_STEPS * size, len(data))
