"""The parts of a configuration: all classes that it names, constructed and checked, without data or training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from dtsim.allocation.allocator import Allocator
from dtsim.association.problem import Solver
from dtsim.core.parts import ConfigError, build, validated
from dtsim.core.progress import QUIET
from dtsim.learning.data.drift import DriftPart
from dtsim.learning.data.source import DatasetPart, KnownLayout
from dtsim.learning.models import ModelCost, ModelPart
from dtsim.learning.pretraining import Pretraining
from dtsim.learning.training import Retraining
from dtsim.physical.channel import Channel
from dtsim.physical.energy import Energy
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


@runtime_checkable
class ReadsFile(Protocol):
    """A part that takes what it needs from a file, which may hold too little for a run."""

    def check_fits(self, **needs: Any) -> None:
        """Check that the file holds what the run needs.

        Raises:
            ValueError: in one line that begins with the key.
        """


BUILT: dict[str, type] = {
    "topology": TopologyPart,
    "mobility": Mobility,
    "channel": Channel,
    "traffic": Traffic,
    "dataset": DatasetPart,
    "drift": DriftPart,
    "model": ModelPart,
    "pretraining": Pretraining,
    "retraining": Retraining,
    "generator": GeneratorPart,
    "solver": Solver,
    "allocator": Allocator,
}
"""Groups whose YAML names a class, and the interface that the class must implement."""


class Parts:
    """The constructed parts of a configuration, by group name, plus `time`, `scheme`, `twin` and `predictor`."""

    topology: TopologyPart
    mobility: Mobility
    channel: Channel
    traffic: Traffic
    dataset: DatasetPart
    drift: DriftPart
    model: ModelPart
    pretraining: Pretraining
    retraining: Retraining
    generator: GeneratorPart
    solver: Solver
    allocator: Allocator
    predictor: PredictorPart
    time: Time
    energy: Energy
    scheme: Scheme
    twin: TwinConfig
    schedule: np.ndarray | None
    """Region of each MU in each frame if `drift.schedule` gives it; [N, K]."""

    def __init__(self, config: Config) -> None:
        """Construct every part.

        Raises:
            ConfigError: with a line for every invalid value of every part.
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
        attempt("energy", validated, Energy, config.energy, "energy")
        attempt("scheme", validated, Scheme, config.scheme, "scheme")
        attempt("twin", validated, TwinConfig, config.twin, "twin")
        if isinstance(config.twin.get("predictor"), dict):
            attempt("predictor", build, config.twin["predictor"], "twin.predictor", PredictorPart)
        if hasattr(self, "drift"):
            attempt("schedule", self.drift.scheduled, config.mu, config.frames)
        if not lines:
            lines += self._misfits(config)
        if lines:
            raise ConfigError(lines)
        makes = getattr(self.generator, "trainable", ("all", "head"))  # a user-defined class may omit it
        trainable = getattr(self.retraining, "trainable", "all")
        if trainable not in makes:
            kind = f"generator={type(self.generator).__name__.lower()}"
            raise ConfigError(
                [f"retraining.trainable={trainable!r}: must be {' or '.join(map(repr, makes))} with {kind}"]
            )

    def _misfits(self, config: Config) -> list[str]:
        """A line for each part whose file does not hold what the run needs; only parts that read one check it."""
        topology = self.topology.build()
        slots = config.slots_per_frame
        moving_s = (config.frames - 1) * self.time.frame_spacing_s
        if self.time.passes:
            moving_s = (config.frames * slots - 1) * self.time.slot_s
        needs: dict[str, dict[str, Any]] = {
            "mobility": {"seconds": moving_s, "area_m": topology.area_m},
            "channel": {"stations": topology.stations, "frames": config.frames, "slots": slots},
            "traffic": {"slots": config.frames * slots},
        }
        lines = self._untimely()
        origins = [getattr(part, "origin", None) for part in (self.topology, self.mobility)]
        if None not in origins and origins[0] != origins[1]:
            lines.append(f"mobility.origin={origins[1]}: must be topology.origin={origins[0]}, or users are elsewhere")
        for group, own in needs.items():
            part = getattr(self, group)
            if isinstance(part, ReadsFile):
                try:
                    part.check_fits(users=config.mu, **own)
                except ValueError as error:
                    lines.append(f"{group}.{error}")
        return lines

    def _untimely(self) -> list[str]:
        """A line for each part that cannot be used in the mode of time."""
        name = type(self.allocator).__name__
        if not self.time.passes:
            if getattr(self.allocator, "contiguous_only", False):
                return [f"allocator: {name} decides among queues, and needs time=contiguous"]
            return []
        fading = getattr(self.channel, "fading", "none")
        if getattr(self.allocator, "contiguous_only", False) and fading not in ("rayleigh", "none"):
            return [
                f"channel.fading={fading}: must be rayleigh or none with an allocator that learns among queues ({name})"
            ]
        if getattr(self.channel, "fixed_frames", False):
            return [f"channel: {type(self.channel).__name__} has gains of frames, and needs time=snapshots"]
        return []

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
        """The twin's copy of the network, for training policies, with a model of that `cost`; on the CPU."""
        return Mirror(
            network=self.network("cpu", torch.float32),
            traffic=self.traffic,
            cost=cost,
            retraining=self.retraining,
            slots_per_frame=config.slots_per_frame,
            config={group: config.content(group) for group in ("topology", "mobility", "channel", "traffic")},
        )


def layout_of(dataset: DatasetPart, cache: Path) -> tuple[Shape, int]:
    """(C, H, W) of a data set's images and its number of classes; the data set is loaded if it cannot tell them.

    Raises:
        DatasetError: if the data set must be read and cannot be.
    """
    if isinstance(dataset, KnownLayout):
        return dataset.layout()
    raw = dataset.load(cache, QUIET)  # a user-defined class
    return raw.sample_shape, len(raw.classes)


def mirror_of(config: Config) -> Mirror:
    """The twin's copy of the network for `config` alone; nothing is trained, and data are read only if necessary.

    Raises:
        ConfigError: with a line for every invalid value of every part.
        DatasetError: if the data set must be read to get the size of its images, and cannot be.
    """
    parts = Parts(config)
    shape, classes = layout_of(parts.dataset, config.cache_folder)
    return parts.mirror(config, parts.retraining.cost(parts.model.build(shape, classes, 0), shape))


def device_of(asked: str) -> torch.device:
    """The torch device for `device=auto|cpu|cuda` on this machine.

    Raises:
        ConfigError: if a GPU is requested and there is none.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise ConfigError(["device='cuda': there is no CUDA GPU here; must be auto or cpu"])
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


def allocator_name(allocator: Mapping[str, object]) -> str:
    """Name of a configuration's allocator in results: its class in lower case."""
    return str(allocator["_target_"]).rpartition(".")[2].lower()
