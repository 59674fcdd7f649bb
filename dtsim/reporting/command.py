"""The `dtsim report` command: reads the runs once, then prints and writes the requested output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pandas as pd
from rich.console import Console

from dtsim.reporting import tables
from dtsim.reporting.along import SCHEME, Along, along, split
from dtsim.reporting.folding import wide
from dtsim.reporting.labels import USUAL, told, usual
from dtsim.reporting.lengths import inches
from dtsim.reporting.passing import leaking
from dtsim.reporting.run_table import show, show_left_out
from dtsim.reporting.runs import ReportError, folders, read
from dtsim.reporting.selection import conditions, selected
from dtsim.reporting.statistics import GROUP, Interval, aggregate, doubts
from dtsim.reporting.verdict import FILE as VERDICT

if TYPE_CHECKING:
    from dtsim.reporting.style import Drawing

MOST_SETTINGS = 4
"""Largest number of variants with figures; those with the most runs are chosen."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a report is to show, as it was typed."""

    by: Sequence[str] = ()
    """Keys that are compared; none: the schemes, in separate tables of means, comparisons and break-outs."""
    where: Sequence[str] = ()
    """Conditions key=value that runs must meet."""
    baseline: str | None = None
    """The choice that others are compared with; by default `USUAL_BASELINE` if it was run; else, with `by`, the
    first."""
    interval: str = "t"
    """t or bootstrap."""
    each_run: bool = False
    """Also print a table of each run. If nothing has several seeds, only this table is printed."""
    figures: Path | None = None
    """A folder for the figures."""
    width: str = "page"
    """Width of the figures: see `lengths.inches`."""
    html: Path | None = None
    """A file for the page; it includes the verdict of a reproduction if there is one under a path."""
    csv: Path | None = None
    """A file for the means of every metric, and with `by` their differences from the baseline."""


def report(paths: Sequence[Path], asked: Asked) -> None:
    """Print the report of the runs under `paths`, and write the requested files.

    Raises:
        ReportError: for an invalid value, no result, or a file that cannot be written.
    """
    method = next((known for known in get_args(Interval) if known == asked.interval), None)
    if method is None:
        raise ReportError(f"interval={asked.interval!r}: must be one of {', '.join(get_args(Interval))}")
    wanted, keys, width_in = conditions(asked.where), split(asked.by), inches(asked.width)
    if asked.by and not keys:
        raise ReportError("by='': must be a key, or several with commas between them")
    found = folders(*paths)
    runs, failures = read(found)
    if runs.empty:
        _refuse_without_runs(asked, failures)
        show_all(found, failures)
        return
    runs = selected(runs, wanted)
    shown = along(runs, keys or SCHEME, baseline=asked.baseline, interval=method, pairs=bool(keys))
    console = wide(Console())
    kept = set(runs["folder"]) | set(failures)
    _print(console, [folder for folder in found if folder in kept], failures, shown, asked)
    drawings = _drawings(runs, shown, width_in) if asked.figures is not None or asked.html is not None else []
    if asked.figures is not None:
        from dtsim.reporting.style import save

        with _writing("figures", asked.figures, "folder"):
            save(drawings, asked.figures)
    if asked.html is not None:
        from dtsim.reporting.page import page

        judged = next((path / VERDICT for path in paths if (path / VERDICT).is_file()), None)
        findings = pd.read_csv(judged) if judged is not None else None
        tables_of = [tables.side_by_side(shown)] if keys else list(tables.report(shown))
        _write("html", asked.html, page(runs, failures, drawings, remarks(shown), tables_of, findings=findings))
    if asked.csv is not None:
        table = shown.table() if keys else _means(shown)
        _write("csv", asked.csv, without_formulas(table).to_csv(index=False))
    for file in (asked.figures, asked.html, asked.csv):
        if file is not None:
            console.print(f"written: {file}", highlight=False, soft_wrap=True, markup=False)


def _means(shown: Along) -> pd.DataFrame:
    """The means of every metric, with a column for each key that differs."""
    found = aggregate(shown.runs, interval=shown.interval)
    named = [shown.named(*place) for place in zip(found["variant"], found["scheme"], strict=True)]
    for place, key in enumerate(shown.others):
        found.insert(1 + place, key, [name[key] for name in named])
    return found


def _refuse_without_runs(asked: Asked, failures: Mapping[Path, str]) -> None:
    if asked.baseline is not None:
        raise ReportError(f"baseline={asked.baseline!r}: must be one of none, no run has finished")
    for option, file in (("figures", asked.figures), ("html", asked.html), ("csv", asked.csv)):
        if file is not None:
            raise ReportError(
                f"{option}={str(file)!r}: there is nothing to write, no run has finished{_first(failures)}"
            )


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with a quote before each text that a spreadsheet would take for a formula; numbers stay."""
    return table.map(
        lambda value: f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
    )


def _first(failures: Mapping[Path, str]) -> str:
    """The first reason why a run is left out, to end a line with."""
    return f"; {next(iter(failures.values()))}" if failures else ""


def show_all(found: Sequence[Path], failures: Mapping[Path, str]) -> None:
    """Print the table of each run, and why others are left out."""
    console = wide(Console())
    said = show(found, console)
    for folder, why in failures.items():
        if folder not in said:
            show_left_out(console, folder, "left out", why)


def _print(console: Console, found: Sequence[Path], failures: Mapping[Path, str], shown: Along, asked: Asked) -> None:
    several = shown.runs.groupby([*GROUP, "scheme"])["seed"].nunique().max() > 1
    if asked.each_run or not (several or asked.by):
        show_all(found, failures)
    if several or asked.by:
        for table in [tables.side_by_side(shown)] if asked.by else tables.report(shown):
            tables.show(table, console)
        for line in remarks(shown):
            console.print(f"note: {line}", highlight=False, soft_wrap=True, style="yellow", markup=False)
        if not asked.each_run:
            for folder, why in failures.items():
                show_left_out(console, folder, "left out", why)


def _drawings(runs: pd.DataFrame, shown: Along, width_in: float) -> list[Drawing]:
    from dtsim.reporting import figures  # matplotlib takes a second to import
    from dtsim.reporting.settings import settings

    if shown.along_mu:  # every figure over MUs compares them already
        shown = along(runs, interval=shown.interval, pairs=False)
    drawn = settings(shown.runs, shown.interval, MOST_SETTINGS)
    return figures.draw(drawn, shown.baseline, width_in)


def remarks(shown: Along) -> list[str]:
    """Remarks about the runs that matter for comparisons, one line each."""
    runs, said = shown.runs, " and ".join(shown.keys)
    lines = doubts(runs, shown.baseline)
    for _, run in leaking(runs).iterrows():
        lines.append(f"work is lost or made in {run['folder']}: conservation_error is {run['conservation_error']:.1e}")
    if (variants := runs["variant"].nunique()) > MOST_SETTINGS:
        lines.append(f"figures are of the {MOST_SETTINGS} settings with the most runs, of {variants}")
    if shown.keys == SCHEME and (runs["variant"] == USUAL).any():
        lines.append(f"{USUAL}: {usual(runs)}")
    if hidden := [key for key in shown.others if key not in shown.telling]:
        lines.append(f"{', '.join(hidden)} differ as well, with {' and '.join(shown.telling)}")
    if shown.keys != SCHEME and len(shown.choices) == 1:
        lines.append(f"{said} is {shown.choices[0]} in every run: there is nothing to compare")
    between = "schemes" if shown.keys == SCHEME else f"values of {said}"
    lines += [f"{key} differs between {between}: {told(values)}" for key, values in shown.remarks().items()]
    return lines


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
