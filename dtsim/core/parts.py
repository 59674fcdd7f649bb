"""Parts: the classes that YAML files name, and the functions that check and build them.

A part is a dataclass whose fields are the keys of its YAML file. pydantic checks types and ranges during construction,
so all invalid values of a configuration are reported at once, before a run starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, cast, dataclass_transform, get_type_hints

from pydantic import ConfigDict, Field, ImportString, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as _dataclass
from typing_extensions import get_protocol_members, is_protocol

T = TypeVar("T")

_IMPORT: TypeAdapter[Any] = TypeAdapter(ImportString)

_ALLOWED = {
    "greater_than": "must be > {gt}",
    "greater_than_equal": "must be >= {ge}",
    "less_than": "must be < {lt}",
    "less_than_equal": "must be <= {le}",
    "literal_error": "must be one of {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "finite_number": "must be a finite number",
    "missing": "must be given",
    "missing_argument": "must be given",
    "unexpected_keyword_argument": "there is no such key",
    "extra_forbidden": "there is no such key",
    "too_short": "must have {min_length} entries or more",
    "too_long": "must have {max_length} entries or fewer",
    "string_too_short": "must not be empty",
    "dict_type": "must be a group of keys",
}

_TYPES = ("int", "float", "str", "bool", "list", "none", "constrained-int", "constrained-float", "function-before")


class ConfigError(Exception):
    """One or more invalid values in a configuration; `lines` holds one sentence for each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.lines,)  # joblib pickles it between processes


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def part(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass that rejects unknown keys, wrong types and values out of range."""
    strictly = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return cast(type[T], _dataclass(cls, kw_only=True, frozen=True, config=strictly))


def explain(error: ValidationError, prefix: str) -> list[str]:
    """One line for each bad key in `error`: the key, its value and the allowed values. `prefix` is the config group."""
    faults: dict[str, tuple[object, list[str]]] = {}  # key: value, allowed values
    lines = []
    for fault in error.errors():
        kind, context = fault["type"], fault.get("ctx", {})
        if kind == "value_error":  # raised by a part's own check, which names key, value and allowed values
            lines.append(f"{prefix}.{context['error']}" if prefix else str(context["error"]))
            continue
        # A union reports a fault for each type that it tried; the last step of the location is a type, not a key.
        steps = [step for step in fault["loc"] if not (isinstance(step, str) and step.split("[")[0] in _TYPES)]
        key = ".".join([*([prefix] if prefix else []), *(str(step) for step in steps)])
        said = _ALLOWED.get(kind)
        allowed = said.format(**context) if said else fault["msg"][0].lower() + fault["msg"][1:]
        _, known = faults.setdefault(key, (fault["input"], []))
        if allowed not in known:
            known.append(allowed)
    for key, (value, reasons) in faults.items():
        shown = "" if reasons == [_ALLOWED["missing"]] else f"={value!r}"
        lines.append(f"{key}{shown}: {' or '.join(reasons)}")
    return lines


def validated(schema: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Construct the part `schema` from `values`.

    Raises:
        ConfigError: with a line for every invalid value.
    """
    try:
        return schema(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, prefix)) from None


def build(node: Mapping[str, Any], group: str, protocol: type | None = None) -> Any:
    """Construct the class named by `node["_target_"]` with the node's other keys.

    Args:
        node: one config group, resolved to plain containers.
        group: its name, for error messages.
        protocol: the interface of the class, checked before the class is called.

    Raises:
        ConfigError: if the class does not exist, does not implement `protocol`, or rejects a value.
    """
    target = node.get("_target_")
    try:
        cls = _IMPORT.validate_python(target if isinstance(target, str) else "")
    except ValidationError as error:
        cause = " ".join(error.errors()[0]["msg"].removeprefix("Invalid python path: ").split())
        raise ConfigError([f"{group}._target_={target!r}: must name a class that can be imported ({cause})"]) from None
    if protocol is not None:
        _check_offers(cls, protocol, f"{group}._target_={target!r}")
    keywords = {str(key): value for key, value in node.items() if key != "_target_"}
    try:
        return cls(**keywords)
    except ValidationError as error:
        raise ConfigError(explain(error, group)) from None
    except (TypeError, ValueError) as error:  # a user-defined class need not be a part
        raise ConfigError([f"{group}: {target} refuses its values ({error})"]) from None


def _check_offers(target: object, protocol: type, said: str) -> None:
    """Reject a target that is not a class with all members of `protocol`, nor a function annotated to return one.

    A configuration can name any importable object; only parts may be called.
    """
    offered = target
    if inspect.isfunction(target):
        try:
            offered = get_type_hints(target).get("return")
        except NameError as error:
            raise ConfigError([f"{said}: the annotation of what it returns cannot be read ({error})"]) from None
        if offered is None:
            raise ConfigError([f"{said}: must be a class, or a function annotated with the class that it returns"])
    if not inspect.isclass(offered):
        raise ConfigError([f"{said}: must be a class, or a function that returns an object of one"])
    fields = {name for base in offered.__mro__ for name in vars(base).get("__annotations__", {})}
    missing = [name for name in sorted(_members(protocol)) if not hasattr(offered, name)]
    if missing := [name for name in missing if name not in fields]:
        raise ConfigError([f"{said}: must offer {', '.join(missing)}, as {protocol.__name__} asks"])


def _members(protocol: type) -> set[str]:
    """The members of a Protocol; for an ordinary class, its public methods."""
    if is_protocol(protocol):
        return set(get_protocol_members(protocol))
    return {name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")}
