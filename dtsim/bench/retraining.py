"""Samples per second when retraining many users' models: one by one, channels-last, as one stack, and heads alone."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtsim.bench.info import built
from dtsim.bench.output import show, tell, write_csv
from dtsim.bench.timing import Contender, race
from dtsim.core.parts import ConfigError
from dtsim.core.progress import Progress
from dtsim.core.seeding import Streams, single_thread
from dtsim.learning.data.splits import Labelled
from dtsim.learning.models import Scale, divided
from dtsim.learning.stacked import train_together
from dtsim.learning.training import Training, train
from dtsim.runner.jobs import plan
from dtsim.runner.parts import Parts, device_of, layout_of

_PLAIN = "plain loop"


def bench(*, users: int, samples: int, repeats: int, overrides: Sequence[str], progress: Progress) -> Path:
    """Time one epoch of retraining the models of `users` MUs on `samples` images each; print a table, return the CSV.

    The images are random bytes, since their content does not change the work. Whole models are trained in three ways:
    by the simplest possible loop (images in torch's default order, plain SGD, the loss read in every step), one by one
    by `training.train`, and as one stack by `stacked.train_together`; heads on cached features in the last two ways.

    Raises:
        ConfigError: if a value is invalid.
    """
    single_thread()
    least = {"users": users, "samples": samples, "repeats": repeats}
    if lines := [f"{name}={value}: must be >= 1" for name, value in least.items() if value < 1]:
        raise ConfigError(lines)
    config = plan(overrides, runs=False).jobs[0].config
    parts, device = Parts(config), device_of(config.device)
    contenders = _contenders(parts, config.cache_folder, users, samples, device)
    # A GPU's work is not CPU time; the wall clock is read after the work is done.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    race(contenders, repeats, progress, f"timing {users} users", clock)
    path = Path(config.outputs) / "bench" / "retraining.csv"
    write_csv(
        path,
        [
            {
                "device": device.type,
                "contender": contender.name,
                "users": users,
                "repeat": repeat,
                "samples": contender.steps,
                "seconds": seconds,
            }
            for contender in contenders
            for repeat, seconds in enumerate(contender.cpu_s)
        ],
    )
    plain = contenders[0].rate
    title = f"samples trained per {'CPU second' if device.type == 'cpu' else 'second'} on {device.type}, K={users}"
    show(title, [_shown(contender, plain) for contender in contenders])
    tell([f"written: {path}"])
    return path


def _contenders(parts: Parts, cache: Path, users: int, samples: int, device: torch.device) -> list[Contender]:
    shape, classes = layout_of(parts.dataset, cache)
    model = built(parts.model, shape, classes).to(device)
    try:
        backbone, head = divided(model)
    except ValueError as error:
        raise ConfigError([f"model: {error}"]) from None
    random = Streams(0).torch("bench/retraining")
    count = users * samples
    images = torch.randint(0, 256, (count, *shape), generator=random, dtype=torch.uint8).to(device)
    labels = torch.randint(0, classes, (count,), generator=random).to(device)
    with torch.no_grad():
        features = torch.cat([backbone(some) for some in images.split(500)])
    whole, cached = _sets(images, labels, samples), _sets(features, labels, samples)
    keys = replace(parts.retraining.training(from_scratch=False), epochs=1)
    plain = _plain_order(model)
    ways: dict[str, Callable[[], object]] = {
        _PLAIN: partial(_naively, plain, whole, keys),
        "channels-last": partial(_one_by_one, model, whole, keys),
        "stacked": partial(_together, model, whole, keys),
        "heads": partial(_one_by_one, head, cached, keys),
        "heads, stacked": partial(_together, head, cached, keys),
    }
    return [Contender(name, count, partial(_done, way, device)) for name, way in ways.items()]


def _sets(images: Tensor, labels: Tensor, samples: int) -> list[Labelled]:
    return [Labelled(x, y) for x, y in zip(images.split(samples), labels.split(samples), strict=True)]


def _done(way: Callable[[], object], device: torch.device) -> Callable[[], None]:
    def run() -> None:
        way()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _one_by_one(model: nn.Module, sets: Sequence[Labelled], keys: Training) -> None:
    for user, own in enumerate(sets):
        train(model, own.images, own.labels, keys, rng=torch.Generator().manual_seed(user))


def _together(model: nn.Module, sets: Sequence[Labelled], keys: Training) -> None:
    train_together(
        [model] * len(sets),
        sets,
        keys,
        rngs=[torch.Generator().manual_seed(user) for user in range(len(sets))],
        watches=[None] * len(sets),
    )


class _Unordered(Scale):
    """`Scale` in torch's default memory order."""

    def forward(self, images: Tensor) -> Tensor:
        """Scaled images."""
        return (images - self.mean) / self.std


def _plain_order(model: nn.Module) -> nn.Module:
    plain = copy.deepcopy(model)
    assert isinstance(plain, nn.Sequential)
    if isinstance(plain[0], Scale):
        plain[0] = _Unordered().to(plain[0].mean.device)
    return plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def _naively(model: nn.Module, sets: Sequence[Labelled], keys: Training) -> None:
    for user, own in enumerate(sets):
        mine = copy.deepcopy(model).train()
        optimizer = torch.optim.SGD(
            mine.parameters(), keys.learning_rate, keys.momentum, weight_decay=keys.weight_decay
        )
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(user))
        for chosen in order.to(own.labels.device).split(keys.batch_size):
            loss = functional.cross_entropy(mine(own.images[chosen]), own.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()


def _shown(contender: Contender, plain: float) -> dict[str, str]:
    each = [contender.steps / seconds for seconds in contender.cpu_s]
    return {
        "": contender.name,
        "median": f"{contender.rate:,.0f}",
        "range": f"{min(each):,.0f}–{max(each):,.0f}",
        f"× {_PLAIN}": f"{contender.rate / plain:,.2f}",
    }
