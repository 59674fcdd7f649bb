"""Build all parts of a run from its configuration alone: data, base model, policy, world and twin."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from dtsim.allocation.allocator import prepared
from dtsim.core.cache import Cache
from dtsim.core.parts import ConfigError
from dtsim.core.progress import QUIET, Progress
from dtsim.core.seeding import Streams, single_thread
from dtsim.learning.continual import Continual
from dtsim.learning.data.splits import Labelled, Splits
from dtsim.learning.features import Features
from dtsim.learning.learners import Learners
from dtsim.learning.models import ModelCost, divided
from dtsim.learning.pretraining import pretrain
from dtsim.learning.probe import Probe
from dtsim.learning.training import accuracy
from dtsim.results.names import LEARNING_CURVE
from dtsim.results.records import Records
from dtsim.runner.check import smaller_splits
from dtsim.runner.config import Config
from dtsim.runner.parts import Parts, Shape, device_of
from dtsim.runner.threshold import resolved
from dtsim.simulation.decision import Decider
from dtsim.simulation.loop import Simulation
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.retrainer import Retrainer
from dtsim.simulation.world import World
from dtsim.twin.predictor import Predictor, PredictorPart, held_out_for
from dtsim.twin.store import Store
from dtsim.twin.twin import Twin


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
        base = _base_model(parts, splits, raw.sample_shape, classes, fixed.integer("pretraining"), cache, device)
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
) -> Simulation:
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
    return Simulation(
        world=world,
        learners=learners,
        twin=twin,
        decider=Decider(
            scheme=parts.scheme,
            world=world,
            learners=learners,
            twin=twin,
            predictor=predictor,
            accuracy_threshold=ground.accuracy_threshold,
        ),
        retrainer=Retrainer(
            scheme=parts.scheme,
            world=world,
            learners=learners,
            twin=twin,
            untrained=ground.base.untrained,
            probe=probe,
            streams=ground.streams,
            recorder=recorder,
            progress=progress,
        ),
        solver=parts.solver,
        allocator=parts.allocator,
        min_upload=getattr(parts.allocator, "min_upload", 0.0),  # a user-defined class need not have it
        scheme=parts.scheme,
        recorder=recorder,
        progress=progress,
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


def _base_model(
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


def _on(device: torch.device, splits: Splits) -> Splits:
    return Splits(
        **{name: Labelled(part.images.to(device), part.labels.to(device)) for name, part in vars(splits).items()}
    )
