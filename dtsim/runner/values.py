"""Values held against the fields of their classes, which are read from the source: a typo is found without torch.

The classes themselves check the same again when they are constructed, and what involves several keys.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from dtsim.core.fields import Key, described
from dtsim.core.parts import explain
from dtsim.runner.choices import CLASSES

_PLAIN = {kind.__name__: kind for kind in (int, float, str, bool, list, dict)}
_LIMITS = ("gt", "ge", "lt", "le", "min_length", "max_length")


def value_faults(configuration: Mapping[str, Any]) -> list[str]:
    """A line for each value of another type than its field, or outside its range, and for each key that is no field.

    Args:
        configuration: resolved, in plain containers; its groups of keys are looked at.
    """
    lines = []
    for group, target, node in _parts(configuration):
        if (model := _model(target)) is None:
            continue
        try:
            model(**node)
        except ValidationError as error:
            lines += explain(error, group)
    return lines


def _parts(configuration: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The groups of keys of dtsim's own classes: name, class, values."""
    groups = {name: value for name, value in configuration.items() if isinstance(value, dict)}
    if isinstance(predictor := groups.get("twin", {}).get("predictor"), dict):
        groups["twin.predictor"] = predictor
    for name, node in groups.items():
        target = CLASSES.get(name, node.get("_target_"))
        if isinstance(target, str) and target.startswith("dtsim."):
            yield name, target, {str(key): value for key, value in node.items() if key != "_target_"}


@cache
def _model(target: str) -> type[BaseModel] | None:
    """A model with the fields of a class; None where its source has none."""
    keys = described(target)
    if not keys:
        return None
    strictly = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    fields: dict[str, Any] = {key.name: (_annotation(key), ... if key.default is None else None) for key in keys}
    return create_model(target.rpartition(".")[2], __config__=strictly, **fields)


def _annotation(key: Key) -> Any:
    """The type and range of a key; Any where its source cannot be understood without being imported."""
    try:
        kind = _type(ast.parse(key.type, mode="eval").body)
        limits = {name: _number(value) for name, value in key.limits.items() if name in _LIMITS}
        annotation: Any = Annotated[kind, Field(**limits)] if limits else kind
        TypeAdapter(annotation)  # refuses a range that the type has not
    except (KeyError, SyntaxError, TypeError, ValueError, RuntimeError):
        return Any
    return annotation


def _number(written: str) -> Any:
    """A limit such as 1 or 2**31 - 1."""
    match ast.parse(written, mode="eval").body:
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _number(ast.unparse(left)) - _number(ast.unparse(right))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _number(ast.unparse(left)) ** _number(ast.unparse(right))
        case value:
            return ast.literal_eval(value)


def _type(written: ast.expr) -> Any:
    """The type that an annotation of plain types means.

    Raises:
        KeyError: where it names another one.
    """
    match written:
        case ast.Name(id=name):
            return _PLAIN[name]
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, right=right):
            return _type(left) | _type(right)
        case ast.Subscript(value=ast.Name(id="list"), slice=inside):
            return list[_type(inside)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=values)):
            return Literal[tuple(ast.literal_eval(value) for value in values)]
    raise KeyError(ast.unparse(written))
