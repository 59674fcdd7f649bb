"""One page with everything: tables, figures, configuration, versions, failures. Self-contained, works offline.

What is on it is gathered here; how it is laid out is said by the template `page.html`, which escapes every text.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

from dtsim.reporting import tables, verdict
from dtsim.reporting.labels import keys_of, shown, swept, text
from dtsim.reporting.run_table import NAMING, measured, swept_columns
from dtsim.reporting.selection import natural
from dtsim.reporting.style import Drawing, look

_SORTS = "A click on a header sorts."


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    """What it shows."""
    key: float | str
    """What it is sorted by; empty: last."""


@dataclass(frozen=True)
class Table:
    """A table that sorts by a click on a header."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """One or more, each with a cell for every header."""
    marked: Sequence[bool] = ()
    """Which rows stand out; none where nothing is said."""
    title: str = ""
    note: str = ""
    """What stands below it."""


def page(
    runs: pd.DataFrame,
    failures: Mapping[Path, str],
    drawings: Sequence[Drawing],
    remarks: Sequence[str],
    groups: Sequence[tables.Groups],
    *,
    findings: pd.DataFrame | None = None,
) -> str:
    """The report of `runs` as one HTML document.

    Args:
        runs: as `runs.load` gives them.
        failures: for each folder without a finished run, why.
        drawings: the figures, in order.
        remarks: what a reader must know, a line each.
        groups: the tables, in order.
        findings: what `verdict.evaluate` found, where the paper's claims were judged.
    """
    return _template().render(
        contents=[],  # filled section by section
        seeds=sorted(runs["seed"].unique())[:20],
        users=sorted(runs["mu"].unique()),
        differs=_differs(runs),
        verdict=_verdict(findings) if findings is not None else None,
        remarks=remarks,
        groups=[_groups(group) for group in groups if group.rows],
        figures=[(drawing, _svg(drawing)) for drawing in drawings],
        runs=_runs(runs),
        failures=Table(
            "Why there is no result.", ["folder", "why"], [_texts(str(folder), why) for folder, why in failures.items()]
        ),
        configuration=_configuration(runs),
        versions=_versions(runs),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(resources.files("dtsim.reporting").joinpath("page.html").read_text(encoding="utf-8"))


def _texts(*texts: str) -> list[Cell]:
    return [Cell(text, text) for text in texts]


def _verdict(findings: pd.DataFrame) -> Table:
    headers = ("figure", "claim", "MUs", "measured, 95 % interval", "verdict", "corrected (Holm)", "otherwise")
    rows = []
    said: tuple[str, str] = ("", "")
    for line in verdict.lines(findings):
        said = (line.figure, line.claim) if line.figure else said  # a line for each MU count must bear to be sorted
        rows.append(_texts(*said, line.mu, line.measured, line.verdict, line.corrected, line.depends))
    return Table(_SORTS, headers, rows)


def _groups(groups: tables.Groups) -> Table:
    headers = [_one_line(column.header) for column in groups.columns]
    cells = [[_leading(column.cell(row)) for column in groups.columns] for row in groups.rows]
    title = groups.title[0].upper() + groups.title[1:]
    caption = f"{groups.about[0].upper()}{groups.about[1:]}. {_SORTS}"
    return Table(caption, headers, cells, title=title, note=groups.note)


def _leading(text: str) -> Cell:
    """A formatted cell, sorted by the number that it begins with, else by its text."""
    try:
        return Cell(text, float(text.split(" ")[0].replace(",", "").lstrip("<+")))
    except ValueError:
        return Cell(text, math.nan if text in ("–", "baseline") else text)


def _one_line(header: str) -> str:
    return header.replace("-\n", "").replace("\n", " ")


def _svg(drawing: Drawing) -> str:
    buffer = io.BytesIO()
    with look():
        drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _runs(runs: pd.DataFrame) -> Table:
    rows = [{str(name): value for name, value in row.items()} for row in runs.to_dict("records")]
    columns = [*swept_columns(rows), *NAMING, *measured(rows)]
    cells = [[_leading(column.cell(row)) for column in columns] for row in rows]
    return Table(_SORTS, [_one_line(column.header) for column in columns], cells)


def _differs(runs: pd.DataFrame) -> Table:
    """Scheme, MUs and seed where there are several, the keys that differ within a scheme, and the versions."""
    values = {key: text(runs, key) for key in ("scheme", "mu", *swept(runs), "seed")}
    values |= {name: runs[name].map(shown) for name in map(str, runs) if name.startswith("versions.")}
    rows = [
        _texts(key.removeprefix("versions.") + " (version)" * key.startswith("versions."), _counted(said))
        for key, said in values.items()
        if said.nunique() > 1
    ]
    return Table("All other keys are the same in all runs, or follow from these.", ["key", "values"], rows)


def _counted(values: pd.Series) -> str:
    """Each value with the number of its runs; only their number where there are many."""
    counts = values.value_counts(sort=False)
    if len(counts) > 30:
        return f"{len(counts)} values"
    said = {str(value): count for value, count in counts.items()}
    return "; ".join(f"{value} ({said[value]})" for value in sorted(said, key=natural))


def _configuration(runs: pd.DataFrame) -> Table:
    rows, differing = [], []
    for key in sorted(keys_of(runs)):
        counts = text(runs, key).value_counts(sort=False)
        differing.append(len(counts) > 1)
        said = [f"{value} ({count} runs)" for value, count in counts.items()] if len(counts) > 1 else counts.index
        rows.append(_texts(key, "; ".join(map(str, said))))
    return Table("Every key; those that differ between runs are marked.", ["key", "value"], rows, differing)


def _versions(runs: pd.DataFrame) -> Table:
    rows, differing = [], []
    for name in (str(name) for name in runs if str(name).startswith("versions.")):
        there = sorted({str(version) for version in runs[name].dropna()})
        differing.append(len(there) > 1)
        rows.append(_texts(name.removeprefix("versions."), ", ".join(there)))
    return Table("", ["package", "version"], rows, differing)
