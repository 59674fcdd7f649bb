"""The `dtsim report` command: reads the runs once, then prints and writes the requested output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pandas as pd
from rich.console import Console

from dtsim.reporting import tables
from dtsim.reporting.run_table import show, show_left_out
from dtsim.reporting.runs import USUAL, ReportError, folders, read, usual, with_scheme
from dtsim.reporting.statistics import GROUP, Interval, aggregate, doubts
from dtsim.reporting.verdict import FILE as VERDICT

if TYPE_CHECKING:
    from dtsim.reporting.style import Drawing

BASELINE = "single_timescale"
"""Baseline of comparisons by default, if it was run."""

MOST_SETTINGS = 4
"""Largest number of variants with figures; those with the most runs are chosen."""


def report(
    path: Path,
    *,
    each_run: bool = False,
    baseline: str | None = None,
    interval: str = "t",
    figures: Path | None = None,
    html: Path | None = None,
    csv: Path | None = None,
) -> None:
    """Print the report of the runs under `path`, and write the requested files.

    Args:
        path: a folder with results at any depth.
        each_run: also print a table of each run. If nothing has several seeds, only this table is printed.
        baseline: the scheme that the others are compared with; by default `BASELINE`, if there are runs of it.
        interval: t or bootstrap.
        figures: a folder for the figures.
        html: a file for the page; it includes the verdict of a reproduction if there is one under `path`.
        csv: a file for `aggregate` of every metric.

    Raises:
        ReportError: for an invalid value, no result, or a file that cannot be written.
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
    for option, file in (("figures", figures), ("html", html), ("csv", csv)):
        if file is not None and runs.empty:
            raise ReportError(
                f"{option}={str(file)!r}: there is nothing to write, no run has finished{_first(failures)}"
            )
    console = _console()
    _print(console, found, runs, failures, each_run=each_run, baseline=baseline, interval=method)
    drawings = _drawings(runs, baseline, method) if figures is not None or html is not None else []
    if figures is not None:
        from dtsim.reporting.style import save

        with _writing("figures", figures, "folder"):
            save(drawings, figures)
    if html is not None:
        from dtsim.reporting.page import page

        judged = path / VERDICT
        findings = pd.read_csv(judged) if judged.is_file() else None
        text = page(
            runs, failures, drawings, remarks(runs, baseline), baseline=baseline, interval=method, findings=findings
        )
        _write("html", html, text)
    if csv is not None:
        _write("csv", csv, without_formulas(aggregate(runs, interval=method)).to_csv(index=False))
    for file in (figures, html, csv):
        if file is not None:
            console.print(f"written: {file}", highlight=False, soft_wrap=True, markup=False)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with a quote before each text that a spreadsheet would take for a formula; numbers stay."""
    return table.map(
        lambda value: f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
    )


def _first(failures: Mapping[Path, str]) -> str:
    """The first reason why a run is left out, to end a line with."""
    return f"; {next(iter(failures.values()))}" if failures else ""


def _print(
    console: Console,
    found: Sequence[Path],
    runs: pd.DataFrame,
    failures: Mapping[Path, str],
    *,
    each_run: bool,
    baseline: str | None,
    interval: Interval,
) -> None:
    several = len(runs) > 0 and runs.groupby([*GROUP, "scheme"])["seed"].nunique().max() > 1
    each_run = each_run or not several
    said = show(found, console) if each_run else set()
    if several:
        tables.show(runs, console, baseline=baseline, interval=interval)
        for line in remarks(runs, baseline):
            console.print(f"note: {line}", highlight=False, soft_wrap=True, style="yellow", markup=False)
    for folder, why in failures.items():
        if folder not in said:
            show_left_out(console, folder, "left out", why)


def _drawings(runs: pd.DataFrame, baseline: str | None, interval: Interval) -> list[Drawing]:
    from dtsim.reporting import figures  # matplotlib takes a second to import
    from dtsim.reporting.settings import settings

    return figures.draw(settings(runs, interval, MOST_SETTINGS), baseline)


def remarks(runs: pd.DataFrame, baseline: str | None) -> list[str]:
    """Remarks about `runs` that matter for comparisons, one line each."""
    lines = doubts(runs, baseline)
    if (variants := runs["variant"].nunique()) > MOST_SETTINGS:
        lines.append(f"figures are of the {MOST_SETTINGS} settings with the most runs, of {variants}")
    if (runs["variant"] == USUAL).any():
        lines.append(f"{USUAL}: {usual(runs)}")
    for key, values in with_scheme(runs).items():
        by_value: dict[str, list[str]] = {}
        for scheme, value in values.items():
            by_value.setdefault(value, []).append(scheme)
        said = "; ".join(f"{value} in {', '.join(schemes)}" for value, schemes in by_value.items())
        lines.append(f"{key} differs between schemes: {said}")
    return lines


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=150)  # a log file has no width


def _write(option: str, file: Path, text: str) -> None:
    with _writing(option, file, "file"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


@contextmanager
def _writing(option: str, path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = f"{option}={str(path)!r}: must be a {kind} that can be written ({error.strerror})"
        raise ReportError(said) from None
