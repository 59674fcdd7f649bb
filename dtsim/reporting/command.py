"""What `dtsim report` does: reads once, then prints and writes what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pandas as pd
from rich.console import Console

from dtsim.report import show
from dtsim.reporting import tables
from dtsim.reporting.runs import ReportError, folders, read, with_scheme
from dtsim.reporting.statistics import GROUP, Interval, aggregate, doubts

BASELINE = "single_timescale"
"""What schemes are compared with where nothing else is asked for and it was run."""


def report(
    path: Path, *, each_run: bool = False, baseline: str | None = None, interval: str = "t", csv: Path | None = None
) -> None:
    """Print the report of the runs under `path`, and write the files that are asked for.

    Args:
        path: a folder with results anywhere below it.
        each_run: print a table of each run too. Without several seeds of anything it is printed alone.
        baseline: the scheme that others are compared with; `BASELINE` where there is one.
        interval: t or bootstrap.
        csv: where `aggregate` of every metric goes.

    Raises:
        ReportError: for a bad value, no result, or a file that cannot be written.
    """
    method = next((known for known in get_args(Interval) if known == interval), None)
    if method is None:
        raise ReportError(f"interval={interval!r}: must be one of {', '.join(get_args(Interval))}")
    found = folders(path)
    runs, failures = read(found)
    if baseline is not None and (runs.empty or baseline not in set(runs["scheme"])):
        there = ", ".join(sorted(runs["scheme"].unique())) if len(runs) else "none, no run has finished"
        raise ReportError(f"baseline={baseline!r}: must be one of {there}")
    if baseline is None and len(runs) and BASELINE in set(runs["scheme"]):
        baseline = BASELINE
    console = _console()
    several = len(runs) > 0 and runs.groupby([*GROUP, "scheme"])["seed"].nunique().max() > 1
    each_run = each_run or not several
    if each_run:
        show(found, console)
    if several:
        tables.show(runs, console, baseline=baseline, interval=method)
        for line in remarks(runs, baseline):
            console.print(f"note: {line}", highlight=False, soft_wrap=True, style="yellow", markup=False)
    for folder, why in failures.items():
        if not (each_run and (folder / "failed").is_file()):  # else said below the table of runs
            console.print(f"failed: {folder}: {why}", highlight=False, soft_wrap=True, style="red", markup=False)
    if csv is not None:
        if runs.empty:
            raise ReportError(f"csv={str(csv)!r}: there is nothing to write, no run has finished")
        _written("csv", csv, aggregate(runs, interval=method).to_csv(index=False))
        console.print(f"written: {csv}", highlight=False, soft_wrap=True)


def remarks(runs: pd.DataFrame, baseline: str | None) -> list[str]:
    """What a reader must know about `runs` before believing a comparison. A line each."""
    lines = doubts(runs, baseline)
    for key, values in with_scheme(runs).items():
        by_value: dict[str, list[str]] = {}
        for scheme, value in values.items():
            by_value.setdefault(value, []).append(scheme)
        said = "; ".join(f"{value} in {', '.join(schemes)}" for value, schemes in by_value.items())
        lines.append(f"{key} differs between schemes: {said}")
    return lines


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=150)  # a log has no width of its own


def _written(option: str, file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{option}={str(file)!r}: must be a file that can be written ({error.strerror})") from None
