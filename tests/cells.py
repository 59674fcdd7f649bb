"""Numbers out of tables, whose cells may hold anything."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd


def cell(table: pd.DataFrame, row: object, column: str) -> float:
    """The number at `row` and `column`."""
    rows: Any = table.loc
    return float(cast(float, rows[row, column]))
