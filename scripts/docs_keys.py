"""The page of all keys, made from the classes that check them and from the YAML files that set them."""

from __future__ import annotations

import re
from functools import cache

from dtsim.core.fields import Key, described
from dtsim.runner.choices import CLASSES, Choice, Conf

_TYPES = {
    "int": "whole number",
    "float": "number",
    "str": "text",
    "Point": "pair of numbers",
    "dict[str, Any]": "group",
}
_COMPARISON = re.compile(r"^(>=|<=|>|<) ")
_SIGNS = {">=": "≥", "<=": "≤", ">": ">", "<": "<"}


@cache
def conf() -> Conf:
    """The packaged configuration."""
    return Conf()


def groups() -> list[str]:
    """Every group of choices, such as channel and twin/predictor."""
    return sorted(conf().groups)


def choices(group: str) -> list[Choice]:
    """The choices of a group, the default one first."""
    usual = conf().default.get(group)
    return sorted(conf().groups[group].values(), key=lambda choice: (choice.name != usual, choice.name))


def keys_of(choice: Choice) -> list[Key]:
    """The keys of the class that a choice configures; none where there is no class."""
    target = conf().class_of(choice)
    return described(target) if target else []


def group_section(group: str) -> str:
    """Markdown of a group: its choices, and the keys of each of their classes."""
    found = choices(group)
    rows = [f"| `{group}=` | what it is | sets |", "| --- | --- | --- |"]
    for choice in found:
        sets = " ".join(f"`{key}={value}`" for key, value in settings(choice).items())
        mark = " (default)" if choice.name == conf().default.get(group) else ""
        rows.append(f"| `{choice.name}`{mark} | {cell(choice.about)} | {cell(sets) or '–'} |")
    blocks = ["\n".join(rows)]
    names: dict[str, list[str]] = {}
    usual: dict[str, Choice] = {}
    for choice in found:
        target = conf().class_of(choice)
        if target and keys_of(choice):
            names.setdefault(target, []).append(choice.name)
            usual.setdefault(target, choice)
    keyed = {target: keys_of(choice) for target, choice in usual.items()}
    shared = [key for key in next(iter(keyed.values()), []) if all(key in keys for keys in keyed.values())]
    if len(keyed) < 2:
        shared = []
    prefix = group.replace("/", ".") + "."
    if shared:
        said = ", ".join(f"`{name}`" for some in names.values() for name in some)
        blocks += [f"Keys of {said}:", table(shared, prefix, found[0])]
    for target, keys in keyed.items():
        further = [key for key in keys if key not in shared]
        if further:
            said = ", ".join(f"`{name}`" for name in names[target])
            blocks += [f"{'Further keys' if shared else 'Keys'} of {said}:", table(further, prefix, usual[target])]
    return "\n\n".join(blocks)


def settings(choice: Choice) -> dict[str, str]:
    """What a choice sets: keys with another value than their class gives them, and choices of other groups."""
    known = {key.name: key for key in keys_of(choice)}
    found = {
        name: value.text
        for name, value in conf().values(choice).items()
        if name not in ("_target_", "name") and not (name in known and _same(known[name].default, value.text))
    }
    for entry in choice.defaults:
        if isinstance(entry, tuple):
            found[entry[0].removeprefix("override ").lstrip("/")] = entry[1]
    return found


def _same(default: str | None, text: str) -> bool:
    if default is None:
        return False
    try:
        return float(default) == float(text)
    except ValueError:
        return default.replace(" ", "") == text.replace(" ", "")


def top_level() -> str:
    """Markdown of the keys that belong to no group."""
    own = [key for key in described(CLASSES[""]) if key.name in conf().main.own]
    clocks = described(CLASSES["time"])
    return table(own, "", conf().main) + "\n\n" + table(clocks, "time.", conf().main)


def table(keys: list[Key], prefix: str, usual: Choice) -> str:
    """A Markdown table of `keys`; where a class gives no default, the value is the one that `usual` sets."""
    values = conf().values(usual)
    rows = ["| key | unit | allowed | default | meaning |", "| --- | --- | --- | --- | --- |"]
    for key in keys:
        own = f"{prefix}{key.name}" if usual is conf().main else key.name
        default = values[own].text if key.default is None and own in values else key.default
        default = default.replace("_", "") if default and default.replace("_", "").isdigit() else default
        shown = f"`{default}`" if default not in (None, "???") else "must be given"
        cells = (f"`{prefix}{key.name}`", key.unit or "–", allowed(key), shown, key.description)
        rows.append("| " + " | ".join(cell(text) for text in cells) + " |")
    return "\n".join(rows)


def allowed(key: Key) -> str:
    """The values that a key may have, in words."""
    said, null, _ = key.allowed.partition("or null")
    if " | " in said:  # a list of values
        values = ", ".join(f"`{value}`" for value in said.strip().split(" | "))
    else:
        kinds = [_words(kind) for kind in key.type.split(" | ") if kind != "None"]
        ranges = [_comparison(part) for part in said.strip().split(", ") if part]
        values = ", ".join([" or ".join(kinds), *ranges])
    return f"{values} or `null`" if null else values


def _words(kind: str, several: bool = False) -> str:
    """A type in words."""
    inner = re.match(r"^list\[(.*)\]$", kind)
    if inner:
        return f"list{'s' * several} of {_words(inner[1], several=True)}"
    words = _TYPES.get(kind, kind)
    return words.replace("pair", "pairs") if several and "pair" in words else words + "s" * several


def _comparison(part: str) -> str:
    part = re.sub(r"2\*\*(\d+)", r"2<sup>\1</sup>", part)
    return _COMPARISON.sub(lambda sign: f"{_SIGNS[sign[1]]}\u00a0", part)


def cell(text: str) -> str:
    """`text` for a cell of a table."""
    return text.replace("|", "\\|")
