"""The parts of a configuration: every class that it names, constructed and checked, without data or training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from dtsim.allocation.allocator import Allocator
from dtsim.association.problem import Solver
from dtsim.core.parts import ConfigError, build, validated
from dtsim.core.progress import QUIET
from dtsim.learning.data.drift import DriftPart
from dtsim.learning.data.source import DatasetPart, KnownLayout
from dtsim.learning.models import ModelCost, ModelPart, measure
from dtsim.learning.training import Retraining, Training
from dtsim.physical.channel import Channel
from dtsim.physical.mobility import Mobility
from dtsim.physical.network import Network
from dtsim.physical.topology import TopologyPart
from dtsim.physical.traffic import Traffic
from dtsim.runner.config import Config, Time
from dtsim.simulation.scheme import Scheme
from dtsim.twin.generator import GeneratorPart
from dtsim.twin.mirror import Mirror
from dtsim.twin.predictor import PredictorPart
from dtsim.twin.twin import TwinConfig

Shape = tuple[int, int, int]

BUILT: dict[str, type] = {
    "topology": TopologyPart,
    "mobility": Mobility,
    "channel": Channel,
    "traffic": Traffic,
    "dataset": DatasetPart,
    "drift": DriftPart,
    "model": ModelPart,
    "pretraining": Training,
    "retraining": Retraining,
    "generator": GeneratorPart,
    "solver": Solver,
    "allocator": Allocator,
}
"""Groups whose YAML names the class to construct, and what it must offer."""


class Parts:
    """The constructed parts of a configuration, by group name, plus `time`, `scheme`, `twin` and `predictor`."""

    topology: TopologyPart
    mobility: Mobility
    channel: Channel
    traffic: Traffic
    dataset: DatasetPart
    drift: DriftPart
    model: ModelPart
    pretraining: Training
    retraining: Retraining
    generator: GeneratorPart
    solver: Solver
    allocator: Allocator
    predictor: PredictorPart
    time: Time
    scheme: Scheme
    twin: TwinConfig
    schedule: np.ndarray | None
    """Region of each MU in each frame where `drift.schedule` says it; [N, K]."""

    def __init__(self, config: Config) -> None:
        """Construct every part.

        Raises:
            ConfigError: with a line for every bad value of every part.
        """
        lines: list[str] = []

        def attempt(name: str, make: Callable[..., object], *arguments: object) -> None:
            try:
                setattr(self, name, make(*arguments))
            except ConfigError as error:
                lines.extend(error.lines)

        for group, protocol in BUILT.items():
            attempt(group, build, getattr(config, group), group, protocol)
        attempt("time", validated, Time, config.time, "time")
        attempt("scheme", validated, Scheme, config.scheme, "scheme")
        attempt("twin", validated, TwinConfig, config.twin, "twin")
        if isinstance(config.twin.get("predictor"), dict):
            attempt("predictor", build, config.twin["predictor"], "twin.predictor", PredictorPart)
        if hasattr(self, "drift"):
            attempt("schedule", self.drift.scheduled, config.mu, config.frames)
        if lines:
            raise ConfigError(lines)
        makes = getattr(self.generator, "trainable", ("all", "head"))  # a user's class need not say
        trainable = getattr(self.retraining, "trainable", "all")
        if trainable not in makes:
            kind = f"generator={type(self.generator).__name__.lower()}"
            raise ConfigError(
                [f"retraining.trainable={trainable!r}: must be {' or '.join(map(repr, makes))} with {kind}"]
            )

    def network(self, device: torch.device | str, dtype: torch.dtype = torch.float64) -> Network:
        """The physical network of these parts."""
        return Network(
            topology=self.topology.build(),
            mobility=self.mobility,
            channel=self.channel,
            slot_s=self.time.slot_s,
            frame_spacing_s=self.time.frame_spacing_s,
            dtype=dtype,
            device=device,
        )

    def mirror(self, config: Config, cost: ModelCost) -> Mirror:
        """The twin's copy of the network, where policies are trained, for a model of that `cost`; on the CPU."""
        return Mirror(
            network=self.network("cpu", torch.float32),
            traffic=self.traffic,
            cost=cost,
            retraining=self.retraining,
            slots_per_frame=config.slots_per_frame,
            config={group: getattr(config, group) for group in ("topology", "mobility", "channel", "traffic")},
        )


def layout_of(dataset: DatasetPart, cache: Path) -> tuple[Shape, int]:
    """(C, H, W) of the images of a data set and its number of classes; a data set that cannot say so is loaded.

    Raises:
        DatasetError: where it has to be read, and cannot be.
    """
    if isinstance(dataset, KnownLayout):
        return dataset.layout()
    raw = dataset.load(cache, QUIET)  # a user's class
    return raw.sample_shape, len(raw.classes)


def mirror_of(config: Config) -> Mirror:
    """The twin's copy of the network for `config` alone: nothing is trained, and no data are read if possible.

    Raises:
        ConfigError: with a line for every bad value of every part.
        DatasetError: where the data set must be read to know the size of its images, and cannot be.
    """
    parts = Parts(config)
    shape, classes = layout_of(parts.dataset, config.cache_folder)
    return parts.mirror(config, measure(parts.model.build(shape, classes, 0), shape))


def device_of(asked: str) -> torch.device:
    """The device that `device=auto|cpu|cuda` means here.

    Raises:
        ConfigError: where a GPU is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise ConfigError(["device='cuda': there is no CUDA GPU here; must be auto or cpu"])
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


def allocator_name(allocator: Mapping[str, object]) -> str:
    """What results call the allocator of a configuration: its class in lower case."""
    return str(allocator["_target_"]).rpartition(".")[2].lower()
