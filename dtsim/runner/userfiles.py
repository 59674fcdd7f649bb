"""The YAML files of a folder of the user's, checked before Hydra reads them: file, line and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

try:
    from omegaconf._yaml import get_yaml_loader  # type: ignore[import-not-found]
except ImportError:  # before omegaconf 2.4
    from omegaconf._utils import get_yaml_loader

_MOST_BYTES = 1_000_000
_MOST_NODES = 100_000
"""Of one file, with what its aliases repeat."""


def file_faults(folder: Path, groups: Sequence[str]) -> list[str]:
    """A line for each fault of the choices in `folder`, and for a circle of their defaults lists.

    Args:
        folder: given with --config-dir.
        groups: whose choices Hydra looks for in it.
    """
    lines: list[str] = []
    nodes: dict[str, yaml.MappingNode] = {}
    for file in sorted(file for group in groups for file in (folder / group).glob("*.yaml")):
        try:
            if (node := _read(file)) is not None:
                nodes[str(file.relative_to(folder).with_suffix(""))] = node
        except _Fault as fault:
            lines.append(f"{file}{fault}")
        except OSError as error:
            lines.append(f"{file}: {error.strerror}")
    return lines or _circles(folder, nodes)


class _Fault(Exception):
    """What is wrong with a file: its line, where that is known, and a sentence."""

    def __init__(self, said: str, mark: yaml.Mark | None = None) -> None:
        super().__init__(f":{mark.line + 1}: {said}" if mark else f": {said}")


def _read(file: Path) -> yaml.MappingNode | None:
    """The nodes of a file that Hydra can read; none where it is empty.

    Raises:
        _Fault: where Hydra could not read it, or would not end.
    """
    if not file.is_file():  # a FIFO would be waited on for ever
        raise _Fault("must be a file")
    size = file.stat().st_size
    if size > _MOST_BYTES:
        raise _Fault(f"has {size:,} bytes; a configuration must have at most {_MOST_BYTES:,}")
    try:
        text = file.read_bytes().decode("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        if not isinstance(node, yaml.MappingNode):
            raise _Fault("must hold keys and values, as in key: value", node.start_mark)
        if _size(node, {}) > _MOST_NODES:
            raise _Fault(f"its aliases repeat more than {_MOST_NODES:,} values")
        yaml.load(text, Loader=get_yaml_loader())  # OmegaConf's, which refuses tags and a key given twice
    except yaml.MarkedYAMLError as error:
        raise _Fault(_said(error), error.problem_mark or error.context_mark) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise _Fault(f"must be a YAML file in UTF-8 ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise _Fault("is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise _Fault(f"cannot be read as YAML ({error})") from None
    for item in _defaults(node):
        is_name = isinstance(item, yaml.ScalarNode) and item.tag.endswith(":str")
        if not is_name and not (isinstance(item, yaml.MappingNode) and item.value):
            raise _Fault("must be a name, or group: choice", item.start_mark)
    return node


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, with each alias counted as what it repeats."""
    if id(node) not in known:
        known[id(node)] = 1  # ends the recursion where a node contains itself
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in flat)
    return known[id(node)]


def _said(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's words for people."""
    problem = error.problem or "is no YAML"
    if "\\t" in problem:
        return "must be indented with spaces, not with a tab"
    if "could not determine a constructor" in problem:
        return f"the tag {problem.rpartition('for the tag ')[2]} is refused, a configuration holds plain values"
    return f"{problem} ({error.context})" if error.context else problem


def _defaults(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    """The entries of a file's defaults list."""
    for key, value in node.value:
        if key.value == "defaults":
            if not isinstance(value, yaml.SequenceNode):
                raise _Fault("defaults must be a list", value.start_mark)
            yield from value.value


def _circles(folder: Path, nodes: dict[str, yaml.MappingNode]) -> list[str]:
    """A line where the defaults lists of some of the files lead back to one of them."""
    following = {name: [_named(name, item) for item in _defaults(node)] for name, node in nodes.items()}

    def way_back(target: str, start: str, seen: tuple[str, ...]) -> tuple[str, ...] | None:
        for name in following.get(start, ()):
            if name == target:
                return (*seen, start)
            if name not in (*seen, start) and (found := way_back(target, name, (*seen, start))):
                return found
        return None

    for name in following:
        if circle := way_back(name, name, ()):
            shown = " → ".join(f"{step}.yaml" for step in (*circle, name))
            return [f"{folder / name}.yaml: its defaults list leads back to itself: {shown}"]
    return []


def _named(name: str, item: Any) -> str:
    """The file that an entry of the defaults list of `name` means."""
    group = name.rpartition("/")[0]
    if isinstance(item, yaml.ScalarNode):
        path = str(item.value)
    else:
        key, value = item.value[0]
        path = f"{str(key.value).split(' ')[-1]}/{value.value}"
    path = path.partition("@")[0]
    return path[1:] if path.startswith("/") else f"{group}/{path}" if group else path
