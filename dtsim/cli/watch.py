"""`dtsim watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtsim.cli.options import fail, progress


def watch(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    html: Annotated[
        Path | None, typer.Option(help="write the page that plays the run to this file [default: watch.html]")
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="write an animated GIF to this file")] = None,
    mp4: Annotated[Path | None, typer.Option(help="write an MP4 video to this file; needs dtsim[movie]")] = None,
    per_second: Annotated[float, typer.Option(help="pictures a second of GIF and MP4, 0.1 to 50")] = 10.0,
) -> None:
    """Show a run in motion: users, links, base stations, accuracy and retraining, slot by slot."""
    from dtsim.reporting.runs import ReportError
    from dtsim.reporting.watch import command

    try:
        command.watch(run, html=html, gif=gif, mp4=mp4, per_second=per_second, progress=progress())
    except ReportError as error:
        fail([str(error)])
