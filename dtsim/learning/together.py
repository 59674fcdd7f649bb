"""Training of many users' models at once: one step of all of them is one step of a stack of models (torch.func)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from dtsim.learning.models import Scale
from dtsim.learning.splits import Labelled
from dtsim.learning.training import (
    WATCH_EVERY,
    Precision,
    Schedule,
    TrainingDiverged,
    Watch,
    autocast,
    check,
    check_samples,
    rate,
)


def can_be_stacked(models: Sequence[nn.Module]) -> bool:
    """Whether `models` differ in their weights alone."""
    first = str(models[0])
    return all(str(model) == first for model in models[1:])


def train_together(
    models: Sequence[nn.Module],
    sets: Sequence[Labelled],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    precision: Precision = "auto",
    generators: Sequence[torch.Generator],
    watches: Sequence[Watch | None],
) -> list[tuple[nn.Module, list[float]] | TrainingDiverged]:
    """Do for every user what `training.train` does for one, up to rounding: the same images in the same order.

    Sets may be of different sizes: each user goes through its own batches and is done after its own number of steps.

    Args:
        models: of one architecture, on one device; K of them, which stay as they are.
        sets: what each is trained on; K.
        epochs: passes over each set.
        batch_size: images of a user in a step.
        learning_rate: step size, the largest one where `schedule` moves it.
        momentum: of SGD, in Nesterov's form where it is above 0.
        weight_decay: L2 penalty.
        schedule: how the step size moves.
        precision: of the arithmetic.
        generators: on the CPU, shuffle each user's images; K.
        watches: told of the end of each user's epochs, where there is one; K.

    Returns:
        For every user its trained copy and the loss of each step, or how its training failed; K.

    Raises:
        ValueError: where a set is empty or its labels are not one for each image.
    """
    for samples in sets:
        check_samples(samples.images, samples.labels)
    # The longest first: those that are still training are always the first of the stack.
    order = sorted(range(len(sets)), key=lambda user: -len(sets[user]))
    in_epoch = [math.ceil(len(sets[user]) / batch_size) for user in order]
    steps = [epochs * count for count in in_epoch]
    device = sets[0].images.device
    images = pad_sequence([sets[user].images for user in order], batch_first=True)  # [K, N, ...]
    labels = pad_sequence([sets[user].labels for user in order], batch_first=True)  # [K, N]
    chosen, share = _batches([len(sets[user]) for user in order], epochs, batch_size, [generators[u] for u in order])
    chosen, share = chosen.to(device), share.to(device)
    rates = torch.zeros(steps[0], len(order))
    for place, own in enumerate(steps):
        rates[:own, place] = torch.tensor([learning_rate * rate(schedule, step / own) for step in range(own)])
    rates = rates.to(device)

    # Stacked in one mode, which is all that a stack may be in.
    scale, stack = _scaled_apart([copy.deepcopy(models[user]).train() for user in order])
    frame = stack[0]
    weights, buffers = stack_module_state(stack)
    weights = {name: weight.detach() for name, weight in weights.items()}
    velocity = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def loss_of(own: dict[str, Tensor], fixed: dict[str, Tensor], x: Tensor, y: Tensor, part: Tensor) -> Tensor:
        with autocast(precision, device):
            logits = functional_call(frame, (own, fixed), (x,))
        # The mean over the batch: what only pads it has no share.
        return (functional.cross_entropy(logits.float(), y, reduction="none") * part).sum()

    gradients_of = vmap(grad_and_value(loss_of))
    users = torch.arange(len(order), device=device).unsqueeze(1)
    losses = torch.zeros(steps[0], len(order), device=device)

    def model_of(place: int) -> nn.Module:
        model = copy.deepcopy(models[order[place]])
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(weights[name][place])
        return model

    told = [0] * len(order)
    for step in range(steps[0]):
        active = sum(step < own for own in steps)
        pick = chosen[step, :active]
        gradients, loss = gradients_of(
            {name: weight[:active] for name, weight in weights.items()},
            {name: buffer[:active] for name, buffer in buffers.items()},
            scale(images[users[:active], pick].flatten(0, 1)).unflatten(0, pick.shape),
            labels[users[:active], pick],
            share[step, :active],
        )
        losses[step, :active] = loss
        for name, gradient in gradients.items():
            weight, speed = weights[name][:active], velocity[name][:active]
            slope = gradient + weight_decay * weight if weight_decay else gradient
            speed.mul_(momentum).add_(slope)
            way = slope + momentum * speed if momentum else slope
            weight.sub_(way * rates[step, :active].view(-1, *[1] * (weight.ndim - 1)))
        for place in range(active):
            watch = watches[order[place]]
            if watch is not None and (step + 1) % in_epoch[place] == 0:
                watch(step + 1, losses[told[place] : step + 1, place].tolist(), model_of(place))
                told[place] = step + 1

    results: list[tuple[nn.Module, list[float]] | TrainingDiverged] = [TrainingDiverged()] * len(order)
    table = losses.T.tolist()  # one transfer
    classes = _classes(models[0], images[0, :1])
    for place, user in enumerate(order):
        own = table[place][: steps[place]]
        try:
            for seen in [*range(WATCH_EVERY, len(own), WATCH_EVERY), len(own)]:
                check(own[:seen], len(own), classes, learning_rate)
            results[user] = (model_of(place).eval(), own)
        except TrainingDiverged as diverged:
            results[user] = diverged
    return results


def _scaled_apart(models: list[nn.Module]) -> tuple[nn.Module, list[nn.Module]]:
    """The `Scale` that `models` begin with, which asks for an order in memory that vmap does not know, and the rest."""
    if all(isinstance(model, nn.Sequential) and isinstance(model[0], Scale) for model in models):
        return models[0][0], [model[1:] for model in models]  # type: ignore[index]
    return nn.Identity(), models


def _batches(
    sizes: list[int], epochs: int, batch_size: int, generators: list[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Which images each user takes in each step, and the share of each in the batch's mean, 0 for pads; [S, K, B]."""
    steps = epochs * math.ceil(max(sizes) / batch_size)
    chosen = torch.zeros(steps, len(sizes), batch_size, dtype=torch.int64)
    share = torch.zeros(steps, len(sizes), batch_size)
    for user, (size, generator) in enumerate(zip(sizes, generators, strict=True)):
        batches = [
            batch for _ in range(epochs) for batch in torch.randperm(size, generator=generator).split(batch_size)
        ]
        for step, batch in enumerate(batches):
            chosen[step, user, : len(batch)] = batch
            share[step, user, : len(batch)] = 1 / len(batch)
    return chosen, share


def _classes(model: nn.Module, image: Tensor) -> int:
    with torch.no_grad():
        return int(model(image).shape[-1])
