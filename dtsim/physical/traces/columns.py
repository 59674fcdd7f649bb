"""Tables of numbers from CSV and Parquet files, checked as they are read: what is wrong is said in one line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

_SAMPLE_BYTES = 64 * 1024


def read_columns(path: str, choices: Sequence[Sequence[str]], texts: Sequence[str] = ()) -> pd.DataFrame:
    """Columns of a CSV file, separated by commas or semicolons, or of a Parquet file, whose name ends in .parquet.

    Args:
        path: the file.
        choices: sets of columns, of which the file must have one; the first that it has is read.
        texts: columns that are text; all others must be finite numbers.

    Returns:
        The columns of that choice, one row or more. The index counts the file's rows from 0. Rows in which all columns
        but the first are empty are left out: SUMO writes them for times without a vehicle.

    Raises:
        ValueError: in one line that names the file and, where it can, the line.
    """
    file = Path(path).expanduser()
    if file.suffix == ".parquet":
        return _checked(path, _parquet(path, file, choices), texts, 0)
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            header = opened.readline()
    except OSError as error:
        raise ValueError(f"{path}: must be a file that can be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be a text file in UTF-8 ({error})") from None
    separator = ";" if header.count(";") > header.count(",") else ","
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    chosen = _choice(f"{path}:1", names, choices)
    try:
        table = pd.read_csv(
            file,
            sep=separator,
            usecols=[names.index(name) for name in chosen],
            dtype={names.index(name): str for name in chosen if name in texts},
            skipinitialspace=True,
            keep_default_na=True,
            encoding="utf-8-sig",
            low_memory=False,
        )
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: must be a CSV file ({' '.join(str(error).split())})") from None
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    return _checked(path, table[list(chosen)], texts, 2)


def _parquet(path: str, file: Path, choices: Sequence[Sequence[str]]) -> pd.DataFrame:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path}: Parquet needs the package pyarrow (pip install 'dtsim[parquet]')") from None
    try:
        names = pyarrow.parquet.read_schema(file).names
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: must be a Parquet file that can be read ({' '.join(str(error).split())})") from None
    return pd.read_parquet(file, columns=list(_choice(path, names, choices)))


def _choice(place: str, names: Sequence[str], choices: Sequence[Sequence[str]]) -> Sequence[str]:
    for chosen in choices:
        if set(chosen) <= set(names):
            return chosen
    sets = " or ".join(", ".join(chosen) for chosen in choices)
    raise ValueError(f"{place}: must have the columns {sets}; has {', '.join(names) or 'none'}")


def _checked(path: str, table: pd.DataFrame, texts: Sequence[str], first_line: int) -> pd.DataFrame:
    """`table` with numbers as float64; `first_line` is the file's line of its first row, 0: a row has no line."""
    if len(table.columns) > 1:
        table = table[~table.iloc[:, 1:].isna().all(axis=1)]
    if not len(table):
        raise ValueError(f"{path}: must have one row or more, has none")
    for name in table.columns:
        if name in texts:
            bad = table[name].isna().to_numpy()
        else:
            numbers = pd.to_numeric(table[name], errors="coerce")
            bad = ~np.isfinite(numbers.to_numpy(dtype=float))
            if not bad.any():
                table = table.assign(**{name: numbers.astype(float)})
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            must = "given" if name in texts else "a number"
            raise ValueError(
                f"{place_of(path, table, row, first_line)}: {name}={table[name].iloc[row]}: must be {must}"
            )
    return table


def place_of(path: str, table: pd.DataFrame, row: int, first_line: int = 2) -> str:
    """Where the row at position `row` of `table` stands: file and line, or the row of a Parquet file."""
    number = int(table.index[row])
    return f"{path}, row {number}" if path.endswith(".parquet") or not first_line else f"{path}:{number + first_line}"
