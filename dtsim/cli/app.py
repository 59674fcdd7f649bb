"""The command line: a file for each verb. What takes long to import is imported by the verb that needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from dtsim.cli import bench
from dtsim.cli.info import info
from dtsim.cli.options import HYDRA, show_version
from dtsim.cli.report import report
from dtsim.cli.run import check, run
from dtsim.cli.verbs import Verbs
from dtsim.cli.watch import watch

app = typer.Typer(
    cls=Verbs,
    help="When to retrain, where to compute, and what a digital twin is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        show_version()
        raise typer.Exit


@app.callback()
def _dtsim(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command(**HYDRA)(run)
app.command(**HYDRA)(check)
app.command()(report)
app.command()(watch)
app.command()(info)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point of the `dtsim` command."""
    app()
