"""Overrides → a configuration: all that composes with Hydra."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.object_type import ObjectType
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dtsim.core.parts import ConfigError
from dtsim.runner import faults
from dtsim.runner.choices import offered
from dtsim.runner.config import Config, typed
from dtsim.runner.hints import hinted, keys_of, no_such_key
from dtsim.runner.values import value_faults

MODULE = "dtsim.conf"
"""Where the YAML files are."""

PRIMARY = "config"
"""The file that all configurations begin with."""

TRACKER = "tracker"
"""The group that says who is told about a run; no run depends on it."""

# Whatever Hydra, OmegaConf and PyYAML raise for a command line or for files of the user's that they cannot take.
REFUSALS = (
    HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, AttributeError, AssertionError,
    KeyError, OSError, RecursionError,
)  # fmt: skip


def config_of(composed: Any, choices: Mapping[str, str] | None = None) -> Config:
    """The typed configuration in what Hydra composed.

    Args:
        composed: the composed configuration.
        choices: the choice made in each group; by default those that Hydra's own node tells.

    Raises:
        ConfigError: with a line for every bad value that its key alone shows to be bad.
    """
    if isinstance(composed.get("experiment"), DictConfig):
        raise ConfigError(["experiment: the file that is chosen must begin with the line # @package _global_"])
    own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    missing = list(_missing(OmegaConf.to_container(own, resolve=False)))
    try:
        plain = OmegaConf.to_container(own, resolve=True)
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        raise ConfigError([_unresolved(own, error)]) from None
    assert isinstance(plain, dict)
    lines = [f"{key}: must be given" for key in missing]
    try:
        values = {str(key): value for key, value in plain.items()}
        config = config_in(values, choices_of(composed.get("hydra")) if choices is None else choices)
    except ConfigError as error:
        keys = [*_groups(""), *keys_of(own)]
        lines += [hinted(line, keys) for line in error.lines if line.partition("=")[0] not in missing]
    if lines:
        raise ConfigError(lines)
    return config


def choices_of(hydra: Any) -> dict[str, str]:
    """The choice made in each of dtsim's groups, by the name of its file, from Hydra's own node; none without it."""
    made = {} if hydra is None else hydra.runtime.choices
    return {
        str(group): choice
        for group, choice in made.items()
        if isinstance(choice, str) and not str(group).startswith("hydra/") and group != TRACKER
    }


def config_in(values: dict[str, Any], choices: Mapping[str, str]) -> Config:
    """The typed configuration of resolved values in plain containers, with the choices that gave them.

    How runs are tracked is none of its keys.

    Raises:
        ConfigError: as `config_of`.
    """
    lines = ["choices: there is no such key"] if "choices" in values else []
    values = {key: value for key, value in values.items() if key != TRACKER}
    try:
        config = typed({**values, "choices": dict(choices)})
    except ConfigError as error:
        config = None
        lines += error.lines
    lines += value_faults(values)
    if config is None or lines:
        raise ConfigError(lines)
    return config


def _missing(node: Any, prefix: str = "") -> Iterator[str]:
    """The keys, dotted, whose value is to be given: `???`."""
    for name, value in node.items() if isinstance(node, dict) else ():
        if value == "???":
            yield f"{prefix}{name}"
        yield from _missing(value, f"{prefix}{name}.")


def _unresolved(own: Any, error: Exception) -> str:
    """Why a `${...}` has no value, in a line that names its key."""
    said = next(iter(str(error).splitlines()), type(error).__name__)
    key = getattr(error, "full_key", None)
    if isinstance(error, RecursionError):
        return "a ${...} of the configuration refers to itself"
    if not key:
        return said
    raw = OmegaConf.to_container(own, resolve=False)
    for step in str(key).split("."):
        raw = raw.get(step) if isinstance(raw, dict) else None
    reason = f"{said[0].lower()}{said[1:]}"
    if missing := re.search(r"key '([^']+)' not found", said):
        reason = f"there is no key {missing[1]}: {no_such_key(missing[1], keys_of(own))}"
    elif missing := re.search(r"Missing mandatory value: (\S+)", said):
        reason = f"{missing[1]} must be given"
    elif variable := re.search(r"Environment variable '([^']+)' not found", said):
        reason = f"the variable {variable[1]} must be set, or have a default: ${{oc.env:{variable[1]},VALUE}}"
    elif kind := re.search(r"Unsupported interpolation type (\S+)", said):
        reason = f"there is no ${{{kind[1]}:...}}: must be a value, ${{another.key}} or ${{oc.env:VARIABLE}}"
    elif "ecursive" in said:
        reason = "leads back to itself: must be a value, or ${another.key}"
    return f"{key}={raw}: {reason}"


# Hydra 1.4 would print this above every answer; 1.3 needs the version to be set.
warnings.filterwarnings("ignore", message=r"\s*The version_base parameter is deprecated")


@cache
def loader() -> ConfigLoaderImpl:
    """What finds and composes the YAML files."""
    version.setbase("1.3")
    setup_globals()
    JobRuntime().set("name", "dtsim")
    return ConfigLoaderImpl(create_config_search_path(f"pkg://{MODULE}"))


def composed(overrides: Sequence[str]) -> Any:
    """What Hydra makes of config.yaml with `overrides`, its own `hydra` node included.

    Raises:
        ConfigError: with a line for each fault that can be told from the others.
    """
    try:
        return _composed(overrides)
    except REFUSALS as error:
        lines, rest = faults.of(error, overrides, Files(overrides), _composed)
    if rest is not None:
        try:
            config_of(rest)
        except ConfigError as error:
            lines += error.lines
    raise ConfigError(lines)


def _composed(overrides: Sequence[str]) -> Any:
    return loader().load_configuration(PRIMARY, list(overrides), run_mode=RunMode.RUN, from_shell=False)


@cache
def _groups(parent: str) -> list[str]:
    found = []
    for name in sorted(set(loader().get_group_options(parent, ObjectType.GROUP))):
        inside = f"{parent}/{name}" if parent else name
        if inside != "hydra" and not name.startswith("_"):
            found += [inside, *_groups(inside)]
    return found


class Files:
    """The YAML files that a command line can choose from."""

    def __init__(self, overrides: Sequence[str]) -> None:
        own = [one for one in overrides if one.startswith("hydra.searchpath=")]
        try:
            _, self._repository = loader()._parse_overrides_and_create_caching_repo(PRIMARY, own)
        except REFUSALS:  # a search path that is none
            _, self._repository = loader()._parse_overrides_and_create_caching_repo(PRIMARY, [])

    def is_group(self, name: str) -> bool:
        """Whether there are choices of that name."""
        return all(offered(part) for part in name.split("/")) and bool(self._repository.group_exists(name))

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        """The names of a group's files, sorted: what Hydra's `glob` asks for."""
        return sorted(set(self._repository.get_group_options(group_name, results_filter)))

    def choices(self, group: str) -> list[str]:
        """The names of a group's files, sorted."""
        return self.get_group_options(group)

    def of_scheme(self, overrides: Sequence[str]) -> list[str]:
        """The choices that a scheme's file makes in other groups, where none is typed: they beat an experiment's."""
        chosen = dict(one.partition("=")[::2] for one in overrides)
        if "experiment" not in chosen or "scheme" not in chosen:
            return []
        loaded = self._repository.load_config(f"scheme/{chosen['scheme']}")
        made = [item for item in (loaded.defaults_list if loaded else None) or [] if item.is_override()]
        groups = {item.group.removeprefix("/"): item.value for item in made}
        return [f"{group}={choice}" for group, choice in groups.items() if group not in chosen]

    def groups(self) -> list[str]:
        """dtsim's groups, and the groups in them."""
        return [group for group in _groups("") if offered(group)]


def is_basic(base: Any) -> bool:
    """Whether a sweep goes through every combination, so that its jobs are known before it starts."""
    return str(base.hydra.sweeper._target_).endswith("BasicSweeper")


def is_study(base: Any) -> bool:
    """Whether Optuna draws the jobs of a sweep."""
    return str(base.hydra.sweeper._target_) == "dtsim.runner.space.StudyKeys"
