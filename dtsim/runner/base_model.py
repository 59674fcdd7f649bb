"""The pre-trained model that every MU starts with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dtsim.core.cache import Cache
from dtsim.core.parts import ConfigError
from dtsim.learning.data.splits import Splits
from dtsim.learning.models import ModelCost, divided
from dtsim.learning.pretraining import pretrain
from dtsim.learning.training import accuracy
from dtsim.runner.parts import Parts, Shape


@dataclass(frozen=True)
class BaseModel:
    """The pre-trained model of a configuration."""

    model: nn.Module
    """The initial model of every MU: the whole network, or its head if only heads are trained."""
    untrained: nn.Module
    """The same network with random weights."""
    backbone: nn.Module | None
    """Network that computes a head's input features; None if whole models are trained."""
    cost: ModelCost
    accuracy: float
    """Accuracy on the validation split, whose classes it was trained on."""
    curve: Sequence[Mapping[str, object]]
    """Rows of learning_curve.csv."""


def base_model(
    parts: Parts, splits: Splits, shape: Shape, classes: int, seed: int, cache: Cache, device: torch.device
) -> BaseModel:
    """The base model, from the cache or newly trained."""
    untrained = parts.model.build(shape, classes, seed).to(device)
    try:
        cost = parts.retraining.cost(untrained, shape)
    except ValueError as error:
        raise ConfigError([f"retraining.trainable={parts.retraining.trainable!r}: {error}"]) from None
    base = pretrain(
        parts.model,
        parts.pretraining,
        splits,
        classes=classes,
        seed=seed,
        cache=cache,
        progress=cache.progress,
        device=device,
    )
    model = copy.deepcopy(untrained)
    model.load_state_dict(base.state)
    model.eval()
    measured = accuracy(model, splits.validation.images, splits.validation.labels)
    backbone = None
    if parts.retraining.trainable == "head":
        backbone, model = divided(model)
        _, untrained = divided(untrained)
    return BaseModel(model, untrained, backbone, cost, measured, base.curve)
