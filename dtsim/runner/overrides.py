"""Hydra's overrides, read: what one of them says, which give several values, and the jobs that they make."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep
from hydra.errors import HydraException

from dtsim.core.parts import ConfigError

_KEY = re.compile(r"[+~]{0,2}[A-Za-z_]\w*([./]\w+)*(@[\w.:/]*)?", re.ASCII)
_PLAIN = re.compile(r"[\w\s.:/\\+%?@|*~,()\[\]{}'\"$^-]", re.ASCII)

_WRITTEN = {
    "choice": "choice(3,5,10)", "range": "range(1,10) or range(1,10,2)", "interval": "interval(1,2)",
    "glob": "glob(without*)", "sort": "sort(5,3,10)", "shuffle": "shuffle(range(1,10))", "tag": "tag(mine,choice(3,5))",
    "int": "int(3.0)", "float": "float(3)", "bool": "bool(true)", "str": "str(3)",
}  # fmt: skip
"""Hydra's functions, each as it may be called."""


def parsed(overrides: Sequence[str]) -> list[Any]:
    """Hydra's objects for `overrides`.

    Raises:
        ConfigError: with a line for each that is none.
    """
    parser = OverridesParser.create()
    found, lines = [], []
    for place, override in enumerate(overrides):
        try:
            found += parser.parse_overrides([override])
            if not found[-1].key_or_group:
                raise HydraException("no key")
        except HydraException as error:
            lines.append(_unreadable(override, overrides[place - 1] if place else "", str(error)))
    if lines:
        raise ConfigError(lines)
    return found


def _unreadable(override: str, before: str, said: str) -> str:
    """Why Hydra cannot read `override`, which stands after `before`, and what to write."""
    key, is_assignment, value = override.partition("=")
    if not is_assignment:
        if "=" in before:
            several = f"several values of a key have commas between them and no spaces: {before},{override.strip()}"
            return f"{override}: must be key=value or group=choice; {several}"
        return f"{override}: must be key=value or group=choice"
    if not _KEY.fullmatch(key):
        return f"{override}: must be key=value, with a key of letters, digits, _ and . (dtsim run --help lists them)"
    written = f'"{key}={quoted(value)}"'
    if unknown := re.search(r"Unknown function '(.*)'\s+Available: (\S+)", said):
        functions = unknown[2].replace(",", ", ")
        return (
            f"{override}: there is no function {unknown[1]}, must be one of {functions}; a text needs quotes: {written}"
        )
    if inside := re.search(r"while evaluating '(\w+)\(.*?': (.+)", said):
        written_as = _WRITTEN.get(inside[1])
        reason = f"must be written as in {written_as}" if written_as else f"cannot be evaluated ({inside[2].strip()})"
        return f"{override}: {reason}"
    if value.startswith(",") or value.endswith(",") or ",," in value:
        return f"{override}: there must be a value on both sides of a comma"
    odd = next((character for character in value if not _PLAIN.match(character)), None)
    if odd is not None:
        return f"{override}: a value with {odd} in it needs quotes: {written}"
    return f"{override}: brackets and quotes must be closed; a text with them needs quotes: {written}"


def quoted(value: str) -> str:
    """`value` as Hydra takes any text: in quotes."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)  # the backslashes before a quote count
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def swept(overrides: Sequence[str]) -> list[str]:
    """Those of `overrides` that give several values."""
    return [found.input_line for found in parsed(overrides) if found.is_sweep_override()]


def without_sweeps(overrides: Sequence[str], loader: Any = None) -> list[str]:
    """`overrides` with the first value of each sweep: enough to see the mode and the sweeper."""
    return [_first(found, loader) for found in parsed(overrides)]


def _first(found: Any, loader: Any) -> str:
    if not found.is_sweep_override():
        return str(found.input_line)
    if isinstance(found.value(), IntervalSweep):  # a sweeper that draws values takes it
        return f"{found.get_key_element()}={found.value().start}"
    return f"{found.get_key_element()}={next(values_of(found, loader))}"


def expanded(overrides: Sequence[str], loader: Any) -> list[list[str]]:
    """The overrides of every job of a sweep, in the basic sweeper's order.

    Raises:
        ConfigError: with a line for each that gives no value, or endlessly many.
    """
    found = parsed(overrides)
    lines = []
    for one in found:
        if isinstance(one.value(), IntervalSweep):
            start, end = one.value().start, one.value().end
            lines.append(
                f"{one.input_line}: must be values with commas between them, or range({start:g},{end:g}): an interval "
                "is for a sweeper that draws values"
            )
        elif one.is_sweep_override():
            one.config_loader = loader
            try:
                next(values_of(one, loader))
            except ConfigError as error:
                lines += error.lines
    if lines:
        raise ConfigError(lines)
    (batch,) = BasicSweeper.split_arguments(found, max_batch_size=None)
    return [list(job) for job in batch]


def count(overrides: Sequence[str], loader: Any) -> int:
    """How many jobs a sweep has, without expanding it."""
    by_key = {found.get_key_element(): _count(found, loader) for found in parsed(overrides)}
    return math.prod(by_key.values())


def _count(found: Any, loader: Any) -> int:
    if not found.is_sweep_override() or isinstance(found.value(), IntervalSweep):
        return 1
    if isinstance(found.value(), RangeSweep):
        asked = found.value()
        return max(0, math.ceil((asked.stop - asked.start) / asked.step)) if asked.step else 0
    return sum(1 for _ in values_of(found, loader))


def values_of(found: Any, loader: Any) -> Iterator[str]:
    """The values that one of Hydra's overrides sweeps over, one or more.

    Raises:
        ConfigError: where there are none.
    """
    asked = found.value()
    if isinstance(asked, RangeSweep) and not asked.step:
        raise ConfigError([f"{found.input_line}: the step of a range must not be 0"])
    if isinstance(asked, Glob):
        found.config_loader = loader
    values = found.sweep_string_iterator()
    first = next(values, None)
    if first is None:
        allowed = ""
        if isinstance(asked, RangeSweep):
            allowed = ", must be range(START,STOP) with START < STOP, or range(START,STOP,STEP) with STEP < 0"
        elif isinstance(asked, Glob):
            known, key = loader.get_group_options(found.key_or_group), found.key_or_group
            no_group = f", {key} is no group of choices: must be values with commas between them"
            allowed = f", must match one of {', '.join(known)}" if known else no_group
        raise ConfigError([f"{found.input_line}: gives no value{allowed}"])
    return itertools.chain([first], values)
