"""Joint training of many users' models: one step trains a stack of all models (torch.func)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from dtsim.core.errors import TrainingDiverged
from dtsim.learning.data.splits import Labelled
from dtsim.learning.training import (
    WATCH_EVERY,
    Training,
    Watch,
    check,
    check_samples,
    scaled_apart,
)


def can_be_stacked(models: Sequence[nn.Module]) -> bool:
    """Whether `models` differ only in their weights."""
    first = str(models[0])
    return all(str(model) == first for model in models[1:])


def train_together(
    models: Sequence[nn.Module],
    sets: Sequence[Labelled],
    keys: Training,
    *,
    rngs: Sequence[torch.Generator],
    watches: Sequence[Watch | None],
) -> list[tuple[nn.Module, list[float]] | TrainingDiverged]:
    """Train like `training.train`, for all users together: the same result up to rounding, on the same batches.

    Sets may differ in size: each user has its own batches and its own number of steps.

    Args:
        models: of one architecture, on one device; K of them, which are not changed.
        sets: training data of each user; K.
        keys: epochs over each user's set, images of a user in a step, learning rate and so on.
        rngs: on the CPU, shuffle each user's images; K.
        watches: called at the end of each user's epochs, or None; K.

    Returns:
        For every user its trained copy and the loss of each step, or the failure of its training; K.

    Raises:
        ValueError: if a set is empty or does not have one label for each image.
    """
    for samples in sets:
        check_samples(samples.images, samples.labels)
    # Longest first: the models still in training are always the first ones of the stack.
    order = sorted(range(len(sets)), key=lambda user: -len(sets[user]))
    in_epoch = [keys.steps_per_epoch(len(sets[user])) for user in order]
    steps = [keys.epochs * count for count in in_epoch]
    device = sets[0].images.device
    images = torch.cat([sets[user].images for user in order])
    labels = torch.cat([sets[user].labels for user in order])
    chosen, share = _batches([len(sets[user]) for user in order], keys, [rngs[user] for user in order])
    chosen, share = chosen.to(device), share.to(device)
    rates = torch.zeros(steps[0], len(order))
    for place, count in enumerate(steps):
        rates[:count, place] = torch.tensor([keys.rate(step / count) for step in range(count)])
    rates = rates.to(device)

    # All models get the same mode, which a stack requires; vmap does not support the memory order of a `Scale` layer.
    apart = [scaled_apart(copy.deepcopy(models[user]).train()) for user in order]
    scale, stack = apart[0][0], [layers for _, layers in apart]
    frame = stack[0]
    for module in frame.modules():
        if isinstance(module, nn.GroupNorm):  # it queries the memory order unless it is torch's default
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    weights, buffers = stack_module_state(stack)
    weights = {name: weight.detach() for name, weight in weights.items()}
    velocity = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    step_of = _step_of(frame, keys, device)
    losses = torch.zeros(steps[0], len(order), device=device)

    def model_of(place: int) -> nn.Module:
        model = copy.deepcopy(models[order[place]])
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(weights[name][place])
        return model

    told = [0] * len(order)
    for step in range(steps[0]):
        active = sum(step < count for count in steps)
        pick = chosen[step, :active].flatten()
        own = {name: weight[:active] for name, weight in weights.items()}
        fixed = {name: buffer[:active] for name, buffer in buffers.items()}
        x = scale(images.index_select(0, pick)).unflatten(0, (active, keys.batch_size))
        losses[step, :active], gradients = step_of(own, fixed, x, labels[pick].view(active, -1), share[step, :active])
        for name, gradient in gradients.items():
            weight, speed = weights[name][:active], velocity[name][:active]
            slope = gradient + keys.weight_decay * weight if keys.weight_decay else gradient
            speed.mul_(keys.momentum).add_(slope)
            way = slope + keys.momentum * speed if keys.momentum else slope
            weight.sub_(way * rates[step, :active].view(-1, *[1] * (weight.ndim - 1)))
        for place in range(active):
            watch = watches[order[place]]
            if watch is not None and (step + 1) % in_epoch[place] == 0:
                watch(step + 1, losses[told[place] : step + 1, place].tolist(), model_of(place))
                told[place] = step + 1

    results: list[tuple[nn.Module, list[float]] | TrainingDiverged] = [TrainingDiverged()] * len(order)
    table = losses.T.tolist()  # one transfer
    classes = _classes(models[0], images[:1])
    for place, user in enumerate(order):
        mine = table[place][: steps[place]]
        try:
            for seen in [*range(WATCH_EVERY, len(mine), WATCH_EVERY), len(mine)]:
                check(mine[:seen], len(mine), classes, keys.learning_rate)
            results[user] = (model_of(place).eval(), mine)
        except TrainingDiverged as diverged:
            results[user] = diverged
    return results


Weights: TypeAlias = Mapping[str, Tensor]
Step: TypeAlias = Callable[[Weights, Weights, Tensor, Tensor, Tensor], tuple[Tensor, Weights]]
"""Losses [K] and gradients of a batch, from weights and buffers of the stack, inputs [K, B, ...], labels [K, B] and the
share of each input in its mean [K, B], 0 for padding."""


def _step_of(frame: nn.Module, keys: Training, device: torch.device) -> Step:
    """The step of a stack of models like `frame`."""
    logits_of = vmap(lambda own, fixed, x: functional_call(frame, (own, fixed), (x,)))

    def step(own: Weights, fixed: Weights, x: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Weights]:
        traced = {name: weight.detach().requires_grad_() for name, weight in own.items()}
        with keys.autocast(device):
            logits = logits_of(traced, fixed, x)
        each = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
        loss = (each.view(labels.shape) * share).sum(dim=1)
        # No user's loss depends on another's weights: the gradient of the sum is the gradient of each loss.
        gradients = torch.autograd.grad(loss.sum(), list(traced.values()))
        return loss.detach(), dict(zip(traced, gradients, strict=True))

    def linear_step(own: Weights, fixed: Weights, x: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Weights]:
        # Written out, since autograd and vmap take three times as long as a head's arithmetic.
        with keys.autocast(device):
            logits = torch.baddbmm(own["bias"].unsqueeze(1), x, own["weight"].mT)
        log_p = logits.float().log_softmax(dim=-1)
        place = labels.unsqueeze(-1)
        loss = -(log_p.gather(-1, place).squeeze(-1) * share).sum(dim=1)
        # The gradient of a mean cross-entropy by the logits is (p - one-hot) times each input's share in the mean.
        error = log_p.exp_().scatter_add_(-1, place, log_p.new_full(place.shape, -1.0)).mul_(share.unsqueeze(-1))
        with keys.autocast(device):
            slope = torch.bmm(error.mT, x)
        return loss, {"weight": slope.float(), "bias": error.sum(dim=1)}

    is_head = isinstance(frame, nn.Linear) and frame.bias is not None
    return linear_step if is_head else step


def _batches(sizes: list[int], keys: Training, rngs: list[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Indices of each user's images in each step, into the images of all users together, and their weights in the
    mean of the batch, 0 for padding; [S, K, B]."""
    steps = keys.epochs * keys.steps_per_epoch(max(sizes))
    chosen = torch.zeros(steps, len(sizes), keys.batch_size, dtype=torch.int64)
    share = torch.zeros(steps, len(sizes), keys.batch_size)
    first = 0
    for user, (size, rng) in enumerate(zip(sizes, rngs, strict=True)):
        step = 0
        for _ in range(keys.epochs):
            for batch in torch.randperm(size, generator=rng).split(keys.batch_size):
                chosen[step, user, : len(batch)] = first + batch
                share[step, user, : len(batch)] = 1 / len(batch)
                step += 1
        first += size
    return chosen, share


def _classes(model: nn.Module, image: Tensor) -> int:
    with torch.no_grad():
        return int(model(image).shape[-1])
