"""`dtsim report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtsim.cli.options import fail


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="folders with results anywhere below them [default: outputs]"),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="compare along this key, such as solver or generator.amount; several with commas"),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="only runs with this key=value, or key=value,value; may be repeated")
    ] = None,
    runs: Annotated[bool, typer.Option("--runs", help="a table of each run too")] = False,
    baseline: Annotated[
        str,
        typer.Option(
            help="the value of the compared key that others are compared with, seed by seed [default: single_timescale,"
            " or with --by the first]"
        ),
    ] = "",
    interval: Annotated[str, typer.Option(help="how 95 % intervals are made: t (Student's) or bootstrap (BCa)")] = "t",
    figures: Annotated[Path | None, typer.Option(help="write the figures into this folder, as PNG and PDF")] = None,
    width: Annotated[
        str, typer.Option(help="width of the figures: page, column, or a length such as 3.5in, 88mm, 252pt")
    ] = "page",
    html: Annotated[Path | None, typer.Option(help="write one page with everything to this file")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="write the means and intervals of every metric to this file, with --by the comparison too"),
    ] = None,
) -> None:
    """Show what the runs under PATH measured: means with intervals, comparisons, break-outs, failures."""
    from dtsim.reporting import command
    from dtsim.reporting.runs import ReportError

    asked = command.Asked(
        by=by or [],
        where=where or [],
        baseline=baseline or None,
        interval=interval,
        each_run=runs,
        figures=figures,
        width=width,
        html=html,
        csv=csv,
    )
    try:
        command.report(paths or [Path("outputs")], asked)
    except ReportError as error:
        fail([str(error)])
