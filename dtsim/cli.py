"""The command line: verbs only. What takes long to import is imported by the verb that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="When to retrain, where to compute, and what a digital twin is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Everything after `run` and `check` is Hydra's.
_HYDRA = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}
_SHOWS_ONLY = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc"}


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    from dtsim.helping import completions

    return completions(incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="group=choice, key=value and Hydra's flags", autocompletion=_complete, metavar="[OVERRIDES]..."
    ),
]


@app.command(context_settings=_HYDRA, add_help_option=False)
def run(overrides: Overrides = None) -> None:
    """Run one experiment, or a sweep of them with -m. `dtsim run --help` lists every group and key."""
    arguments = _translated(overrides)
    if "--help" in arguments or "-h" in arguments:
        from dtsim.helping import show_help

        show_help(arguments)
        return
    from dtsim import jobs

    runs = not any(argument.split("=")[0] in _SHOWS_ONLY for argument in arguments)
    asked = _planned(arguments) if runs else None
    try:
        jobs.launch(arguments)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on from what is done and cached", err=True)
        raise typer.Exit(130) from None
    if asked is not None and asked.sweep:
        from dtsim import report

        folders = [job.config.folder for job in asked.jobs]
        report.show(folders)
        if not all(report.is_done(folder) for folder in folders):
            raise typer.Exit(1)


@app.command(context_settings=_HYDRA, add_help_option=False)
def check(overrides: Overrides = None) -> None:
    """Compose and construct every job of a run or sweep, show all errors at once, run nothing."""
    asked = _planned(_translated(overrides))
    for job in asked.jobs:
        typer.echo(f"ok  {job.config.folder}")
    typer.echo(f"{len(asked.jobs)} job{'s' if len(asked.jobs) > 1 else ''} can run")


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="a folder with results anywhere below it")] = Path("outputs"),
) -> None:
    """Show a table of the results under PATH."""
    from dtsim import report as reporting

    found = reporting.find(path)
    if not found:
        _fail([f"PATH={str(path)!r}: there is no result under it"])
    reporting.show(found)


def _translated(overrides: list[str] | None) -> list[str]:
    return ["fresh=true" if argument == "--fresh" else argument for argument in overrides or []]


def _planned(arguments: list[str]):  # type: ignore[no-untyped-def]  # its type's module is what must come late
    from dtsim import jobs
    from dtsim.parts import ConfigError

    try:
        return jobs.plan(arguments)
    except ConfigError as error:
        _fail(error.lines)


def _fail(lines: list[str]) -> None:
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(2)


def main() -> None:
    """Entry point of the `dtsim` command."""
    app()
