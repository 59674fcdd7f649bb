"""Tables of a run as files: CSV, or Parquet for the two large ones."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pandas as pd

from dtsim.results.names import FRAMES, SLOTS
from dtsim.results.schema import OWN

Format = Literal["csv", "parquet"]

LARGE = (SLOTS, FRAMES)
"""The files that `format=parquet` writes as Parquet: they have a row for every MU."""


def has_parquet() -> bool:
    """Whether pyarrow, which reads and writes Parquet, is installed."""
    return find_spec("pyarrow") is not None


_TEXTS = ("outcome",)
"""Columns of large tables that hold words."""


def write_table(table: pd.DataFrame, path: Path, form: Format) -> None:
    """Write `table` to the CSV file `path`, or beside it with the ending .parquet if it is a large one.

    Raises:
        OSError: if it cannot be written.
    """
    if form == "csv" or path.name not in LARGE:
        table.to_csv(path, index=False)
        return
    # A column that some phases leave empty holds texts, and a Parquet column holds one type.
    texts = table.select_dtypes(object).columns.difference([*OWN, *_TEXTS])
    numbers = table.assign(**{name: pd.to_numeric(table[name]) for name in texts})
    numbers.to_parquet(_parquet(path), index=False, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Some columns, by default all, of the CSV file `path` of a run, or of the Parquet file in its place.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged, a column is missing, or pyarrow is not installed.
    """
    chosen = None if columns is None else list(columns)
    if path.exists() or not _parquet(path).exists():
        return pd.read_csv(path, usecols=chosen)
    if not has_parquet():
        raise ValueError("reading Parquet needs pyarrow: pip install 'dtsim[parquet]'")
    return pd.read_parquet(_parquet(path), columns=chosen)


def _parquet(path: Path) -> Path:
    return path.with_suffix(".parquet")
