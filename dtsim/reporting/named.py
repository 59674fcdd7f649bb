"""The names of choices: what was typed for a group, such as `umi`, in place of the class that it configures.

A run notes them. For a run that does not, they are found among the YAML files of the package by class and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def names_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The choice of each group by the group's dotted name, from the content of a `result.json`.

    A group whose choice is neither noted nor known has the name of its class.
    """
    noted = result.get("choices")
    found = {group: _of_class(group, values) for group, values in _groups(result["config"])}
    return {**found, **{group.replace("/", "."): name for group, name in (noted or {}).items()}}


def _groups(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every group that names a class, with its keys."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            if isinstance(value.get("_target_"), str):
                yield f"{prefix}{key}", value
            yield from _groups(value, f"{prefix}{key}.")


def _of_class(group: str, values: Mapping[str, Any]) -> str:
    """The packaged choice of that class with the fewest other values; without one, the name of the class."""
    target = str(values["_target_"])
    alike = [(name, keys) for name, keys in _packaged(group) if keys.get("_target_") == target]
    if not alike:
        return target.rpartition(".")[2]
    return min(alike, key=lambda one: sum(values.get(key) != value for key, value in one[1].items()))[0]


@cache
def _packaged(group: str) -> list[tuple[str, dict[str, Any]]]:
    """Every choice of a group with its plain values."""
    folder = resources.files("dtsim.conf").joinpath(*group.split("."))
    if not folder.is_dir():
        return []
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return [(file.name.removesuffix(".yaml"), _values(folder, file)) for file in files]


def _values(folder: Traversable, file: Traversable) -> dict[str, Any]:
    """The plain values of a file, with those that it inherits."""
    content = yaml.load(file.read_text(encoding="utf-8"), _LOADER) or {}
    values: dict[str, Any] = {}
    for parent in content.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            place = parent.partition("@")[0]
            root = resources.files("dtsim.conf") if place.startswith("/") else folder
            values |= _values(folder, root.joinpath(*f"{place.lstrip('/')}.yaml".split("/")))
    return values | {key: value for key, value in content.items() if "${" not in str(value)}
