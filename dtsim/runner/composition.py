"""Command line → configurations: all that composes with Hydra, and what its errors mean in one line."""

from __future__ import annotations

import re
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dtsim.core.parts import ConfigError
from dtsim.runner.config import Config, typed

MODULE = "dtsim.conf"
"""Where the YAML files are."""


def config_of(composed: Any) -> Config:
    """The typed configuration in what Hydra composed.

    Raises:
        ConfigError: with a line for every bad value of the top level.
    """
    try:
        own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
        plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError([f"{error.full_key}: must be given"]) from None
    except OmegaConfBaseException as error:
        raise ConfigError([" ".join(str(error).split())]) from None
    assert isinstance(plain, dict)
    return typed({str(key): value for key, value in plain.items()})


def composed(name: str, overrides: list[str]) -> Any:
    """What Hydra makes of the primary configuration `name` with `overrides`, its own `hydra` node included.

    Raises:
        ConfigError: with one line for what Hydra refuses.
    """
    try:
        with initialize_config_module(MODULE, version_base="1.3"):
            return compose(name, overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # a group given a number is a ValueError
        raise ConfigError([_one_line(error, overrides)]) from None


def _one_line(error: Exception, overrides: list[str]) -> str:
    """Hydra's several lines as one that names the key, the value and what is allowed."""
    text = str(error)
    missing = re.search(r"Could not find '(?P<group>.+)/(?P<choice>[^/']*)'", text)
    plugin = re.search(r"Could not (?:find|load) 'hydra/launcher/(ray|submitit)", text)
    if plugin:
        asked = next((o for o in overrides if o.startswith("hydra/launcher=")), "hydra/launcher")
        return f"{asked}: is not installed: pip install 'dtsim[{'ray' if plugin[1] == 'ray' else 'slurm'}]'"
    if missing:
        options = re.findall(r"^\t(?!provider=)(.+)$", text, flags=re.MULTILINE)
        return f"{missing['group']}={missing['choice']}: must be one of {', '.join(options) or 'none, there are none'}"
    unknown = re.search(r"Could not override '(?P<key>[^']+)'", text)
    if unknown:
        key = unknown["key"]
        given = next((o for o in overrides if o.lstrip("+~").split("=")[0] == key), key)
        return f"{given}: there is no key {key} (dtsim run --help lists them)"
    return " ".join(text.split())


def parsed(overrides: list[str]) -> list[Any]:
    """Hydra's objects for `overrides`.

    Raises:
        ConfigError: where one of them is no override.
    """
    try:
        return list(OverridesParser.create().parse_overrides(overrides))
    except HydraException as error:
        text = " ".join(str(error).split())
        unquoted = [override for override in overrides if override.count("=") > 1]
        if unquoted and "mismatched input '='" in text:  # as in every path to a result
            text = f"{unquoted[0]}: a value with = in it needs quotes: \"key='value'\""
        raise ConfigError([text]) from None


def swept(overrides: list[str]) -> list[str]:
    """Those of `overrides` that give several values."""
    return [o.input_line for o in parsed(overrides) if o.is_sweep_override()]


def without_sweeps(overrides: list[str]) -> list[str]:
    """`overrides` with the first value of each sweep: enough to see the mode and the sweeper."""
    first = BasicSweeper.split_arguments(parsed(overrides), max_batch_size=1)
    return list(first[0][0]) if first and first[0] else []


def expanded(overrides: list[str], base: Any) -> list[list[str]]:
    """The overrides of every job of a sweep, in the basic sweeper's order."""
    if not is_basic(base):
        return [without_sweeps(overrides)]  # only the sweeper itself knows what it will try
    parameters = OmegaConf.to_container(base.hydra.sweeper.params or OmegaConf.create({}))
    assert isinstance(parameters, dict)
    given = {o.get_key_element() for o in parsed(overrides)}
    added = [f"{key!s}={value}" for key, value in parameters.items() if key not in given]
    batches = BasicSweeper.split_arguments(parsed([*added, *overrides]), max_batch_size=None)
    return [list(job) for batch in batches for job in batch]


def is_basic(base: Any) -> bool:
    """Whether a sweep goes through every combination, so that its jobs are known before it starts."""
    return str(base.hydra.sweeper._target_).endswith("BasicSweeper")
