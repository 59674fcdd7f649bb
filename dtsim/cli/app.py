"""The command line: verbs only. What takes long to import is imported by the verb that needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from dtsim.core.progress import Progress
    from dtsim.runner.jobs import Plan

T = TypeVar("T")

app = typer.Typer(
    help="When to retrain, where to compute, and what a digital twin is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

bench_app = typer.Typer(
    help="Measure allocators against the optimum, environments against their peers, the twin against the truth.",
    no_args_is_help=True,
)
app.add_typer(bench_app, name="bench")

# Everything after `run` and `check` is Hydra's.
_HYDRA = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}
_SHOWS_ONLY = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc"}


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    from dtsim.runner.help import completions

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
        from dtsim.runner.help import show_help

        show_help(arguments)
        return
    from dtsim.runner import jobs

    runs = not any(argument.split("=")[0] in _SHOWS_ONLY for argument in arguments)
    asked = _planned(arguments) if runs else None
    try:
        if asked is not None and asked.sweep and asked.known:
            done = jobs.run_sweep(asked)
        else:
            jobs.launch(arguments)
            done = True
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on from what is done and cached", err=True)
        raise typer.Exit(130) from None
    if not done:
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
        _fail([str(error)])


Whole = Annotated[
    list[str] | None, typer.Argument(help="group=choice and key=value, as for run", metavar="[OVERRIDES]...")
]


@bench_app.command("allocation")
def bench_allocation(
    overrides: Whole = None,
    allocators: Annotated[str, typer.Option(help="names in conf/allocator, with commas; empty: all")] = "",
    users: Annotated[str, typer.Option(help="numbers of MUs, with commas")] = "5,10,20,40,100",
    slots: Annotated[int, typer.Option(help="held-out slots for each number of MUs")] = 1000,
    repeats: Annotated[int, typer.Option(help="timed runs, of which the median counts")] = 5,
) -> None:
    """Gap to the optimum and decision time of every allocator, on the same held-out slots."""
    from dtsim.bench import allocation
    from dtsim.core.parts import ConfigError

    try:
        allocation.bench(
            allocators=[name for name in allocators.split(",") if name],
            users=_numbers("users", users),
            slots=slots,
            repeats=repeats,
            overrides=overrides or [],
            progress=_progress(),
        )
    except ConfigError as error:
        _fail(error.lines)


@bench_app.command("retraining")
def bench_retraining(
    overrides: Whole = None,
    users: Annotated[int, typer.Option(help="MUs that are retrained")] = 20,
    samples: Annotated[int, typer.Option(help="images of each")] = 320,
    repeats: Annotated[int, typer.Option(help="timed runs, of which the median counts")] = 5,
) -> None:
    """Samples per second of retraining: one by one, channels-last, as one stack, and heads on cached features."""
    from dtsim.bench import retraining
    from dtsim.core.parts import ConfigError
    from dtsim.learning.data.splits import DatasetError

    try:
        retraining.bench(users=users, samples=samples, repeats=repeats, overrides=overrides or [], progress=_progress())
    except (ConfigError, DatasetError) as error:
        _fail(str(error).splitlines())


@bench_app.command("environment")
def bench_environment(
    overrides: Whole = None,
    users: Annotated[int, typer.Option(help="MUs")] = 20,
    batches: Annotated[str, typer.Option(help="numbers of environments in a batch, with commas")] = "1024,4096",
    steps: Annotated[int, typer.Option(help="steps of the single environment in a timed run")] = 10000,
    training_steps: Annotated[int, typer.Option(help="samples of a training; 0: no training")] = 6000,
    repeats: Annotated[int, typer.Option(help="timed runs, of which the median counts")] = 5,
) -> None:
    """Steps per CPU second of the environments and samples per CPU second of DDPG, beside their peers."""
    from dtsim.bench import environment
    from dtsim.core.parts import ConfigError

    try:
        environment.bench(
            users=users,
            batches=_numbers("batches", batches),
            steps=steps,
            training_steps=training_steps,
            repeats=repeats,
            overrides=overrides or [],
            progress=_progress(),
        )
    except ConfigError as error:
        _fail(error.lines)


@bench_app.command("twin")
def bench_twin(
    overrides: Whole = None,
    parts: Annotated[str, typer.Option(help="of generators, predictors, amounts, with commas")] = (
        "generators,predictors,amounts"
    ),
    drifts: Annotated[str, typer.Option(help="names in conf/drift, with commas")] = (
        "unseen_classes,rotation,label_shift"
    ),
    loop_drifts: Annotated[str, typer.Option(help="names in conf/drift, for amounts")] = "unseen_classes,label_shift",
    generators: Annotated[str, typer.Option(help="names in conf/generator, with commas; empty: all that fit")] = "",
    samples: Annotated[str, typer.Option(help="real samples of an update, with commas")] = "50,200,500,1000",
    stored: Annotated[int, typer.Option(help="samples that other MUs uploaded to the twin")] = 5000,
    tested: Annotated[int, typer.Option(help="test images of a region")] = 1000,
    seeds: Annotated[int, typer.Option(help="worlds; the closed loop is run in three of them at most")] = 5,
    first_seed: Annotated[int, typer.Option(help="seed of the first world")] = 100,
    budgets: Annotated[str, typer.Option(help="generator.kl_budget_nat to compare, with commas")] = "0.1,0.3",
    ratios: Annotated[str, typer.Option(help="generator.max_ratio under amount=kl, with commas")] = "1,5,10",
    processes: Annotated[int, typer.Option(help="that work side by side")] = 1,
) -> None:
    """Worth of every generator, errors of every predictor, cost of KL budget and amounts, with 95 % intervals."""
    from dtsim.bench import twin
    from dtsim.core.parts import ConfigError

    try:
        twin.bench(
            parts=[name for name in parts.split(",") if name],
            drifts=[name for name in drifts.split(",") if name],
            loop_drifts=[name for name in loop_drifts.split(",") if name],
            names=[name for name in generators.split(",") if name],
            samples=_numbers("samples", samples),
            stored=stored,
            tested=tested,
            seeds=seeds,
            first_seed=first_seed,
            budgets=_parsed("budgets", budgets, float, "numbers"),
            ratios=_parsed("ratios", ratios, float, "numbers"),
            processes=processes,
            overrides=overrides or [],
            progress=_progress(),
        )
    except ConfigError as error:
        _fail(error.lines)


@app.command()
def info(overrides: Whole = None) -> None:
    """What every model, or the one of model=, costs: parameters, FLOP and bytes of a sample, work of an update."""
    from dtsim.bench.info import info as show_info
    from dtsim.core.parts import ConfigError
    from dtsim.learning.data.splits import DatasetError

    try:
        show_info(overrides or [])
    except (ConfigError, DatasetError) as error:
        _fail(str(error).splitlines())


def _numbers(name: str, text: str) -> list[int]:
    return _parsed(name, text, int, "whole numbers")


def _parsed(name: str, text: str, kind: Callable[[str], T], what: str) -> list[T]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        _fail([f"{name}={text!r}: must be {what} with commas between them"])


def _progress() -> Progress:
    from rich.console import Console

    from dtsim.core.terminal import LineProgress, TerminalProgress

    console = Console(stderr=True)
    return TerminalProgress(console) if console.is_terminal else LineProgress()


def _translated(overrides: list[str] | None) -> list[str]:
    return ["fresh=true" if argument == "--fresh" else argument for argument in overrides or []]


def _planned(arguments: list[str]) -> Plan:
    from dtsim.core.parts import ConfigError
    from dtsim.runner import jobs

    try:
        return jobs.plan(arguments)
    except ConfigError as error:
        _fail(error.lines)


def _fail(lines: list[str]) -> NoReturn:
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(2)


def main() -> None:
    """Entry point of the `dtsim` command."""
    app()
