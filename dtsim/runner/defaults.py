"""The twin's copy of the network for a configuration alone: no data are read and nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from hydra import compose, initialize_config_module

from dtsim.learning.models import measure
from dtsim.runner.config import Config, Parts
from dtsim.runner.jobs import config_of
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
    """What a run of `config` on images like Fashion-MNIST's trains its allocator on.

    Raises:
        ConfigError: with a line for every bad value of every part.
    """
    parts = Parts(config)
    return Mirror.of(config, parts, measure(parts.model.build(SAMPLE_SHAPE, CLASSES, 0), SAMPLE_SHAPE))


def default_mirror() -> Mirror:
    """What `dtsim run` without overrides trains its allocator on."""
    return mirror_of(default_config())
