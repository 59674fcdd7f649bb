"""`dtsim run` and `dtsim check`: both take Hydra's command line."""

from __future__ import annotations

import typer

from dtsim.cli.options import Overrides, planned, translated

_SHOWS_ONLY = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc"}


def run(overrides: Overrides = None) -> None:
    """Run one experiment, or a sweep of them with -m. `dtsim run --help` lists every group and key."""
    arguments = translated(overrides)
    if "--help" in arguments or "-h" in arguments:
        from dtsim.runner.help import show_help

        show_help(arguments)
        return
    from dtsim.runner import launch
    from dtsim.runner.signals import Terminated, terminable

    runs = not any(argument.split("=")[0] in _SHOWS_ONLY for argument in arguments)
    try:
        with terminable():
            asked = planned(arguments) if runs else None
            if asked is not None and asked.sweep and asked.known:
                done = launch.run_sweep(asked)
            else:
                launch.launch(arguments)
                done = True
    except KeyboardInterrupt as error:
        typer.echo("interrupted: the same command goes on from what is done and cached", err=True)
        raise typer.Exit(143 if isinstance(error, Terminated) else 130) from None
    if not done:
        raise typer.Exit(1)


def check(overrides: Overrides = None) -> None:
    """Check every job of a run or sweep as far as its first frame, show all errors at once, run and write nothing."""
    arguments = translated(overrides)
    if "--help" in arguments or "-h" in arguments:
        from dtsim.runner.help import show_help

        show_help(arguments, verb="check")
        return
    asked = planned(arguments, reads_data=True)
    for note in asked.notes:
        typer.echo(f"note: {note}", err=True)
    for job in asked.jobs:
        typer.echo(f"ok  {job.config.folder}")
    typer.echo(f"{len(asked.jobs)} job{'s' if len(asked.jobs) > 1 else ''} can run")
