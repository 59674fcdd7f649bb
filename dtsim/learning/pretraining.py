"""The initial model of every user: trained once, then loaded from the cache."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass

import torch
from torch import Tensor, nn

from dtsim.core.cache import Cache
from dtsim.core.checked import checked
from dtsim.core.progress import Progress
from dtsim.core.rows import Row
from dtsim.learning.data.splits import Labelled, Splits, content_digest
from dtsim.learning.models import ModelPart
from dtsim.learning.training import WATCH_EVERY, Training, accuracy, train


@dataclass(frozen=True)
class Pretrained:
    """A trained base model and its learning curve."""

    state: dict[str, Tensor]
    """Its weights, on the CPU."""
    curve: list[Row]
    """Rows of learning_curve.csv: phase, user, step, seconds, metric (loss or accuracy), value."""


def pretrain(
    model_part: ModelPart,
    training: Training,
    splits: Splits,
    *,
    classes: int,
    seed: int,
    cache: Cache,
    progress: Progress,
    key: Mapping[str, object] | None = None,
    device: torch.device | str = "cpu",
) -> Pretrained:
    """The base model, from the cache or trained on `splits.pretrain` and measured on `splits.validation`.

    Args:
        model_part: a dataclass that builds the network.
        training: the training keys.
        splits: the training and validation images; the content of both is part of the cache key.
        classes: number of labels, including classes that do not occur in the training images.
        seed: of the weights and the shuffling.
        cache: stores the weights and the curve under a digest of all their inputs.
        progress: shows the training.
        key: further inputs that identify this base model (JSON-able).
        device: device of the training.

    Raises:
        TrainingDiverged: if a loss is not finite; nothing is cached.
    """
    content = {
        "data": content_digest(
            splits.pretrain.images, splits.pretrain.labels, splits.validation.images, splits.validation.labels
        ),
        "classes": classes,
        "model": _description(model_part),
        "training": _description(training),
        "seed": seed,
        "device": torch.device(device).type,
        **(key or {}),
    }

    def make() -> dict[str, object]:
        channels, height, width = splits.pretrain.images.shape[1:]
        model = model_part.build((channels, height, width), classes, seed).to(device)
        return _pretrain(model, training, splits.pretrain, splits.validation, seed, progress)

    made = cache.get("pretrained", content, make)
    return Pretrained(state=checked(made["state"], dict, "state"), curve=checked(made["curve"], list, "curve"))


def _pretrain(
    model: nn.Module,
    training: Training,
    data: Labelled,
    validation: Labelled,
    seed: int,
    progress: Progress,
) -> dict[str, object]:
    device = next(model.parameters()).device
    images, labels = validation.images.to(device), validation.labels.to(device)
    in_epoch = training.steps_per_epoch(len(data))
    curve: list[Row] = []
    recent: list[float] = []
    started = time.perf_counter()

    def row(step: int, metric: str, value: float) -> None:
        seconds = time.perf_counter() - started
        curve.append(
            {
                "phase": "pretrain",
                "user": "",
                "step": step,
                "seconds": seconds,
                "metric": metric,
                "value": value,
            }
        )

    row(0, "accuracy", accuracy(model, images, labels))
    with progress.phase("pre-training", training.epochs * in_epoch) as phase:

        def watch(step: int, losses: list[float], current: nn.Module) -> None:
            recent.extend(losses)
            phase.advance(len(losses), f"loss {losses[-1]:.3f}")
            if step % WATCH_EVERY == 0:
                row(step, "loss", sum(recent) / len(recent))
                recent.clear()
            if step % in_epoch == 0:
                row(step, "accuracy", accuracy(current, images, labels))

        trained, _ = train(
            model,
            data.images.to(device),
            data.labels.to(device),
            training,
            rng=torch.Generator().manual_seed(seed),
            watch=watch,
        )
    return {"state": {name: weight.cpu() for name, weight in trained.state_dict().items()}, "curve": curve}


def _description(part: object) -> dict[str, object]:
    """A part in the cache key: its class and its fields.

    Raises:
        TypeError: if it is not a dataclass, whose fields identify it.
    """
    if not is_dataclass(part) or isinstance(part, type):
        raise TypeError(f"{type(part).__name__}: must be a dataclass, or base models could not be told apart")
    return {"class": f"{type(part).__module__}.{type(part).__qualname__}", **asdict(part)}
