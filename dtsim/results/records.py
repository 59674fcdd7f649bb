"""The rows that a run collects while it executes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from dtsim.results.schema import OWN, SCHEMAS, Schemas


@dataclass
class Records:
    """Rows by file, collected during a run; a row maps column to a value or to one value for each MU."""

    rows: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    wall_times_s: dict[str, float] = field(default_factory=dict)
    """Wall time by phase."""
    schemas: Schemas = field(default_factory=lambda: SCHEMAS)
    """The files of the run and their columns."""

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Measure the wall time of `phase`."""
        start = time.perf_counter()
        yield
        self.wall_times_s[phase] = time.perf_counter() - start

    def add(self, file: str, **columns: Any) -> None:
        """Add one row to `file`, or several if columns are arrays (scalars are repeated)."""
        scalar = all(np.ndim(value) == 0 for value in columns.values())
        self.rows.setdefault(file, []).append(pd.DataFrame(columns, index=[0] if scalar else None))

    def extend(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add `rows` to `file`."""
        if rows:
            self.rows.setdefault(file, []).append(pd.DataFrame(rows))

    def table(self, file: str) -> pd.DataFrame:
        """All rows of `file`, with the columns of its schema except the run's own (`schema.OWN`)."""
        columns = [column for column in self.schemas[file] if column not in OWN]
        parts = self.rows.get(file)
        if not parts:
            return pd.DataFrame(columns=columns)
        # Rows of one file may come from phases that know different columns.
        return pd.concat([part.reindex(columns=columns, fill_value="") for part in parts], ignore_index=True)
