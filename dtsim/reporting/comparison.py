"""Comparisons from Python: `dtsim.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from dtsim.reporting.along import Along, along, split
from dtsim.reporting.finished import Runs, runs_of
from dtsim.reporting.selection import Value, selected
from dtsim.reporting.statistics import Interval
from dtsim.reporting.tables import side_by_side


class Comparison(Along):
    """Runs side by side along one or more keys, from `compare`. A notebook shows its `summary`."""

    @property
    def summary(self) -> pd.DataFrame:
        """The usual metrics as text, one row for each group and choice: the table of `dtsim report --by`."""
        groups = side_by_side(self)
        headers = [column.header.replace("-\n", "").replace("\n", " ") for column in groups.columns]
        cells = [[column.cell(row) for column in groups.columns] for row in groups.rows]
        return pd.DataFrame(cells, columns=headers)

    def __repr__(self) -> str:
        return str(self.summary.to_string(index=False))

    def _repr_html_(self) -> str:
        return str(self.summary.to_html(index=False))


def compare(
    runs: Runs,
    by: str | Sequence[str] = "scheme",
    *,
    where: dict[str, Value | Sequence[Value]] | None = None,
    baseline: str | float | None = None,
    interval: Interval = "t",
) -> Comparison:
    """Compare runs along any key, seed by seed on the same worlds: `dtsim report --by` from Python.

    Args:
        runs: the table of `dtsim.load`, what `dtsim.run` or `dtsim.sweep` returned, or folders.
        by: a key, or several: a group such as "solver", a nested key such as "generator.amount", "scheme" or "mu".
        where: only runs with these values, such as {"channel": "umi", "mu": [10, 20]}.
        baseline: the value of `by` that the others are compared with, with commas between those of several keys; by
            default single_timescale for schemes, else the first.
        interval: "t" (Student's) or "bootstrap" (BCa).

    Returns:
        Its `table(metrics)` is tidy, with means, differences, ratios, intervals and p-values; its `summary` is what the
        command line prints; `dtsim.plots.comparison` draws it.

    Raises:
        ReportError: if no run has a key, a value or the baseline; the message names what there is.
    """
    keys = split([by] if isinstance(by, str) else by)
    chosen = selected(runs_of(runs), where or {})
    found = along(chosen, keys, baseline=None if baseline is None else str(baseline), interval=interval)
    return Comparison(**{field.name: getattr(found, field.name) for field in fields(found)})
