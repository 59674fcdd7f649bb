"""What the keys of a part mean, read from the source of its class: nothing is imported, so help stays fast.

A key is described in one place, the docstring under its field. `dtsim run --help`, the comments in `conf/` and the
page of keys all take it from there:

    bandwidth_hz: float = Field(default=20.0e6, gt=0)
    \"\"\"Uplink bandwidth of one user [Hz]; users do not interfere (OFDM).\"\"\"

The unit stands in brackets; type, range and default are those of the field. A field that a subclass declares again
without a docstring keeps the one of its base class.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

_UNIT = re.compile(r" \[(?P<unit>[A-Za-z%1°µ][^\[\],|]*)\]")


@dataclass(frozen=True)
class Key:
    """A key of a configuration group."""

    name: str
    """As it is written in YAML."""
    type: str
    """Its annotation, with named types written out."""
    unit: str
    """What its value counts or is measured in; empty where nothing is said."""
    allowed: str
    """Its range or the values that it may have; empty where the type says it all."""
    default: str | None
    """Its default as the source writes it; None: it must be given."""
    description: str
    """One sentence or more, without a final period; empty where the source has none."""
    limits: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The arguments of its `Field`, such as gt and le, as the source writes them."""

    @property
    def brief(self) -> str:
        """Unit and allowed values, as comments and help show them: "Hz, > 0"."""
        unit = self.unit or ("-" if self.type.removesuffix(" | None") == "float" else "")
        return ", ".join(filter(None, (unit, self.allowed))).replace(", or null", " or null").removeprefix("or ")

    @property
    def comment(self) -> str:
        """The key's comment in a YAML file: "[Hz, > 0] Carrier frequency"."""
        said = self.description.replace("`", "")
        return " ".join(filter(None, (f"[{self.brief}]" if self.brief else "", said)))


def described(cls: type | str) -> list[Key]:
    """The keys of a class, those of its base classes first.

    Args:
        cls: a class, or the dotted path that a `_target_` gives.

    Returns:
        A key for each annotated field, or where the class has none for each keyword of its `__init__`; empty where
        the source cannot be found.
    """
    target = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
    module, _, name = target.rpartition(".")
    found = _class_of(module, name)
    if found is None:
        return []
    keys = {key.name: key for key in _fields(*found)}
    return list((keys or {key.name: key for key in _keywords(found[1])}).values())


def summary(cls: str) -> str:
    """The first line of a class's docstring; empty where it has none or cannot be found."""
    module, _, name = cls.rpartition(".")
    found = _class_of(module, name)
    return ((ast.get_docstring(found[1]) or "").partition("\n")[0]) if found else ""


@dataclass(frozen=True)
class _Module:
    """A module and what its names stand for."""

    name: str
    lines: list[bytes]
    """Its source; encoded, since the parser counts columns in bytes."""
    names: dict[str, ast.ClassDef | ast.expr | tuple[str, str]]
    """Classes, named types, and for what is imported (module, name)."""


@cache
def _module(name: str) -> _Module | None:
    path = _source(name)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return None
    names: dict[str, ast.ClassDef | ast.expr | tuple[str, str]] = {}
    body = list(tree.body)
    for node in body:
        if isinstance(node, ast.If):  # TYPE_CHECKING
            body += node.body
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
        elif isinstance(node, ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            names[node.target.id] = node.value
    return _Module(name, text.encode().splitlines(), names)


def _source(name: str) -> Path | None:
    """The file of a module. `find_spec` on the whole name would import the packages above it, and torch with them."""
    top, *below = name.split(".")
    try:
        spec = find_spec(top)
        for part in below:
            spec = PathFinder.find_spec(part, list(spec.submodule_search_locations or [])) if spec else None
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _found(module: _Module | None, name: str) -> tuple[_Module, ast.ClassDef | ast.expr] | None:
    """What `name` stands for in `module`, followed through imports."""
    for _ in range(9):  # an import of an import; a circle would never end
        what = module.names.get(name) if module else None
        if module is None or what is None:
            return None
        if not isinstance(what, tuple):
            return module, what
        module, name = _module(what[0]), what[1]
    return None


def _class_of(module: str, name: str) -> tuple[_Module, ast.ClassDef] | None:
    found = _found(_module(module), name)
    return (found[0], found[1]) if found and isinstance(found[1], ast.ClassDef) else None


def _fields(module: _Module, node: ast.ClassDef) -> Iterator[Key]:
    """The annotated fields of a class and of its base classes; a field declared again takes the place of the first."""
    keys: dict[str, Key] = {}
    for base in node.bases:
        found = _found(module, base.id) if isinstance(base, ast.Name) else None
        if found and isinstance(found[1], ast.ClassDef):
            for key in _fields(found[0], found[1]):
                keys.setdefault(key.name, key)  # the first base comes first
    for place, statement in enumerate(node.body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        annotation = ast.unparse(statement.annotation)
        if annotation.startswith("ClassVar") or statement.target.id.startswith("_"):
            continue
        key = _key(module, statement.target.id, statement.annotation, statement.value, _text_after(node.body, place))
        if not key.description and key.name in keys:
            key = replace(key, description=keys[key.name].description, unit=keys[key.name].unit)
        keys[key.name] = key
    yield from keys.values()


def _keywords(node: ast.ClassDef) -> Iterator[Key]:
    """The arguments of `__init__` of a class that is no part."""
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            arguments = function.args
            positional = arguments.args[1:]
            defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)[
                -len(positional) :
            ]
            for argument, default in [
                *zip(positional, defaults, strict=False),
                *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
            ]:
                annotation = ast.unparse(argument.annotation) if argument.annotation else ""
                said = ast.unparse(default) if default is not None else None
                yield Key(argument.arg, annotation, "", "", said, "")


def _text_after(body: list[ast.stmt], place: int) -> str:
    """The docstring under a field, on one line."""
    below = body[place + 1] if place + 1 < len(body) else None
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
        return " ".join(below.value.value.split())
    return ""


def _key(module: _Module, name: str, annotation: ast.expr, value: ast.expr | None, text: str) -> Key:
    written = _written_out(module, annotation)
    default: str | None = None
    limits: dict[str, str] = {}
    for call in [value, *ast.walk(annotation)]:
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("Field", "field")):
            continue
        limits |= {k.arg: _said(module, k.value) for k in call.keywords if k.arg}
        if call is value and call.args:
            limits["default"] = _said(module, call.args[0])
    if isinstance(value, ast.Call) and ("default" in limits or "default_factory" in limits):
        default = limits.get("default") or limits["default_factory"].removeprefix("lambda: ")
    elif value is not None and not isinstance(value, ast.Call):
        default = _said(module, value)
    unit = _UNIT.search(text)
    description = (text[: unit.start()] + text[unit.end() :] if unit else text).removesuffix(".")
    return Key(name, written, unit["unit"] if unit else "", _allowed(written, limits), default, description, limits)


def _said(module: _Module, value: ast.expr) -> str:
    """A value as the source writes it, but None, True, False and texts as YAML does."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.Constant) and isinstance(value.value, bool | None):
        return "null" if value.value is None else str(value.value).lower()
    if value.lineno == value.end_lineno:
        return module.lines[value.lineno - 1][value.col_offset : value.end_col_offset].decode()
    return ast.unparse(value)


def _written_out(module: _Module, annotation: ast.expr) -> str:
    """The annotation with named types replaced by what they stand for."""
    if isinstance(annotation, ast.Name):
        found = _found(module, annotation.id)
        if found and not isinstance(found[1], ast.ClassDef):
            return _written_out(found[0], found[1])
        return annotation.id
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return f"{_written_out(module, annotation.left)} | {_written_out(module, annotation.right)}"
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        inner = annotation.slice
        return _written_out(module, inner.elts[0] if isinstance(inner, ast.Tuple) else inner)
    return ast.unparse(annotation)


def _allowed(written: str, limits: dict[str, str]) -> str:
    """The values of a literal type, or a range in words: "> 0", "0 to 1", ">= 2 entries"."""
    kinds = written.split(" | ")
    limits = {limit: value.removesuffix(".0").replace("_", "") for limit, value in limits.items()}
    said: list[str] = []
    for kind in kinds:
        if kind.startswith("Literal["):
            said.append(" | ".join(str(value) for value in ast.literal_eval(f"({kind[8:-1]},)")))
    if "bool" in kinds:
        said.append("true | false")
    low, high = limits.get("ge"), limits.get("le")
    if low and high:
        said.append(f"{low} to {high}")
    else:
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        said += [f"{sign} {limits[limit]}" for limit, sign in signs.items() if limit in limits]
    if "str" not in kinds and ("min_length" in limits or "max_length" in limits):
        least, most = limits.get("min_length"), limits.get("max_length")
        said.append(f"{least} entries" if least == most else f">= {least} entries" if least else f"<= {most} entries")
    if "None" in kinds:
        said.append("or null")
    return ", ".join(said).replace(", or null", " or null")
