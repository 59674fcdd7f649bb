"""The twin's copy of the network for a configuration alone: no data are read and nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
import torch
from hydra import compose, initialize_config_module

from dtsim.config import Config, Parts
from dtsim.experiment import _MIRRORED
from dtsim.jobs import config_of
from dtsim.learning.learners import Learners
from dtsim.learning.models import measure
from dtsim.physical.network import Network
from dtsim.twin.mirror import Mirror

SAMPLE_SHAPE, CLASSES = (1, 28, 28), 10
"""Fashion-MNIST's, the default data set's."""


def default_config(overrides: Sequence[str] = ()) -> Config:
    """The default configuration with `overrides`, such as "channel.bandwidth_hz=1e7".

    Raises:
        ConfigError: for a bad value of the top level.
    """
    with initialize_config_module("dtsim.conf", version_base="1.3"):
        return config_of(compose("config", overrides=list(overrides), return_hydra_config=True))


def choices(group: str) -> list[str]:
    """Names of the YAML files of a configuration group, sorted."""
    folder = resources.files("dtsim.conf") / group
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def mirror_of(config: Config) -> Mirror:
    """What a run of `config` trains its allocator on, on the CPU.

    Raises:
        ConfigError: with a line for every bad value of every part.
    """
    parts = Parts(config)
    model = parts.model.build(SAMPLE_SHAPE, CLASSES, 0)
    return Mirror(
        network=Network(
            topology=parts.topology.build(),
            mobility=parts.mobility,
            channel=parts.channel,
            slot_s=parts.time.slot_s,
            frame_spacing_s=parts.time.frame_spacing_s,
            dtype=torch.float32,
        ),
        traffic=parts.traffic,
        learners=Learners(
            base=model,
            users=1,
            home=parts.drift.home,
            base_distribution=np.full(CLASSES, 1 / CLASSES),
            retraining=parts.retraining,
            cost=measure(model, SAMPLE_SHAPE),
        ),
        slots_per_frame=config.slots_per_frame,
        config={group: getattr(config, group) for group in _MIRRORED},
    )


def default_mirror() -> Mirror:
    """What `dtsim run` without overrides trains its allocator on."""
    return mirror_of(default_config())
