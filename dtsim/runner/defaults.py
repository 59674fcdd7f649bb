"""The default configuration, and the choices of its groups."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from dtsim.runner import limits
from dtsim.runner.composition import composed, config_of
from dtsim.runner.config import Config
from dtsim.runner.parts import mirror_of
from dtsim.twin.mirror import Mirror


def default_config(overrides: Sequence[str] = ()) -> Config:
    """The default configuration with `overrides`, such as "channel.bandwidth_hz=1e7".

    Raises:
        ConfigError: if a value of the top level is invalid, or the run would exceed a limit of memory or time.
    """
    config = config_of(composed(list(overrides)))
    limits.check_files(config)
    limits.check([(config, {one.partition("=")[0] for one in overrides})])
    return config


def choices(group: str) -> list[str]:
    """Names of the YAML files of a configuration group, sorted."""
    folder = resources.files("dtsim.conf") / group
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def default_mirror(overrides: Sequence[str] = ()) -> Mirror:
    """The twin's copy of the network that `dtsim run` with `overrides` uses for training its allocator."""
    return mirror_of(default_config(overrides))
