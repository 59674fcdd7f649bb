"""One job: skipped if it is done, else built from its configuration alone, simulated and recorded."""

from __future__ import annotations

import copy
import errno
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from dtsim.core.cache import Cache
from dtsim.core.parts import ConfigError
from dtsim.core.progress import QUIET, Progress
from dtsim.core.seeding import Streams, single_thread
from dtsim.core.terminal import LineProgress, TerminalProgress
from dtsim.learning.continual import Continual
from dtsim.learning.data.splits import DatasetError, Labelled, Splits
from dtsim.learning.features import Features
from dtsim.learning.learners import Learners
from dtsim.learning.models import divided, measure
from dtsim.learning.pretraining import pretrain
from dtsim.learning.probe import Probe
from dtsim.learning.training import TrainingDiverged, accuracy
from dtsim.reporting import run_table
from dtsim.results import files
from dtsim.results.folders import is_done
from dtsim.results.records import Records
from dtsim.runner.config import Config, Parts
from dtsim.runner.lock import HeartbeatProgress, RunLock, run_lock
from dtsim.simulation.loop import Simulation
from dtsim.simulation.retrainer import Retrainer
from dtsim.simulation.world import World
from dtsim.twin.mirror import Mirror
from dtsim.twin.predictor import held_out_for
from dtsim.twin.store import Store
from dtsim.twin.twin import Twin


class JobError(Exception):
    """A run that cannot go on; its message is one line for the person who asked for it."""


def run(config: Config, *, in_sweep: bool = False) -> Path:
    """Do one run and return the folder of its results; a run that is done already is not done again.

    Where another process is doing it, a run of its own waits for that one; a job of a sweep leaves it to come back to.

    Raises:
        JobError: where it cannot be done; the traceback is in the file `failed` of its folder.
        RunLocked: where another process is doing it (`in_sweep`).
        KeyboardInterrupt: where the person stops it; nothing is left that looks finished.
    """
    folder = config.folder
    name = f"{config.scheme['name']} mu={config.mu} seed={config.seed}"
    console = Console(stderr=True)
    shown: Progress = LineProgress(name)
    if console.is_terminal:  # in a sweep, one table shows all jobs
        shown = QUIET if in_sweep else TerminalProgress(console)
    try:
        with run_lock(folder, on_wait=None if in_sweep else shown.say) as lock:
            if is_done(folder) and (lock.waited or not config.fresh):
                shown.say(f"done already: {folder} (--fresh does it again)")
            else:
                _do(config, name, lock, shown)
    except OSError as error:
        raise JobError(f"{name}: {_plain(error)}") from error
    if not in_sweep:
        run_table.show([folder])
    return folder


def _do(config: Config, name: str, lock: RunLock, shown: Progress) -> None:
    """Do a run that this process has to itself."""
    folder = config.folder
    try:
        simulation = assemble(config, HeartbeatProgress(shown, lock))
        with simulation.records.timed("simulation"):
            simulation.run(config.frames)
        topology = simulation.world.network.topology
        files.write(config, simulation.records, model=simulation.learners.cost, topology=topology)
    except KeyboardInterrupt:
        shown.say(f"interrupted in {lock.phase}: nothing of this run was written")
        raise
    except (ConfigError, DatasetError, TrainingDiverged, OSError) as error:
        files.write_failure(folder, error)
        raise JobError(f"{name}: {_plain(error)}") from error
    except Exception as error:
        files.write_failure(folder, error)
        kind = type(error).__name__
        raise JobError(f"{name}: {kind}: {error} (the traceback is in {folder / 'failed'})") from error
    shown.say(f"written: {folder}")


def _plain(error: Exception) -> str:
    """An error as a line that names the path, where it has one."""
    if isinstance(error, OSError) and error.filename is not None:
        freed = "; the same command goes on once there is room" if error.errno == errno.ENOSPC else ""
        return f"{error.filename}: {error.strerror}{freed}"
    return str(error)


def assemble(config: Config, progress: Progress = QUIET) -> Simulation:
    """Build everything a run needs from its configuration alone: data, base model, policy, world and twin.

    Raises:
        ConfigError: for a bad value.
        DatasetError: for missing or damaged data.
        TrainingDiverged: where pre-training fails.
    """
    single_thread()
    parts = Parts(config)
    streams, fixed = Streams(config.seed), Streams(0)  # what is cached must not depend on the run's seed
    device = device_of(config.device)
    cache = Cache(config.cache_folder, progress)
    records = Records()
    with records.timed("data"):
        raw = parts.dataset.load(config.cache_folder, progress)
        classes = len(raw.classes)
        splits = _on(device, parts.dataset.split(raw, parts.drift.unseen(classes), fixed.numpy("split")))
    untrained = parts.model.build(raw.sample_shape, classes, fixed.integer("pretraining")).to(device)
    try:
        cost = measure(untrained, raw.sample_shape, parts.retraining.trainable)
    except ValueError as error:
        raise ConfigError([f"retraining.trainable={parts.retraining.trainable!r}: {error}"]) from None
    with records.timed("pretraining"):
        base = pretrain(
            parts.model,
            parts.pretraining,
            splits,
            classes=classes,
            seed=fixed.integer("pretraining"),
            cache=cache,
            progress=progress,
            device=device,
        )
        model = copy.deepcopy(untrained)
        model.load_state_dict(base.state)
        model.eval()
        base_accuracy = accuracy(model, splits.validation.images, splits.validation.labels)
    features = None
    if parts.retraining.trainable == "head":
        backbone, model = divided(model)
        _, untrained = divided(untrained)
        features = Features(backbone, parts.drift)
    records.extend("learning_curve.csv", base.curve)
    world = World(
        network=parts.network(device),
        traffic=parts.traffic,
        drift=parts.drift,
        splits=splits,
        classes=classes,
        users=config.mu,
        slots_per_frame=config.slots_per_frame,
        streams=streams,
        schedule=parts.schedule,
        features=features,
    )
    regions, labels = np.indices(world.class_distributions.shape).reshape(2, -1)
    shares = {"class": labels, "probability": world.class_distributions.ravel()}
    records.add("regions.csv", region=regions, **shares)
    learners = Learners(
        base=model,
        users=config.mu,
        home=parts.drift.home,
        base_distribution=splits.pretrain.class_counts(classes) / len(splits.pretrain),
        retraining=parts.retraining,
        cost=cost,
    )
    with records.timed("allocator"):
        mirror = Mirror.of(config, parts, learners.cost)
        records.extend("learning_curve.csv", parts.allocator.prepare(mirror, cache, progress))
    holdout_share, holdout_samples = held_out_for([parts.predictor])
    twin = Twin(
        store=Store(
            regions=parts.drift.regions,
            classes=classes,
            users=config.mu,
            capacity=parts.twin.capacity,
            memory=parts.twin.memory,
            windows=parts.twin.windows,
            holdout_share=holdout_share,
            holdout_samples=holdout_samples,
        ),
        generator=parts.generator.build(world),
        users=config.mu,
        mean_bytes=parts.traffic.mean_images * raw.sample_bytes,
        smoothing=parts.twin.smoothing,
    )
    probe = Probe(world.held_out(config.probe_images))
    retrainer = Retrainer(
        scheme=parts.scheme,
        world=world,
        learners=learners,
        twin=twin,
        predictor=parts.predictor.build(base_accuracy),
        accuracy_threshold=config.accuracy_threshold,
        untrained=untrained,
        probe=probe,
        streams=streams,
        records=records,
        progress=progress,
    )
    return Simulation(
        world=world,
        learners=learners,
        twin=twin,
        retrainer=retrainer,
        continual=Continual(probe, config.mu),
        solver=parts.solver,
        allocator=parts.allocator,
        scheme=parts.scheme,
        objective=config.objective,
        accuracy_threshold=config.accuracy_threshold,
        records=records,
        progress=progress,
    )


def device_of(asked: str) -> torch.device:
    """The device that `device=auto|cpu|cuda` means here.

    Raises:
        ConfigError: where a GPU is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise ConfigError(["device='cuda': there is no CUDA GPU here; must be auto or cpu"])
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


def _on(device: torch.device, splits: Splits) -> Splits:
    return Splits(
        **{name: Labelled(part.images.to(device), part.labels.to(device)) for name, part in vars(splits).items()}
    )
