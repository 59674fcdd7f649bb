"""Which runs are reported: keys by the names that are typed, and `--where key=value`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from dtsim.reporting.labels import keys_of, labelled, swept, text
from dtsim.reporting.runs import ReportError

Value = str | int | float | bool | None
Wanted = Mapping[str, Value | Sequence[Value]]
"""For each key the value, or the values, that a run may have."""


def known_key(runs: pd.DataFrame, key: str, option: str) -> str:
    """The name under which `runs` have the key that was typed, such as "twin.predictor" for "twin/predictor".

    Raises:
        ReportError: if no run has it; the message begins with the name of the `option`.
    """
    name = key.replace("/", ".")
    columns = set(map(str, runs))
    if name in ("scheme", "mu", "seed") or {f"choice.{name}", f"config.{name}"} & columns:
        return name
    known = ["scheme", "mu", *(column.partition(".")[2] for column in columns if column.startswith("choice."))]
    close = difflib.get_close_matches(name, [*known, *keys_of(runs)], n=1, cutoff=0.75)
    meant = f", did you mean {close[0]}?" if close else ""
    differ = ", ".join(dict.fromkeys(["scheme", "mu", *swept(runs)]))
    raise ReportError(f"{option}={key!r}: no run has this key{meant} (in these runs differ: {differ})")


def conditions(typed: Iterable[str]) -> dict[str, list[str]]:
    """The conditions of `--where`, such as "solver=cpsat,greedy": for each key the values, in order.

    Raises:
        ReportError: for a text that is none.
    """
    found: dict[str, list[str]] = {}
    for one in typed:
        key, is_condition, values = one.partition("=")
        if not is_condition or not key.strip() or not values.strip():
            raise ReportError(f"where={one!r}: must be key=value, or key=value,value")
        found[key.strip()] = [*found.get(key.strip(), []), *(value.strip() for value in values.split(","))]
    return found


def selected(runs: pd.DataFrame, where: Wanted) -> pd.DataFrame:
    """The runs whose keys have one of the wanted values, labelled anew.

    Raises:
        ReportError: if no run has a key, or no run is left.
    """
    for key, wanted in where.items():
        name = known_key(runs, key, "where")
        values = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
        there = text(runs, name)
        kept = there.map(lambda value, values=values: any(_same(value, str(_typed(one))) for one in values))
        if not kept.any():
            said = ",".join(str(_typed(value)) for value in values)
            known = ", ".join(sorted(there.unique(), key=natural))
            raise ReportError(f"where={f'{key}={said}'!r}: no run has it; {name} is one of {known}")
        runs = runs[kept]
    return labelled(runs.reset_index(drop=True)) if where else runs


def natural(value: str) -> tuple[int, float, str]:
    """Sort key of a value's text: numbers by size, then names, an absent value last."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 2 if value == "–" else 1, 0.0, value


def _typed(value: Value) -> Value:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def _same(one: str, other: str) -> bool:
    """Whether two texts are the same value: as text, or as number."""
    if one == other:
        return True
    try:
        return float(one) == float(other)
    except ValueError:
        return False
