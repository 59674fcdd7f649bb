"""The value of generated data: one update in a new region, identical for every generator and baseline.

The sets for training and scoring are disjoint: an MU's own uploads, the other MUs' uploads in the twin's store and the
oracle's fresh samples come from three disjoint thirds of the increment split, and accuracy is measured on the test
split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from dtsim.core.errors import TrainingDiverged
from dtsim.core.parts import build
from dtsim.core.seeding import Streams
from dtsim.learning.data.splits import Labelled
from dtsim.learning.learners import Update
from dtsim.learning.prior import corrected, log_ratio
from dtsim.learning.training import accuracy
from dtsim.runner.assembly import learners_of, prepare
from dtsim.runner.config import Config
from dtsim.simulation.world import World
from dtsim.twin.distribution import kl_divergence_nat, smoothed
from dtsim.twin.generator import Generator, NoGenerator
from dtsim.twin.store import Store
from dtsim.twin.twin import TrainingSet, Twin

BASELINE = "none"
"""Incremental training on real data alone: the baseline of all gains."""

REPEATED = "none, repeated"
"""Real data repeated to fill an update: as many training steps as with generated data, but no new data."""

_OWN, _OTHERS, _FRESH = range(3)


@dataclass(frozen=True)
class Task:
    """One world for measuring every method."""

    drift: str
    config: Config
    generators: Mapping[str, dict[str, Any]]
    """Their configuration groups, by name."""
    samples: Sequence[int]
    """Amounts of real data N."""
    stored: int
    """Number of samples that other MUs uploaded from the region."""
    tested: int
    """Number of test images of each region."""


def measure(task: Task) -> list[dict[str, Any]]:
    """A row for every method and amount of real data, and one for each generator's data alone."""
    bench = _Bench(task)
    rows = []
    for name in task.generators:
        if name != BASELINE:
            rows.append(bench.alone(name))
    for count in task.samples:
        rows += bench.retrained(count)
    world = {"drift": task.drift, "seed": task.config.seed}
    return [world | row for row in rows]


class _Bench:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.ground = prepare(task.config)
        world, parts = self.ground.world, self.ground.parts
        self.world = world
        self.base = self.ground.base
        self.trained_on = learners_of(self.ground).trained_on[0]
        self.wanted = parts.retraining.samples
        self.smoothing, self.memory = parts.twin.smoothing, parts.twin.memory
        self.streams = Streams(task.config.seed)
        self.classes = world.class_distributions.shape[1]
        home = parts.drift.home
        self.region = next(region for region in range(len(world.class_distributions)) if region != home)
        tested = world.held_out(task.tested)
        self.tests = {"new": tested[self.region], "old": tested[home]}
        thirds = [_third(world, number, self.streams.numpy("bench/thirds")) for number in range(3)]
        self.own = self._draw(thirds[_OWN], max(task.samples), "bench/own")
        self.others = self._draw(thirds[_OTHERS], task.stored, "bench/others")
        self.generators: dict[str, Generator] = {
            name: build(node, "generator").build(thirds[_FRESH]) for name, node in task.generators.items()
        }

    def _draw(self, world: World, count: int, stream: str) -> Labelled:
        """`count` samples captured in the new region."""
        random = self.streams.numpy(stream)
        labels = random.choice(self.classes, size=count, p=world.class_distributions[self.region])
        return world.fresh(self.region, labels, random)

    def _twin(self, generator: Generator, count: int) -> Twin:
        """A twin whose store holds the other MUs' uploads and the first `count` of MU 0's own."""
        store = Store(
            regions=len(self.world.class_distributions),
            classes=self.classes,
            capacity=self.task.stored * len(self.world.class_distributions),
            memory=self.memory,
            windows=1,
        )
        store.upload(1, self.region, self.others)
        store.upload(0, self.region, Labelled(self.own.images[:count], self.own.labels[:count]))
        store.close_window()
        return Twin(store=store, generator=generator, users=2, mean_bytes=0.0, smoothing=self.smoothing)

    def _data(self, twin: Twin, count: int) -> TrainingSet:
        data = twin.training_set(
            user=0,
            region=self.region,
            belief=twin.belief(self.region),
            trained_on=self.trained_on,
            wanted=self.wanted,
            generate=True,
            everything=False,
            rng=self.streams.numpy("bench/generation", count),
        )
        assert data is not None  # the MU has uploaded something
        return data

    def alone(self, name: str) -> dict[str, Any]:
        """The base model after a whole update on generated data, without any real sample of the MU."""
        store = self._twin(self.generators[name], 0).store
        belief = smoothed(store.class_counts[self.region], self.smoothing)
        made = self.generators[name].generate(
            belief=belief,
            count=self.wanted,
            region=self.region,
            store=store,
            rng=self.streams.numpy("bench/generation", 0),
        )
        assert made is not None  # the store holds samples of the region
        data = TrainingSet(
            samples=made.samples,
            real=0,
            generated=len(made.samples),
            kl_nat=kl_divergence_nat(smoothed(made.samples.class_counts(self.classes), self.smoothing), belief),
            distribution=belief,
            generator_flop=made.flop,
        )
        return self._row(f"{name} alone", 0, self._trained(data.samples, from_scratch=False, count=0), data)

    def retrained(self, count: int) -> list[dict[str, Any]]:
        """Every method with `count` real samples."""
        plain = self._twin(NoGenerator(), count)
        prior = smoothed(self.trained_on, self.smoothing)
        believed = smoothed(plain.belief(self.region), self.smoothing)
        own = self._data(plain, count)
        # As many steps as with generated data, but no new information: the gain from more training alone.
        wanted = max(count, self.wanted)
        turns = torch.arange(wanted, device=own.samples.labels.device) % count
        repeated = Labelled(own.samples.images[turns], own.samples.labels[turns])
        rows = [
            self._row("before", count, self.base.model),
            self._row("prior_correction", count, corrected(self.base.model, log_ratio(believed, prior))),
            self._row("scratch", count, self._trained(own.samples, from_scratch=True, count=count)),
            self._row(REPEATED, count, self._trained(repeated, from_scratch=False, count=count)),
        ]
        for name, generator in self.generators.items():
            data = self._data(self._twin(generator, count), count)
            if name == "replay":
                model = self._trained(data.samples, from_scratch=True, count=count)
                rows.append(self._row("scratch_with_twin", count, model, data))
            model = self._trained(data.samples, from_scratch=False, count=count)
            rows.append(self._row(name, count, model, data))
        return rows

    def _trained(self, samples: Labelled, *, from_scratch: bool, count: int) -> nn.Module:
        """The base model, or an untrained one, after an update on `samples`; unchanged if the update diverges."""
        learners = learners_of(self.ground)
        update = Update(0, samples, self.streams.torch("bench/retraining", count))
        (result,) = learners.update([update], from_scratch=from_scratch, anew=self.base.untrained)
        return learners.models[0] if isinstance(result, TrainingDiverged) else result

    def _row(self, method: str, count: int, model: nn.Module, data: TrainingSet | None = None) -> dict[str, Any]:
        return {
            "samples_real": count,
            "method": method,
            **{f"accuracy_{place}": accuracy(model, test.images, test.labels) for place, test in self.tests.items()},
            "samples_generated": data.generated if data else 0,
            "kl_nat": data.kl_nat if data else float("nan"),
            "generator_flop": data.generator_flop if data else 0.0,
        }


def _third(world: World, number: int, rng: np.random.Generator) -> World:
    """The same world with one of three disjoint thirds of the increment split, stratified by class."""
    increment = world.splits.increment
    order = torch.from_numpy(rng.permutation(len(increment))).to(increment.labels.device)
    order = order[torch.argsort(increment.labels[order], stable=True)][number::3]
    return World(
        network=world.network,
        traffic=world.traffic,
        drift=world.drift,
        splits=replace(world.splits, increment=Labelled(increment.images[order], increment.labels[order])),
        classes=world.class_distributions.shape[1],
        users=world.users,
        slots_per_frame=world.slots_per_frame,
        streams=world.streams,
        features=world.features,
    )
