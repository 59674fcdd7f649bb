"""`dtsim report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtsim.cli.options import fail


def report(
    path: Annotated[Path, typer.Argument(help="a folder with results anywhere below it")] = Path("outputs"),
    runs: Annotated[bool, typer.Option("--runs", help="a table of each run too")] = False,
    baseline: Annotated[
        str, typer.Option(help="the scheme that others are compared with, seed by seed [default: single_timescale]")
    ] = "",
    interval: Annotated[str, typer.Option(help="how 95 % intervals are made: t (Student's) or bootstrap (BCa)")] = "t",
    figures: Annotated[Path | None, typer.Option(help="write the figures into this folder, as PNG and PDF")] = None,
    html: Annotated[Path | None, typer.Option(help="write one page with everything to this file")] = None,
    csv: Annotated[Path | None, typer.Option(help="write the means and intervals of every metric to this file")] = None,
) -> None:
    """Show what the runs under PATH measured: means with intervals, schemes compared, break-outs, failures."""
    from dtsim.reporting import command
    from dtsim.reporting.runs import ReportError

    try:
        command.report(
            path, each_run=runs, baseline=baseline or None, interval=interval, figures=figures, html=html, csv=csv
        )
    except ReportError as error:
        fail([str(error)])
