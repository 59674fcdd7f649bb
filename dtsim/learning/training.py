"""Training a model by stochastic gradient descent, and predicting labels with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from dtsim.core.errors import TrainingDiverged
from dtsim.core.parts import part
from dtsim.learning.models import ModelCost, Scale, Trainable, measure
from dtsim.learning.resumable import Halfway, Save

Schedule = Literal["constant", "cosine", "one_cycle"]

Precision = Literal["auto", "float32", "bfloat16"]

Watch = Callable[[int, list[float], nn.Module], None]
"""Called with the number of steps, the losses since the last call and the model in training."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes images [N, C, H, W] at random."""

WATCH_EVERY = 10
"""Steps between two checks of the losses: on a GPU each check waits for all queued work."""


_PREPARED = 16
"""Batches that are gathered and scaled at once."""

EXPLODED = 10.0
"""A training has diverged if its loss, averaged over the last ten steps, exceeds both this multiple of the first loss
and this multiple of ln C, the loss of a random guess. A first step that is too large may reach 3 ln C and recover."""


@part
class Sgd:
    """Stochastic gradient descent, the keys that pre-training and retraining share. Defaults are pre-training's."""

    batch_size: int = Field(default=64, gt=0, le=1_000_000)
    """Images in a step."""
    learning_rate: float = Field(default=0.1, gt=0, le=1e6)
    """Learning rate; the largest one if the schedule changes it."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum, Nesterov's form."""
    weight_decay: float = Field(default=5e-4, ge=0, le=1000)
    """L2 penalty on every weight."""
    schedule: Schedule = "one_cycle"
    """`constant`; `cosine`: decreases to 0; `one_cycle`: rises over the first quarter, then decreases to 0."""
    precision: Precision = "auto"
    """Arithmetic precision: `auto` is bfloat16 on a GPU that supports it, else float32; weights are always float32."""


@part
class Training(Sgd):
    """How a model is trained; the defaults are those of the base model's pre-training."""

    epochs: int = Field(default=3, gt=0)
    """Passes over the images."""

    def steps_per_epoch(self, images: int) -> int:
        """Steps of a pass over `images` images; the last step may be smaller."""
        return math.ceil(images / self.batch_size)

    def rate(self, done: float) -> float:
        """The learning rate after the fraction `done` of all steps."""
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        rise = 0.25
        fall = 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))
        return self.learning_rate * (0.04 + 0.96 * done / rise if done < rise else fall)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The arithmetic for `precision` on `device`."""
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        lower = self.precision == "bfloat16" or (self.precision == "auto" and has_bfloat16)
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=lower)


@part
class Retraining(Sgd):
    """Keys of the retraining of a user's model, and the part of its work that eq. (10) charges."""

    samples: int = Field(default=1200, gt=0)
    """Size of the set that an incremental update trains on, eq. (9) [images]."""
    epochs: int = Field(default=2, gt=0)
    """E of eq. (10): passes over that set."""
    scratch_epochs: int = Field(default=5, gt=0)
    """E for training from scratch on all collected data."""
    batch_size: int = Field(default=32, gt=0, le=1_000_000)
    learning_rate: float = Field(default=0.02, gt=0, le=1e6)
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    schedule: Schedule = "constant"
    trainable: Trainable = "all"
    """`all` weights, or the `head` alone: the last linear layer, on cached features, the fast mode."""
    charge: Literal["all", "real", "generated", "none"] = "all"
    """Whose samples' work eq. (10) prices: `all`, the `real` ones' only, the `generated` ones' only, or `none`."""
    priced_as: Literal["trained", "model"] = "trained"
    """Work of a sample in eq. (10): of what is `trained`, or of the whole `model`, whatever is trained: with
    trainable=head, training that a CPU affords at the price of whole updates."""
    effect: Literal["at_once", "when_done"] = "at_once"
    """When an update serves: `at_once`, from the first slot of the window that its work is spread over, as in the
    paper, or `when_done`, from the first slot after that window, whoever pays for the work."""

    def cost(self, model: nn.Module, sample_shape: tuple[int, int, int]) -> ModelCost:
        """The work of one image through `model`, as eq. (10) prices it.

        Raises:
            ValueError: if only the head is trainable and `model` has none.
        """
        cost = measure(model, sample_shape, self.trainable)
        priced = cost if self.priced_as == "trained" else measure(model, sample_shape)
        return replace(cost, training_flop=priced.training_flop)

    def training(self, *, from_scratch: bool) -> Training:
        """Training keys of an update; `epochs` is E of eq. (10)."""
        return Training(
            epochs=self.scratch_epochs if from_scratch else self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            precision=self.precision,
        )

    def update_flop(self, cost: ModelCost, real: int, generated: int, *, from_scratch: bool) -> float:
        """Charged work of an update, κ c_s E (n_real + n_DT) of eq. (10), in FLOP; κ c_s is measured."""
        charged = {"all": real + generated, "real": real, "generated": generated, "none": 0}[self.charge]
        return cost.training_flop * self.training(from_scratch=from_scratch).epochs * charged


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    keys: Training,
    *,
    rng: torch.Generator,
    watch: Watch | None = None,
    augment: Augment | None = None,
    begun: Halfway | None = None,
    save: Save | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train a copy of `model`; the original is never changed, even if training fails or is interrupted.

    Args:
        model: on the device of `images`.
        images: [N, C, H, W] uint8, or features [N, F] if `model` is a head.
        labels: [N] int64.
        keys: epochs, learning rate and so on; momentum above 0 is Nesterov momentum.
        rng: on the CPU; shuffles the images. Generators in equal states give equal weights on one CPU thread.
        watch: called at every `WATCH_EVERY`th step and at the last step of every epoch.
        augment: changes the images of every step at random, with `rng`; None: they are trained on as they are.
        begun: state of an interrupted training, which goes on; `model` then gives the architecture alone.
        save: called after every epoch but the last, with a function that returns the state.

    Returns:
        The trained copy and the loss of each step, those before an interruption included.

    Raises:
        ValueError: if there are no images, or not one label for each.
        TrainingDiverged: if a loss is not finite or exceeds the bound of `EXPLODED`.
    """
    check_samples(images, labels)
    model = copy.deepcopy(model).train()
    scale, layers = scaled_apart(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    steps = keys.epochs * keys.steps_per_epoch(len(images))
    optimizer = torch.optim.SGD(
        weights,
        lr=keys.learning_rate,
        momentum=keys.momentum,
        weight_decay=keys.weight_decay,
        nesterov=keys.momentum > 0,
        fused=True,  # one call for all weights: the small CNN's many small tensors are dominated by call overhead
    )
    losses: list[float] = []
    unseen: list[Tensor] = []
    first = 0
    if begun is not None:
        model.load_state_dict(begun["model"])
        optimizer.load_state_dict(begun["optimizer"])
        rng.set_state(begun["rng"])
        losses, first = list(begun["losses"]), begun["epochs"]
    for epoch in range(first, keys.epochs):
        order = torch.randperm(len(images), generator=rng).to(images.device)
        batches = _batches(scale, images, labels, order, keys.batch_size, augment, rng)
        for place, (inputs, targets) in enumerate(batches, start=1):
            step = len(losses) + len(unseen)
            for group in optimizer.param_groups:
                group["lr"] = keys.rate(step / steps)
            with keys.autocast(images.device):
                logits = layers(inputs)
            loss = functional.cross_entropy(logits.float(), targets)
            # One call instead of backward() and zero_grad(): nothing is accumulated.
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                weight.grad = gradient
            optimizer.step()
            unseen.append(loss.detach())
            if (step + 1) % WATCH_EVERY == 0 or place == keys.steps_per_epoch(len(images)):
                seen = torch.stack(unseen).tolist()
                losses += seen
                unseen.clear()
                check(losses, steps, logits.shape[-1], keys.learning_rate)
                if watch is not None:
                    watch(len(losses), seen, model)
        if save is not None and epoch + 1 < keys.epochs:
            save(partial(_halfway, model, optimizer, rng, losses, epoch + 1))
    return model.eval(), losses


def _halfway(
    model: nn.Module, optimizer: torch.optim.Optimizer, rng: torch.Generator, losses: list[float], epochs: int
) -> Halfway:
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": rng.get_state(),
        "losses": losses,
        "epochs": epochs,
    }


def scaled_apart(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The `Scale` layer at the start of `model`, or what stands for it, and the rest."""
    if isinstance(model, nn.Sequential) and isinstance(model[0], Scale):
        return model[0], model[1:]
    return nn.Identity(), model


def _batches(
    scale: nn.Module,
    images: Tensor,
    labels: Tensor,
    order: Tensor,
    size: int,
    augment: Augment | None,
    rng: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images in `order`, scaled, and their labels, `size` at a time; several batches are prepared at once."""
    for some in order.split(_PREPARED * size):
        taken = images[some] if augment is None else augment(images[some], rng)
        yield from zip(scale(taken).split(size), labels[some].split(size), strict=True)


def check_samples(images: Tensor, labels: Tensor) -> None:
    """Raise a ValueError if there are no images, or not one label for each."""
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"training needs one label for each image, got {len(images)} images, {len(labels)} labels")


def check(losses: list[float], steps: int, classes: int, learning_rate: float) -> None:
    """Check the last `WATCH_EVERY` of the `losses` so far of a training of `steps` steps.

    Raises:
        TrainingDiverged: if one is not finite, or their mean exceeds `EXPLODED` times both the first and ln `classes`.
    """
    recent = losses[-WATCH_EVERY:]
    for step, loss in enumerate(recent, start=len(losses) - len(recent) + 1):
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} in step {step} of {steps}: try a learning_rate below {learning_rate:g}"
            )
    mean = sum(recent) / len(recent)
    if len(losses) >= min(WATCH_EVERY, steps) and mean > EXPLODED * max(losses[0], math.log(classes)):
        raise TrainingDiverged(
            f"the loss rose from {losses[0]:.3g} to {mean:.3g} in {len(losses)} of {steps} steps: "
            f"try a learning_rate below {learning_rate:g}"
        )


def predict(model: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """The most likely label of each of `images` (or features of a head), int64 [N]; batches keep a CPU fast."""
    if len(images) == 0:
        return torch.empty(0, dtype=torch.int64, device=images.device)
    was_training = model.training
    if was_training:  # changing the mode of every module takes a tenth of a small inference's time
        model.eval()
    try:
        with torch.inference_mode():
            return torch.cat([model(some).argmax(dim=1) for some in images.split(batch)])
    finally:
        if was_training:
            model.train()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """The fraction of `images` for which `model` predicts `labels`; NaN if there are none."""
    return float((predict(model, images, batch) == labels).double().mean())
