"""Build all parts of a run from its configuration alone: data, base model, policy, world and twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dtsim.allocation.allocator import prepared
from dtsim.core.cache import Cache
from dtsim.core.progress import QUIET, Progress
from dtsim.core.seeding import Streams, single_thread
from dtsim.learning.continual import Continual
from dtsim.learning.data.splits import Labelled, Splits
from dtsim.learning.features import Features
from dtsim.learning.learners import Learners
from dtsim.learning.probe import Probe
from dtsim.results.names import LEARNING_CURVE
from dtsim.results.queue_columns import schemas
from dtsim.results.records import Records
from dtsim.runner.base_model import BaseModel, base_model
from dtsim.runner.check import smaller_splits
from dtsim.runner.config import Config
from dtsim.runner.parts import Parts, Shape, device_of
from dtsim.runner.threshold import resolved
from dtsim.simulation.contiguous import ContiguousSimulation
from dtsim.simulation.decision import Decider
from dtsim.simulation.handover import Backhaul
from dtsim.simulation.ledger import Ledger
from dtsim.simulation.loop import Simulation
from dtsim.simulation.power import Power
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.retrainer import Retrainer
from dtsim.simulation.world import World
from dtsim.twin.predictor import Predictor, PredictorPart, held_out_for
from dtsim.twin.store import Store
from dtsim.twin.twin import Twin


@dataclass(frozen=True)
class Ground:
    """The parts of a run before policy and twin: images, the base model and the world."""

    config: Config
    parts: Parts
    device: torch.device
    cache: Cache
    streams: Streams
    splits: Splits
    sample_shape: Shape
    base: BaseModel
    accuracy_threshold: float
    """A_th, if it is given relative to the base model as a number."""
    world: World
    records: Records = field(default_factory=Records)


def prepare(config: Config, progress: Progress = QUIET) -> Ground:
    """Load the images, load or train the base model, and lay out the world.

    Raises:
        ConfigError: if a value is invalid.
        DatasetError: if data are missing or damaged.
        TrainingDiverged: if pre-training fails.
    """
    single_thread()
    parts = Parts(config)
    streams, fixed = Streams(config.seed), Streams(0)  # cached results must not depend on the run's seed
    device = device_of(config.device)
    cache = Cache(config.cache_folder, progress)
    records = Records()
    with records.timed("data"):
        raw = parts.dataset.load(config.cache_folder, progress)
        classes = len(raw.classes)
        splits = _on(device, parts.dataset.split(raw, parts.drift.unseen(classes), fixed.numpy("split")))
    for line in smaller_splits(parts.dataset, splits):
        progress.say(line)
    with records.timed("pretraining"):
        base = base_model(parts, splits, raw.sample_shape, classes, fixed.integer("pretraining"), cache, device)
    accuracy_threshold = resolved(config.accuracy_threshold, base.accuracy)
    records.extend(LEARNING_CURVE, base.curve)
    world = World(
        network=parts.network(device),
        traffic=parts.traffic,
        drift=parts.drift,
        splits=splits,
        classes=classes,
        users=config.mu,
        slots_per_frame=config.slots_per_frame,
        passes=parts.time.passes,
        scored_images=config.scored_images,
        streams=streams,
        schedule=parts.schedule,
        features=None if base.backbone is None else Features(base.backbone, parts.drift),
    )
    return Ground(
        config, parts, device, cache, streams, splits, raw.sample_shape, base, accuracy_threshold, world, records
    )


Watched = Callable[[Predictor, Ground, Learners, Twin], Predictor]
"""Called with the configured predictor and the state of the run; returns the predictor that decides."""


def assemble(
    config: Config,
    progress: Progress = QUIET,
    *,
    watching: Sequence[PredictorPart] = (),
    watched: Watched | None = None,
) -> Simulation | ContiguousSimulation:
    """Build a run from its configuration alone.

    Args:
        config: of the run.
        progress: shows the phases.
        watching: further predictors that need samples held out of the twin's store.
        watched: returns the predictor that decides; None: the configured one.

    Raises:
        ConfigError: if a value is invalid.
        DatasetError: if data are missing or damaged.
        TrainingDiverged: if pre-training or the training of a policy fails.
    """
    ground = prepare(config, progress)
    parts, world, records = ground.parts, ground.world, ground.records
    with records.timed("allocator"):
        mirror = parts.mirror(config, ground.base.cost)
        records.extend(LEARNING_CURVE, prepared(parts.allocator, mirror, ground.cache, progress))
    learners = learners_of(ground)
    twin = _twin(ground, watching)
    predictor = parts.predictor.build(ground.base.accuracy)
    if watched is not None:
        predictor = watched(predictor, ground, learners, twin)
    probe = Probe(world.held_out(config.probe_images))
    recorder = Recorder(
        records=records,
        world=world,
        learners=learners,
        continual=Continual(probe, config.mu),
        scheme=parts.scheme,
        objective=config.objective,
        accuracy_threshold=ground.accuracy_threshold,
    )
    decider = Decider(
        scheme=parts.scheme,
        world=world,
        learners=learners,
        twin=twin,
        predictor=predictor,
        accuracy_threshold=ground.accuracy_threshold,
    )
    retrainer = Retrainer(
        scheme=parts.scheme,
        world=world,
        learners=learners,
        twin=twin,
        untrained=ground.base.untrained,
        probe=probe,
        streams=ground.streams,
        recorder=recorder,
        at_once=parts.retraining.effect == "at_once" and not parts.time.passes,
        progress=progress,
    )
    common: dict[str, Any] = {
        "world": world,
        "learners": learners,
        "twin": twin,
        "decider": decider,
        "retrainer": retrainer,
        "solver": parts.solver,
        "allocator": parts.allocator,
        "min_upload": getattr(parts.allocator, "min_upload", 0.0),  # a user-defined class need not have it
        "scheme": parts.scheme,
        "recorder": recorder,
        "progress": progress,
    }
    if not parts.time.passes:
        return Simulation(**common)
    return _contiguous(ground, probe, common)


def _contiguous(ground: Ground, probe: Probe, common: Mapping[str, Any]) -> ContiguousSimulation:
    """A run in which time passes, from what every run has."""
    parts, cost, records = ground.parts, ground.base.cost, ground.records
    time, energy = parts.time, parts.energy
    records.schemas = schemas(tasks=time.tasks)
    return ContiguousSimulation(
        **common,
        ledger=Ledger(
            records=records,
            downlink_s=ground.world.downlink_s,
            deadline_s=time.deadline_s,
            drop_slots=None if time.drop_after_s is None else math.ceil(time.drop_after_s / time.slot_s - 1e-9),
            slot_s=time.slot_s,
            with_tasks=time.tasks,
        ),
        probe=probe,
        power=Power(
            tx_w=energy.transmit_w(parts.channel),
            mu_j_per_flop=energy.of_flop(ground.world.mu_flops),
            station_j_per_flop=energy.station_j_per_flop,
            weight_s_per_j=energy.weight_s_per_j,
        ),
        backhaul=Backhaul(
            backhaul_bps=time.backhaul_bps,
            downlink_bps=getattr(parts.channel, "downlink_bps", time.backhaul_bps),  # a user-defined class may omit it
            model_bits=32.0 * cost.parameters,
        ),
        trains_when_idle=time.train_when_idle,
        replaces=time.while_training == "replace",
        drop_after_s=time.drop_after_s,
    )


def learners_of(ground: Ground) -> Learners:
    """The models of all MUs, initially all the base model."""
    classes = ground.world.class_distributions.shape[1]
    return Learners(
        base=ground.base.model,
        users=ground.config.mu,
        home=ground.parts.drift.home,
        base_distribution=ground.splits.pretrain.class_counts(classes) / len(ground.splits.pretrain),
        retraining=ground.parts.retraining,
        cost=ground.base.cost,
    )


def _twin(ground: Ground, watching: Sequence[PredictorPart]) -> Twin:
    config, parts = ground.config, ground.parts
    holdout_share, holdout_samples = held_out_for([parts.predictor, *watching])
    return Twin(
        store=Store(
            regions=parts.drift.regions,
            classes=ground.world.class_distributions.shape[1],
            capacity=parts.twin.capacity,
            memory=parts.twin.memory,
            # Only updates from scratch read more than the last window.
            windows=parts.twin.windows if parts.scheme.training == "from_scratch" else 1,
            holdout_share=holdout_share,
            holdout_samples=holdout_samples,
        ),
        generator=parts.generator.build(ground.world),
        users=config.mu,
        mean_bytes=parts.traffic.mean_images * ground.base.cost.sample_bytes,
        smoothing=parts.twin.smoothing,
    )


def _on(device: torch.device, splits: Splits) -> Splits:
    return Splits(
        **{name: Labelled(part.images.to(device), part.labels.to(device)) for name, part in vars(splits).items()}
    )
