"""The choices of every configuration group, read off the YAML files: names, what they are, keys and values.

A file may inherit from another one of its group (`defaults: [none]`), or from a file below `conf/_base`: what several
choices have in common, and no choice itself. Nothing here composes a configuration or imports a class: it is quick.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from dtsim.core.fields import Key, described

CLASSES = {
    "": "dtsim.runner.config.Config",
    "time": "dtsim.runner.config.Time",
    "energy": "dtsim.physical.energy.Energy",
    "scheme": "dtsim.simulation.scheme.Scheme",
    "twin": "dtsim.twin.twin.TwinConfig",
}
"""The class of each group whose files name none."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where PyYAML has it
_HERE = re.compile(r"^(?P<path>[\w/]+)(@[\w.]+)?$")


def offered(name: str) -> bool:
    """Whether a group or choice of this name is for people: the bases of others, in `_base`, are not."""
    return not name.startswith("_")


@dataclass(frozen=True)
class Value:
    """What a file says about a key."""

    text: str
    """Its value as written."""
    comment: str
    """What stands behind it; empty where nothing does."""
    line: int
    """Where it stands, counted from 0."""


@dataclass(frozen=True)
class Choice:
    """A YAML file of a group."""

    group: str
    name: str
    source: str
    """Its whole text."""

    @cached_property
    def about(self) -> str:
        """Its first comment: what the choice is."""
        comments = (line.lstrip("# ") for line in self.source.splitlines() if line.startswith("#"))
        return next((comment for comment in comments if not comment.startswith("@package")), "")

    @cached_property
    def _root(self) -> yaml.MappingNode | None:
        try:
            root = yaml.compose(self.source, _LOADER)
        except yaml.YAMLError:
            return None  # Hydra says so where the choice is made
        return root if isinstance(root, yaml.MappingNode) else None

    @cached_property
    def defaults(self) -> list[str | tuple[str, str]]:
        """The files that it inherits from, and (group, choice) of the groups below it."""
        found: list[str | tuple[str, str]] = []
        for key, value in self._root.value if self._root else ():
            if key.value == "defaults" and isinstance(value, yaml.SequenceNode):
                for entry in value.value:
                    if isinstance(entry, yaml.ScalarNode):
                        found.append(entry.value)
                    elif isinstance(entry, yaml.MappingNode):
                        found += [(name.value, str(choice.value)) for name, choice in entry.value]
        return found

    @cached_property
    def own(self) -> dict[str, Value]:
        """The keys that the file itself sets; those of a group in it are dotted."""
        lines = self.source.splitlines()
        prefix = f"{self.group.replace('/', '.')}." if "@package _global_" in self.source else ""
        own = dict(_values(self._root, lines)) if self._root else {}
        if prefix and self.group != "experiment":
            own = {key.removeprefix(prefix): value for key, value in own.items() if key.startswith(prefix)}
        return own


class Conf:
    """The packaged configuration, and a folder with more choices beside it."""

    def __init__(self, config_dir: str | Path | None = None) -> None:
        roots: list[Traversable] = [importlib.resources.files("dtsim.conf")]
        self._roots = [*roots, Path(config_dir)] if config_dir else roots

    @cached_property
    def main(self) -> Choice:
        """`conf/config.yaml`: the top-level keys and one choice for each group."""
        return Choice("", "config", self._roots[0].joinpath("config.yaml").read_text(encoding="utf-8"))

    @cached_property
    def groups(self) -> dict[str, dict[str, Choice]]:
        """Every group that is offered, with its choices by name; of two of one name the packaged one counts."""
        found: dict[str, dict[str, Choice]] = {}
        for root in self._roots:
            for group, choice in _choices(root, ""):
                if offered(group):
                    found.setdefault(group, {}).setdefault(choice.name, choice)
        return found

    @cached_property
    def default(self) -> dict[str, str]:
        """The choice of each group that is made where nobody makes one."""
        made: dict[str, str] = {}
        left = [("", self.main)]
        while left:
            group, file = left.pop()
            for entry in file.defaults:
                if isinstance(entry, tuple) and not entry[0].startswith("override") and entry[1] != "null":
                    name = f"{group}/{entry[0]}".lstrip("/")
                    made[name] = entry[1]
                    if (below := self.find(name, entry[1])) is not None:
                        left.append((name, below))
        return made

    def find(self, group: str, name: str) -> Choice | None:
        """The file of a choice, or of a base; None where there is none."""
        for root in self._roots:
            file = root.joinpath(*group.split("/"), f"{name}.yaml")
            if file.is_file():
                return Choice(group, name, file.read_text(encoding="utf-8"))
        return None

    def lineage(self, choice: Choice) -> list[Choice]:
        """The files that `choice` inherits from, the nearest first."""
        found: list[Choice] = []
        while True:
            parents = [found_one for entry in choice.defaults if (found_one := self._parent(choice, entry))]
            if not parents or parents[-1] in found or len(found) > 9:
                return found
            choice = parents[-1]
            found.append(choice)

    def _parent(self, choice: Choice, entry: str | tuple[str, str]) -> Choice | None:
        match = _HERE.match(entry) if isinstance(entry, str) else None
        if match is None or match["path"] == "_self_":
            return None
        path = match["path"]
        group, _, name = (path[1:] if path.startswith("/") else f"{choice.group}/{path}").rpartition("/")
        return self.find(group, name)

    def values(self, choice: Choice) -> dict[str, Value]:
        """All keys of a choice with the values that they have in it, inherited ones first."""
        merged: dict[str, Value] = {}
        for file in [*reversed(self.lineage(choice)), choice]:
            merged |= file.own
        return merged

    def class_of(self, choice: Choice) -> str | None:
        """The class that a choice configures: its `_target_`, or that of its group."""
        target = self.values(choice).get("_target_")
        return target.text if target else CLASSES.get(choice.group)

    def keys(self, choice: Choice) -> dict[str, tuple[str, Key]]:
        """Value and meaning of every key of a choice; what no class describes has its comment for a description."""
        target = self.class_of(choice)
        known = {key.name: key for key in described(target)} if target else {}
        return {
            name: (value.text, known.get(name) or Key(name, "", "", "", None, value.comment))
            for name, value in self.values(choice).items()
            if name != "_target_"
        }


def _choices(root: Traversable, prefix: str) -> Iterator[tuple[str, Choice]]:
    """Every group below `root` with each of its files, sorted."""
    if not root.is_dir():
        return
    for folder in sorted((entry for entry in root.iterdir() if entry.is_dir()), key=lambda entry: entry.name):
        group = f"{prefix}{folder.name}"
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".yaml"):
                name = file.name.removesuffix(".yaml")
                yield group, Choice(group, name, file.read_text(encoding="utf-8"))
        yield from _choices(folder, f"{group}/")


def _values(node: yaml.MappingNode, lines: list[str], prefix: str = "") -> Iterator[tuple[str, Value]]:
    """(dotted key, value) of every key of a mapping but `defaults`."""
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name == "defaults":
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _values(value, lines, f"{name}.")
            continue
        start, end = value.start_mark, value.end_mark
        if start.line == end.line:
            text, behind = lines[start.line][start.column : end.column], lines[end.line][end.column :]
        else:
            text, behind = " ".join(" ".join(lines[start.line : end.line + 1]).partition(":")[2].split()), ""
        yield name, Value(text, behind.partition("#")[2].strip(), start.line)
