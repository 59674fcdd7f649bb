"""One page with everything: tables, figures, configuration, versions, failures. Self-contained, works offline."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from dtsim.reporting import tables, verdict
from dtsim.reporting.run_table import COLUMNS
from dtsim.reporting.runs import choices, shown
from dtsim.reporting.statistics import Interval
from dtsim.reporting.style import Drawing, look

Cell = tuple[str, float | str]
"""What a cell shows, and what it is sorted by."""

_SORTS = "A click on a header sorts."


def page(
    runs: pd.DataFrame,
    failures: Mapping[Path, str],
    drawings: Sequence[Drawing],
    remarks: Sequence[str],
    *,
    baseline: str | None,
    interval: Interval,
    findings: pd.DataFrame | None = None,
) -> str:
    """The report of `runs` as one HTML document.

    Args:
        runs: as `runs.load` gives them.
        failures: for each folder without a finished run, why.
        drawings: the figures, in order.
        remarks: what a reader must know, a line each.
        baseline: the scheme that others are compared with; none: no comparison.
        interval: how intervals are made.
        findings: what `verdict.evaluate` found, where the paper's claims were judged.
    """
    seeds = ", ".join(str(seed) for seed in sorted(runs["seed"].unique())[:20])
    users = ", ".join(str(mu) for mu in sorted(runs["mu"].unique()))
    summary = f"{len(runs)} run{'s' * (len(runs) > 1)}, {len(failures)} not finished; K = {users} MUs; seeds {seeds}"
    method = "Student t" if interval == "t" else "BCa bootstrap"
    sections = [
        _verdict(findings) if findings is not None else "",
        _list("Notes", remarks),
        _groups(f"Mean over seeds and 95 % interval ({method})", *tables.groups(runs, interval)),
    ]
    if baseline is not None:
        compared = tables.comparisons(runs, baseline, interval)
        sections.append(_groups(f"Against {baseline}, seed by seed on the same worlds", *compared))
    sections.append(_groups("Break-outs over all seeds", *tables.counted(runs), note=tables.NOT_INDEPENDENT))
    sections += [_figure(drawing) for drawing in drawings]
    sections += [
        _runs(runs),
        _failures(failures),
        _configuration(runs),
        _versions(runs),
    ]
    template = resources.files("dtsim.reporting").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("{{summary}}", escape(summary)).replace("{{sections}}", "\n".join(filter(None, sections)))


def _verdict(findings: pd.DataFrame) -> str:
    headers = ("figure", "claim", "MUs", "measured, 95 % interval", "verdict", "otherwise")
    rows: list[list[Cell]] = []
    said: tuple[str, str] = ("", "")
    for line in verdict.lines(findings):
        said = (line.figure, line.claim) if line.figure else said  # a line for each MU count must bear to be sorted
        texts = (*said, line.mu, line.measured, line.verdict, line.depends)
        rows.append([(text, text) for text in texts])
    note = "<p>What is measured, the rule, and every setting and number of MUs: verdict.csv.</p>"
    return _section("What the paper claims", _table(_SORTS, headers, rows) + note) if rows else ""


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _list(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return _section(title, f"<ul>{items}</ul>") if items else ""


def _table(
    caption: str, headers: Sequence[str], rows: Sequence[Sequence[Cell]], marked: Sequence[bool] | None = None
) -> str:
    """A table that sorts by a click on a header; `marked` rows stand out."""
    heads = [
        f'<th scope="col"{_kind(key)}><button type="button">{escape(text)}</button></th>'
        for text, (_, key) in zip(headers, rows[0], strict=True)
    ]
    lines = []
    for row, mark in zip(rows, marked or [False] * len(rows), strict=True):
        cells = (f'<td{_kind(key)} data-key="{_key(key)}">{escape(text)}</td>' for text, key in row)
        kind = ' class="differs"' if mark else ""
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _kind(key: float | str) -> str:
    return ' class="text"' if isinstance(key, str) else ""


def _key(key: float | str) -> str:
    return "" if isinstance(key, float) and math.isnan(key) else escape(str(key))


def _groups(title: str, columns: Sequence[tables.Column], rows: Sequence[Mapping[str, Any]], note: str = "") -> str:
    if not rows:
        return ""
    several = len({row["variant"] for row in rows}) > 1
    headers = ["setting"] * several + [_one_line(column.header) for column in columns]
    cells = [
        [(str(row["variant"]) or "as configured", str(row["variant"]))] * several
        + [(text := column.cell(dict(row)), _leading(text)) for column in columns]
        for row in rows
    ]
    said = f"<p>{escape(note)}.</p>" if note else ""
    return _section(title, _table(_SORTS, headers, cells) + said)


def _leading(text: str) -> float | str:
    """What a formatted cell is sorted by: the number that it begins with, else its text."""
    try:
        return float(text.split(" ")[0].replace(",", "").lstrip("<+"))
    except ValueError:
        return math.nan if text == "–" else text


def _one_line(header: str) -> str:
    return header.replace("-\n", "").replace("\n", " ")


def _figure(drawing: Drawing) -> str:
    buffer = io.BytesIO()
    with look():
        drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
    source = base64.b64encode(buffer.getvalue()).decode()
    return _section(
        drawing.title,
        f'<figure><img alt="{escape(drawing.title)}. {escape(drawing.caption)}" '
        f'src="data:image/svg+xml;base64,{source}"><figcaption>{escape(drawing.caption)}</figcaption></figure>',
    )


def _runs(runs: pd.DataFrame) -> str:
    several = runs["variant"].nunique() > 1
    headers = ["setting"] * several + [_one_line(column.header) for column in COLUMNS]
    rows = []
    for run in runs.itertuples(index=False):
        cells: list[Cell] = [(str(run.variant), str(run.variant))] * several
        for column in COLUMNS:
            text = column.cell(run)
            cells.append((text, _leading(text)))
        rows.append(cells)
    return _section(
        "Each run", f"<details><summary>{len(runs)} runs</summary>{_table(_SORTS, headers, rows)}</details>"
    )


def _failures(failures: Mapping[Path, str]) -> str:
    rows = [[(str(folder), str(folder)), (why, why)] for folder, why in failures.items()]
    return _section("Not finished", _table("Why there is no result.", ["folder", "why"], rows)) if rows else ""


def _configuration(runs: pd.DataFrame) -> str:
    rows, differing = [], []
    for key in sorted(choices(runs)):
        counts = runs[f"config.{key}"].map(shown).value_counts(sort=False)
        differing.append(len(counts) > 1)
        said = (
            "; ".join(f"{value} ({count} runs)" for value, count in counts.items())
            if len(counts) > 1
            else counts.index[0]
        )
        rows.append([(key, key), (str(said), str(said))])
    table = _table("Every key; those that differ between runs are marked.", ["key", "value"], rows, differing)
    return _section(
        "Configuration", f"<details open><summary>{len(rows)} keys, {sum(differing)} differ</summary>{table}</details>"
    )


def _versions(runs: pd.DataFrame) -> str:
    names = [str(name) for name in runs if str(name).startswith("versions.")]
    rows, differing = [], []
    for name in names:
        there = sorted({str(version) for version in runs[name].dropna()})
        differing.append(len(there) > 1)
        package, versions = name.removeprefix("versions."), ", ".join(there)
        rows.append([(package, package), (versions, versions)])
    return _section("Versions", _table("", ["package", "version"], rows, differing))
