"""Rows of the tables that a run leaves, before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None
"""What a cell of a CSV may hold."""

Row: TypeAlias = dict[str, Value]
"""One observation: column to value."""


def number(row: Mapping[str, Value], column: str) -> float:
    """The number in `column` of `row`.

    Raises:
        ValueError: where there is none.
    """
    value = row.get(column)
    if not isinstance(value, int | float):
        raise ValueError(f"{column}={value!r}: must be a number")
    return value
