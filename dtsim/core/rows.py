"""Rows of a run's tables, before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None
"""Allowed types of a CSV cell."""

Row: TypeAlias = dict[str, Value]
"""One observation: column to value."""


def number(row: Mapping[str, Value], column: str) -> float:
    """The number in `column` of `row`.

    Raises:
        ValueError: if it is not a number.
    """
    value = row.get(column)
    if not isinstance(value, int | float):
        raise ValueError(f"{column}={value!r}: must be a number")
    return value
