"""A whole run made of tensors, without files or pre-training: three MUs, two BSs, two regions, three classes.

Every image tells which split it is from and which of its images it is, so that a test can see where it went. A model
knows a class or does not, and learns one from a few images of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.problem import Allocation, AllocationProblem
from dtsim.association.problem import Association, AssociationProblem, answer
from dtsim.core.progress import QUIET
from dtsim.core.seeding import Streams
from dtsim.learning.continual import Continual
from dtsim.learning.data.drift import Drift
from dtsim.learning.data.splits import Labelled, Splits
from dtsim.learning.learners import Learners
from dtsim.learning.models import ModelCost
from dtsim.learning.probe import Probe
from dtsim.learning.training import Retraining
from dtsim.physical.channel import FreeSpace
from dtsim.physical.mobility import Static
from dtsim.physical.network import Network
from dtsim.physical.topology import Hexagonal
from dtsim.physical.traffic import UniformTraffic
from dtsim.results.records import Records
from dtsim.simulation.decision import Decider
from dtsim.simulation.loop import Simulation
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.retrainer import Retrainer
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.world import World
from dtsim.twin.generator import GeneratorPart, Replay
from dtsim.twin.predictor import PredictorPart, RegionAge
from dtsim.twin.store import Store
from dtsim.twin.twin import Twin

USERS, CLASSES, SLOTS = 3, 3, 2
HOME, AWAY = 0, 1
UNSEEN = 2
"""The class that the base model does not know; half of what an MU sees away from home."""
SPLITS = ("pretrain", "validation", "increment", "test")
COST = ModelCost(forward_flop=4e6, training_flop=1.2e7, parameters=12, sample_bytes=4, stored_flop=4e6)
RETRAINING = Retraining(samples=20, epochs=2, scratch_epochs=3, batch_size=10, learning_rate=1.0)
SCHEDULE = np.array([[HOME, HOME, AWAY], [HOME, AWAY, AWAY], [AWAY, AWAY, HOME], [AWAY, AWAY, HOME]])
"""Where the MUs are; [N, K]."""

PROPOSED = Scheme(
    name="proposed",
    associate="frame",
    retrain="frame",
    allocate="slot",
    decision="twin",
    training="incremental",
    generated=True,
    belief="twin",
)
WITHOUT_DT = replace(PROPOSED, name="without_dt", allocate="frame", decision="measured_before", generated=False)
WITHOUT_IL = replace(PROPOSED, name="without_il", training="from_scratch", generated=False)
SINGLE = replace(PROPOSED, name="single_timescale", associate="slot", retrain="slot", decision="measured_now")


def images(split: str, count: int) -> Labelled:
    """`count` images [count, 1, 1, 4]: the label, the split, and which of the split's images it is."""
    labels = torch.arange(count) % CLASSES
    tag = torch.full((count,), SPLITS.index(split))
    number = torch.arange(count)
    pixels = torch.stack([labels, tag, number // 256, number % 256], dim=1)
    return Labelled(pixels.to(torch.uint8).view(count, 1, 1, 4), labels)


def split_of(samples: Labelled) -> set[str]:
    """The splits that `samples` are from."""
    return {SPLITS[tag] for tag in samples.images[:, 0, 0, 1].tolist()}


def numbers(samples: Labelled) -> list[int]:
    """Which of its split's images each of `samples` is."""
    high, low = samples.images[:, 0, 0, 2].long(), samples.images[:, 0, 0, 3].long()
    return (256 * high + low).tolist()


class Knowing(nn.Module):
    """Reads the label off an image and says it where it knows the class; any other it calls class 0."""

    def __init__(self, known: tuple[int, ...]) -> None:
        super().__init__()
        self.head = nn.Linear(CLASSES, CLASSES, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0] = 0.5
            for label in known:
                self.head.weight[label, label] = 1.0

    def forward(self, images: Tensor) -> Tensor:
        """Logits; [N, C]."""
        logits: Tensor = self.head(nn.functional.one_hot(images[:, 0, 0, 0].long(), CLASSES).float())
        return logits


def known_by(model: nn.Module) -> set[int]:
    """The classes that `model` knows."""
    test = images("test", CLASSES)
    with torch.no_grad():
        return {label for label, said in enumerate(model(test.images).argmax(dim=1).tolist()) if said == label}


def world(
    seed: int = 0,
    traffic: UniformTraffic | None = None,
    schedule: np.ndarray | None = SCHEDULE,
    brightness: float = 0.0,
    scored_images: int | None = None,
) -> World:
    """The world of `simulation`."""
    return World(
        network=Network(
            topology=Hexagonal(stations=2, station_flops=[5e9, 8e9], mu_flops=1e9).build(),
            mobility=Static(),
            channel=FreeSpace(),
            slot_s=0.005,
            frame_spacing_s=10.0,
        ),
        traffic=traffic or UniformTraffic(min_images=10, max_images=20),
        drift=Drift(rows=1, columns=2, home=HOME, unseen_classes=[UNSEEN], unseen_mass=0.5, brightness=brightness),
        splits=Splits(images("pretrain", 90), images("validation", 30), images("increment", 300), images("test", 300)),
        classes=CLASSES,
        users=USERS,
        slots_per_frame=SLOTS,
        streams=Streams(seed),
        scored_images=scored_images,
        schedule=schedule,
    )


@dataclass
class Listed:
    """A solver that keeps the problems it is given, and puts MU k at BS k modulo M."""

    problems: list[AssociationProblem] = field(default_factory=list)

    def solve(self, problem: AssociationProblem) -> Association:
        """A fixed answer."""
        self.problems.append(problem)
        station = np.arange(problem.users) % problem.stations
        return answer(problem, station, bound_s=0.0, started=0.0, status="heuristic", solver="listed")


@dataclass
class Halves:
    """An allocator that keeps the problems it is given, has half of all data uploaded, and shares compute by work."""

    problems: list[AllocationProblem] = field(default_factory=list)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Half of the data, whatever is best."""
        self.problems.append(problem)
        compute = Proportional().allocate(problem).compute_flops
        return Allocation(compute_flops=compute, upload_bytes=problem.captured_bytes / 2)


def simulation(
    scheme: Scheme = PROPOSED,
    *,
    threshold: float = 0.9,
    retraining: Retraining = RETRAINING,
    generator: GeneratorPart | None = None,
    predictor: PredictorPart | None = None,
    traffic: UniformTraffic | None = None,
    holdout_share: float = 0.0,
    min_upload: float = 0.0,
    scored_images: int | None = None,
    seed: int = 0,
) -> Simulation:
    """A run of `scheme`, before its first frame."""
    place = world(seed, traffic, scored_images=scored_images)
    learners = Learners(
        base=Knowing((0, 1)),
        users=USERS,
        home=HOME,
        base_distribution=np.array([0.5, 0.5, 0.0]),
        retraining=retraining,
        cost=COST,
    )
    twin = Twin(
        store=Store(
            regions=2,
            classes=CLASSES,
            capacity=600,
            memory=0.5,
            windows=20,
            holdout_share=holdout_share,
            holdout_samples=50,
        ),
        generator=(generator or Replay()).build(place),
        users=USERS,
        mean_bytes=place.traffic.mean_images * COST.sample_bytes,
        smoothing=1e-3,
    )
    probe = Probe(place.held_out(10))
    recorder = Recorder(
        records=Records(),
        world=place,
        learners=learners,
        continual=Continual(probe, USERS),
        scheme=scheme,
        objective="makespan",
        accuracy_threshold=threshold,
    )
    return Simulation(
        world=place,
        learners=learners,
        twin=twin,
        decider=Decider(
            scheme=scheme,
            world=place,
            learners=learners,
            twin=twin,
            predictor=(predictor or RegionAge()).build(0.95),
            accuracy_threshold=threshold,
        ),
        retrainer=Retrainer(
            scheme=scheme,
            world=place,
            learners=learners,
            twin=twin,
            untrained=Knowing(()),
            probe=probe,
            streams=place.streams,
            at_once=retraining.effect == "at_once",
            recorder=recorder,
            progress=QUIET,
        ),
        solver=Listed(),
        allocator=Halves(),
        min_upload=min_upload,
        scheme=scheme,
        recorder=recorder,
        progress=QUIET,
    )
