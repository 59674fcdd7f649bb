"""`dtsim run` and `dtsim check`: both take Hydra's command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dtsim.cli.options import Overrides, answered, checked, fail, planned, show_notes, understood

if TYPE_CHECKING:
    from dtsim.runner.arguments import Arguments
    from dtsim.runner.jobs import Plan


def run(overrides: Overrides = None) -> None:
    """Run one experiment, or a sweep of them with -m. `dtsim run --help` lists every group and key."""
    asked = understood(overrides)
    if answered(asked, "run"):
        return
    from dtsim.runner.signals import Terminated, terminable

    try:
        with terminable():
            done = _shown(asked) if asked.shows else _done(asked, planned(asked))
    except KeyboardInterrupt as error:
        typer.echo("interrupted: the same command goes on from what is done and cached", err=True)
        raise typer.Exit(143 if isinstance(error, Terminated) else 130) from None
    if not done:
        raise typer.Exit(1)


def _shown(asked: Arguments) -> bool:
    """Show what a flag of Hydra's asks for."""
    overrides = checked(asked)
    from dtsim.runner import launch

    launch.launch([*asked.flags, *overrides])
    return True


def _done(asked: Arguments, plan: Plan) -> bool:
    """Do what is planned; whether all is done."""
    from dtsim.runner import launch

    show_notes(plan)
    if plan.space is not None:
        return _studied(asked, plan)
    if plan.sweep and plan.known:
        return launch.run_sweep(plan)
    launch.launch([*asked.flags, *(plan.overrides if plan.known else plan.typed)])
    return True


def _studied(asked: Arguments, plan: Plan) -> bool:
    """Do the trials that a study lacks; whether all are done."""
    from dtsim.core.parts import ConfigError
    from dtsim.runner.study import optimise  # imports Optuna, which nothing else needs

    try:
        return optimise(asked, plan).done
    except ConfigError as error:
        fail(error.lines)


def check(overrides: Overrides = None) -> None:
    """Check every job of a run or sweep as far as its first frame, show all errors at once, run and write nothing."""
    asked = understood(overrides)
    if answered(asked, "check"):
        return
    if asked.shows:
        fail([f"{asked.shows[0]}: is a flag of dtsim run: write dtsim run {asked.shows[0]}"])
    plan = planned(asked, reads_data=True)
    show_notes(plan)
    for job in plan.jobs:
        typer.echo(f"ok  {job.config.folder}")
    typer.echo(f"{len(plan.jobs)} job{'s' if len(plan.jobs) > 1 else ''} can run")
