"""The page of all keys, made from the classes that check them and from the YAML files that set them."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic_core import PydanticUndefined

from dtsim.runner.config import Config, Time
from dtsim.simulation.scheme import Scheme
from dtsim.twin.twin import TwinConfig

CONF = Path(__file__).resolve().parents[1] / "conf"
TYPED: dict[str, type] = {"scheme": Scheme, "twin": TwinConfig, "time": Time}
"""Groups whose class no YAML file names."""
_UNITS = {
    "hz": "Hz", "dbm": "dBm", "db": "dB", "bps": "bit/s", "mps": "m/s", "m": "m", "s": "s", "rad": "rad",
    "deg": "°", "bytes": "byte", "flops": "FLOP/s", "nat": "nat", "min": "min", "gb": "GB",
    "images": "images", "samples": "samples", "frames": "frames", "slots": "slots", "steps": "steps",
    "epochs": "epochs",
}  # fmt: skip
_TYPES = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", NoneType: "`null`"}
_BOUNDS = {"gt": ">\u00a0{}", "ge": "≥\u00a0{}", "lt": "<\u00a0{}", "le": "≤\u00a0{}"}


@dataclass(frozen=True)
class Key:
    """A key of the configuration, as a page shows it."""

    name: str
    type: str
    unit: str
    allowed: str
    default: str
    description: str


@cache
def described(cls: type) -> list[Key]:
    """The keys of a part, in order: its fields with their checks, defaults and the docstrings under them."""
    said = _docstrings(cls)
    checks: dict[str, Any] = getattr(cls, "__pydantic_fields__", {})
    keys = []
    for field in fields(cls):
        check = checks[field.name]
        kind, options = _kind(check.annotation)
        keys.append(
            Key(
                name=field.name,
                type=kind,
                unit=_unit(field.name),
                allowed=", ".join([*options, *_bounds(check.metadata)]),
                default=_default(check),
                description=said.get(field.name, ""),
            )
        )
    return keys


def _docstrings(cls: type) -> dict[str, str]:
    """The docstring under each field of `cls` and of the classes that it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] != "dtsim":
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = (
                    after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
                )
                if text and isinstance(text, str):
                    found[statement.target.id] = " ".join(text.split())
    return found


def _kind(annotation: Any) -> tuple[str, list[str]]:
    """A type in words, and the values that it allows where they can be listed."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return "choice", [f"`{value}`" for value in inner]
    if origin in (Union, UnionType):
        kinds, options = zip(*(_kind(one) for one in inner), strict=True)
        return " or ".join(dict.fromkeys(kinds)), [option for some in options for option in some]
    if origin is list:
        return "list of " + _kind(inner[0])[0].replace("list", "lists").replace("number", "numbers"), []
    if origin is dict:
        return "group", []
    return _TYPES.get(annotation, getattr(annotation, "__name__", str(annotation))), []


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for check in metadata:
        for name, words in _BOUNDS.items():
            if (bound := getattr(check, name, None)) is not None:
                yield words.format(_number(bound))


def _unit(name: str) -> str:
    return _UNITS.get(name.rpartition("_")[2], "")


def _default(check: Any) -> str:
    if check.default_factory is not None:
        return f"`{shown(check.default_factory())}`"
    return "" if check.default in (PydanticUndefined, MISSING, ...) else f"`{shown(check.default)}`"


def _number(value: float) -> str:
    return f"{value:,.6g}".replace(",", " ") if isinstance(value, int | float) else str(value)


def shown(value: Any) -> str:
    """A value as a command line takes it."""
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:.6g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.6g}".replace("e-0", "e-")
    if isinstance(value, list):
        return f"[{', '.join(shown(one) for one in value)}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


@dataclass(frozen=True)
class Choice:
    """A YAML file of a group."""

    name: str
    says: str
    """Its first comment."""
    target: type | None
    values: dict[str, Any]
    also: dict[str, Any]
    """What it sets outside of its group."""


def groups() -> list[str]:
    """Every group of choices below `conf`, such as channel and twin/predictor."""
    return sorted({str(file.parent.relative_to(CONF)) for file in CONF.rglob("*/*.yaml")})


def choices(group: str) -> list[Choice]:
    """The choices of a group; the one that `dtsim run` takes first."""
    found = [_choice(group, file) for file in sorted((CONF / group).glob("*.yaml"))]
    usual = usual_choices().get(group)
    return sorted(found, key=lambda choice: (choice.name != usual, choice.name))


@cache
def usual_choices() -> dict[str, str]:
    """The choice of each group that `dtsim run` takes without overrides."""
    found: dict[str, str] = {}
    for group, file in (("", "config"), ("twin/", "twin/default")):
        for entry in _loaded(CONF / f"{file}.yaml").get("defaults", []):
            if isinstance(entry, dict):
                found |= {f"{group}{name}": value for name, value in entry.items() if value and " " not in name}
    return found


def _loaded(file: Path) -> dict[str, Any]:
    # YAML 1.1 takes 1e9 for a text; Hydra does not.
    loader = yaml.SafeLoader(file.read_text())
    loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    loaded: dict[str, Any] = loader.get_single_data()
    return loaded


def _merged(group: str, file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of a file with those that it takes from other files of its group, and its choices for other groups."""
    own = _loaded(file)
    inherited: dict[str, Any] = {}
    also: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and (file.parent / f"{entry}.yaml").is_file():
            values, more = _merged(group, file.parent / f"{entry}.yaml")
            inherited |= values
            also |= more
        elif isinstance(entry, dict):
            also |= {key.removeprefix("override ").lstrip("/"): value for key, value in entry.items() if value}
    if "@package _global_" in file.read_text():
        also |= {key: value for key, value in _flat(own) if not key.startswith(f"{group}.")}
        own = own.get(group, {})
    return inherited | own, also


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _choice(group: str, file: Path) -> Choice:
    values, also = _merged(group, file)
    name = values.pop("_target_", None)
    target = TYPED.get(group)
    if isinstance(name, str):
        module, _, attribute = name.rpartition(".")
        target = getattr(import_module(module), attribute)
    comments = (line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    says = next((comment for comment in comments if not comment.startswith("@package")), "")
    return Choice(file.stem, says, target, values, also)


def group_section(group: str) -> str:
    """Markdown of a group: its choices, and the keys of each of their classes."""
    found = choices(group)
    usual = usual_choices().get(group)
    rows = [f"| `{group}=` | what it is | sets |", "| --- | --- | --- |"]
    for choice in found:
        sets = "".join(f" `{_set(key, value)}`" for key, value in _flat(_differing(choice)) if key != "name")
        more = "".join(f" `{key}={shown(value)}`" for key, value in choice.also.items() if key not in usual_choices())
        chosen = "".join(f" `{key}={value}`" for key, value in choice.also.items() if key in usual_choices())
        mark = " (default)" if choice.name == usual else ""
        rows.append(f"| `{choice.name}`{mark} | {_cell(choice.says)} | {(sets + more + chosen).strip() or '–'} |")
    blocks = ["\n".join(rows)]
    by_class: dict[type, list[str]] = {}
    for choice in found:
        if choice.target is not None:
            by_class.setdefault(choice.target, []).append(choice.name)
    prefix = group.replace("/", ".") + "."
    own = {cls: described(cls) for cls in by_class}
    keyed = [keys for keys in own.values() if keys]
    shared = [key for key in keyed[0] if all(key in keys for keys in keyed)] if len(keyed) > 1 else []
    if shared:
        blocks += [f"Keys of {_named(by_class, [cls for cls in own if own[cls]])}:", table(shared, prefix)]
    for cls, keys in own.items():
        further = [key for key in keys if key not in shared]
        if further:
            more = "Further keys" if shared else "Keys"
            blocks += [f"{more} of {_named(by_class, [cls])}:", table(further, prefix)]
    return "\n\n".join(blocks)


def _named(by_class: dict[type, list[str]], classes: list[type]) -> str:
    return ", ".join(f"`{name}`" for cls in classes for name in by_class[cls])


def _set(key: str, value: Any) -> str:
    return f"{key}={shown(value)}"


def _differing(choice: Choice) -> dict[str, Any]:
    """The keys to which a choice gives another value than its class does."""
    usual = {} if choice.target is None else {key.name: key.default for key in described(choice.target)}
    return {key: value for key, value in choice.values.items() if usual.get(key) != f"`{shown(value)}`"}


def table(keys: list[Key], prefix: str = "") -> str:
    """A Markdown table of `keys`."""
    rows = ["| key | unit | allowed | default | meaning |", "| --- | --- | --- | --- | --- |"]
    for key in keys:
        allowed = key.allowed if key.type == "choice" else ", ".join(filter(None, [key.type, key.allowed]))
        cells = (f"`{prefix}{key.name}`", key.unit or "–", allowed, key.default or "–", key.description)
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows)


def top_level() -> str:
    """Markdown of the keys that belong to no group."""
    values = _loaded(CONF / "config.yaml")
    keys = [key for key in described(Config) if key.type != "group"]
    filled = [
        Key(key.name, key.type, key.unit, key.allowed, f"`{shown(values[key.name])}`", key.description) for key in keys
    ]
    clock = [
        Key(key.name, key.type, key.unit, key.allowed, f"`{shown(values['time'][key.name])}`", key.description)
        for key in described(Time)
    ]
    return table(filled) + "\n\n" + table(clock, "time.")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
