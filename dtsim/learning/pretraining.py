"""The initial model of every user: trained once, then loaded from the cache."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from dtsim.core.cache import Cache
from dtsim.core.checked import checked
from dtsim.core.errors import TrainingDiverged
from dtsim.core.parts import part
from dtsim.core.progress import Progress, duration
from dtsim.core.rows import Row
from dtsim.learning.augmentation import crop_and_flip
from dtsim.learning.data.splits import Labelled, Splits, content_digest
from dtsim.learning.models import ModelPart
from dtsim.learning.pace import seconds_per_image
from dtsim.learning.resumable import StateFile
from dtsim.learning.training import WATCH_EVERY, Augment, Training, accuracy, train

_WORTH_SAYING_S = 30.0
"""A shorter pre-training is not announced."""


@part
class Pretraining(Training):
    """How the base model is trained, with what a small data set needs beside."""

    min_steps: int = Field(default=0, ge=0, le=10_000_000)
    """Fewest steps: on few images more passes than `epochs` are made; 0: `epochs` alone counts."""
    crop: int = Field(default=0, ge=0, le=64)
    """Augmentation: in each step every image is moved by up to this many pixels in both directions [pixel]; 0: none."""
    flip: bool = False
    """Augmentation: whether in each step every image is mirrored left to right with probability 1/2."""

    def for_images(self, count: int) -> Training:
        """The keys of a training on `count` images, with as many epochs as `min_steps` asks for."""
        return replace(self, epochs=max(self.epochs, -(-self.min_steps // self.steps_per_epoch(count))))

    @property
    def augment(self) -> Augment | None:
        """The augmentation; None if images are trained on as they are."""
        if not self.crop and not self.flip:
            return None
        return lambda images, rng: crop_and_flip(images, self.crop, self.flip, rng)


@dataclass(frozen=True)
class Pretrained:
    """A trained base model and its learning curve."""

    state: dict[str, Tensor]
    """Its weights, on the CPU."""
    curve: list[Row]
    """Rows of learning_curve.csv: phase, user, step, seconds, metric (loss or accuracy), value."""


def pretrain(
    model_part: ModelPart,
    training: Pretraining,
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

    A training that is interrupted goes on from its last saved epoch, and ends with the same weights.

    Args:
        model_part: a dataclass that builds the network.
        training: the training keys.
        splits: the training and validation images; the content of both is part of the cache key.
        classes: number of labels, including classes that do not occur in the training images.
        seed: of the weights and the shuffling.
        cache: stores the weights and the curve under a digest of all their inputs.
        progress: shows the training, and how long it will take where that is long.
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

    state_file = cache.path("pretrained", content).with_suffix(".training")

    def make() -> dict[str, object]:
        channels, height, width = splits.pretrain.images.shape[1:]
        model = model_part.build((channels, height, width), classes, seed).to(device)
        return _pretrain(model, training, splits.pretrain, splits.validation, seed, progress, state_file)

    made = cache.get("pretrained", content, make)
    if state_file.exists():  # not needed once the model is cached
        state_file.unlink(missing_ok=True)
    return Pretrained(state=checked(made["state"], dict, "state"), curve=checked(made["curve"], list, "curve"))


def _pretrain(
    model: nn.Module,
    training: Pretraining,
    data: Labelled,
    validation: Labelled,
    seed: int,
    progress: Progress,
    state_file: Path,
) -> dict[str, object]:
    device = next(model.parameters()).device
    data, validation = (Labelled(some.images.to(device), some.labels.to(device)) for some in (data, validation))
    keys = training.for_images(len(data))
    in_epoch = keys.steps_per_epoch(len(data))
    gathered: dict[str, Any] = {"curve": [], "recent": [], "seconds": 0.0}
    curve: list[Row]
    state = StateFile(state_file, gathered, progress)
    begun = state.load()
    done = 0 if begun is None else begun["epochs"]
    if done:
        progress.say(f"pre-training goes on after {done} of {keys.epochs} epochs")
    if device.type == "cpu":
        _announce(model, keys, data, len(validation), keys.epochs - done, progress)
    curve, recent = gathered["curve"], gathered["recent"]
    started = time.perf_counter() - gathered["seconds"]

    def row(step: int, metric: str, value: float) -> None:
        gathered["seconds"] = time.perf_counter() - started
        curve.append(
            {
                "phase": "pretrain",
                "user": "",
                "step": step,
                "seconds": gathered["seconds"],
                "metric": metric,
                "value": value,
            }
        )

    if not done:
        row(0, "accuracy", accuracy(model, validation.images, validation.labels))
    with progress.phase("pre-training", keys.epochs * in_epoch) as phase:
        phase.advance(done * in_epoch)

        def watch(step: int, losses: list[float], current: nn.Module) -> None:
            recent.extend(losses)
            phase.advance(len(losses), f"loss {losses[-1]:.3f}")
            if step % WATCH_EVERY == 0:
                row(step, "loss", sum(recent) / len(recent))
                recent.clear()
            if step % in_epoch == 0:
                row(step, "accuracy", accuracy(current, validation.images, validation.labels))

        try:
            trained, _ = train(
                model,
                data.images,
                data.labels,
                keys,
                rng=torch.Generator().manual_seed(seed),
                watch=watch,
                augment=training.augment,
                begun=begun,
                save=state.save,
            )
        except TrainingDiverged:
            state.remove()  # it would only diverge again
            raise
    return {"state": {name: weight.cpu() for name, weight in trained.state_dict().items()}, "curve": curve}


def _announce(
    model: nn.Module, keys: Training, data: Labelled, validation: int, epochs: int, progress: Progress
) -> None:
    """Say how long a long pre-training will take, from a few steps that are timed."""
    passed = epochs * (len(data) + validation / 3)  # a forward pass is a third of a training step
    seconds = passed * seconds_per_image(model, data, keys)
    if seconds >= _WORTH_SAYING_S:
        progress.say(
            f"pre-training: {epochs} epochs of {len(data):,} images will take about {duration(seconds)} on this CPU, "
            "once; where it is interrupted, the same command goes on"
        )


def _description(part: object) -> dict[str, object]:
    """A part in the cache key: its class and its fields.

    Raises:
        TypeError: if it is not a dataclass, whose fields identify it.
    """
    if not is_dataclass(part) or isinstance(part, type):
        raise TypeError(f"{type(part).__name__}: must be a dataclass, or base models could not be told apart")
    return {"class": f"{type(part).__module__}.{type(part).__qualname__}", **asdict(part)}
