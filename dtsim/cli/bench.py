"""`dtsim bench`: a sub-command for each thing that is measured."""

from __future__ import annotations

from typing import Annotated

import typer

from dtsim.cli.options import Keys, fail, names, numbers, pairs, progress, whole_numbers
from dtsim.cli.verbs import Verbs

app = typer.Typer(
    cls=Verbs,
    help="Measure allocators and solvers against the optimum, environments against peers, the twin against the truth.",
    no_args_is_help=True,
)


@app.command("allocation")
def allocation(
    overrides: Keys = None,
    mode: Annotated[str, typer.Option(help="snapshots or contiguous: whether time passes between slots")] = "snapshots",
    allocators: Annotated[str, typer.Option(help="names in conf/allocator, with commas; empty: all")] = "",
    users: Annotated[str, typer.Option(help="numbers of MUs, with commas (snapshots)")] = "5,10,20,40,100",
    slots: Annotated[int, typer.Option(help="held-out slots for each number of MUs (snapshots)")] = 1000,
    repeats: Annotated[int, typer.Option(help="timed runs, of which the median counts (snapshots)")] = 5,
    seeds: Annotated[int, typer.Option(help="seeds of the worlds, for intervals (contiguous)")] = 5,
    worlds: Annotated[int, typer.Option(help="worlds of each seed (contiguous)")] = 8,
    frames: Annotated[int, typer.Option(help="frames that pass in each world (contiguous)")] = 2,
) -> None:
    """Every allocator on the same held-out slots: gap to the optimum and decision time, or delays where time passes.

    With --mode contiguous what is not done in a slot waits for the next: delays of tasks, training that is overdue and
    the largest stable load, and learned policies compared with rules.
    """
    from dtsim.bench import allocation as measured
    from dtsim.bench import queue_delays
    from dtsim.core.parts import ConfigError

    try:
        if mode == "contiguous":
            queue_delays.bench(
                allocators=names(allocators),
                seeds=seeds,
                worlds=worlds,
                frames=frames,
                overrides=overrides or [],
                progress=progress(),
            )
            return
        if mode != "snapshots":
            raise ConfigError([f"mode={mode!r}: must be snapshots or contiguous"])
        measured.bench(
            allocators=names(allocators),
            users=whole_numbers("users", users),
            slots=slots,
            repeats=repeats,
            overrides=overrides or [],
            progress=progress(),
        )
    except ConfigError as error:
        fail(error.lines)


@app.command("association")
def association(
    overrides: Keys = None,
    solvers: Annotated[str, typer.Option(help="names in conf/solver, with commas; empty: all")] = "",
    sizes: Annotated[str, typer.Option(help="numbers of MUs and BSs, as 50/5, with commas")] = (
        "50/5,100/10,300/20,1000/50,3000/100"
    ),
    loads: Annotated[str, typer.Option(help="of mixed, retraining, inference, equal, with commas")] = (
        "mixed,retraining,inference,equal"
    ),
    seeds: Annotated[int, typer.Option(help="instances of each size and kind of loads")] = 10,
    time_limit: Annotated[float, typer.Option(help="of a solver on an instance, in seconds of wall time")] = 10.0,
    exact_links: Annotated[
        int, typer.Option(help="cpsat, branch_and_bound and milp are left out where MUs times BSs is more")
    ] = 6000,
) -> None:
    """Objective, proven bound, gap and CPU time of every association solver, on the same instances."""
    from dtsim.bench import association as measured
    from dtsim.core.parts import ConfigError

    try:
        measured.bench(
            solvers=names(solvers),
            sizes=pairs("sizes", sizes),
            loads=names(loads),
            seeds=seeds,
            time_limit_s=time_limit,
            exact_links=exact_links,
            overrides=overrides or [],
            progress=progress(),
        )
    except ConfigError as error:
        fail(error.lines)


@app.command("retraining")
def retraining(
    overrides: Keys = None,
    users: Annotated[int, typer.Option(help="MUs that are retrained")] = 20,
    samples: Annotated[int, typer.Option(help="images of each")] = 320,
    repeats: Annotated[int, typer.Option(help="timed runs, of which the median counts")] = 5,
) -> None:
    """Samples per second of retraining: one by one, channels-last, as one stack, and heads on cached features."""
    from dtsim.bench import retraining as measured
    from dtsim.core.errors import DatasetError
    from dtsim.core.parts import ConfigError

    try:
        measured.bench(users=users, samples=samples, repeats=repeats, overrides=overrides or [], progress=progress())
    except (ConfigError, DatasetError) as error:
        fail(str(error).splitlines())


@app.command("environment")
def environment(
    overrides: Keys = None,
    users: Annotated[int, typer.Option(help="MUs")] = 20,
    batches: Annotated[str, typer.Option(help="numbers of environments in a batch, with commas")] = "1024,4096",
    steps: Annotated[int, typer.Option(help="steps of the single environment in a timed run")] = 10000,
    training_steps: Annotated[int, typer.Option(help="samples of a training; 0: no training")] = 6000,
    repeats: Annotated[int, typer.Option(help="timed runs, of which the median counts")] = 5,
) -> None:
    """Steps per CPU second of the environments and samples per CPU second of DDPG, beside their peers."""
    from dtsim.bench import environment as measured
    from dtsim.core.parts import ConfigError

    try:
        measured.bench(
            users=users,
            batches=whole_numbers("batches", batches),
            steps=steps,
            training_steps=training_steps,
            repeats=repeats,
            overrides=overrides or [],
            progress=progress(),
        )
    except ConfigError as error:
        fail(error.lines)


@app.command("twin")
def twin(
    overrides: Keys = None,
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
    from dtsim.bench import twin as measured
    from dtsim.core.parts import ConfigError

    try:
        measured.bench(
            parts=names(parts),
            drifts=names(drifts),
            loop_drifts=names(loop_drifts),
            names=names(generators),
            samples=whole_numbers("samples", samples),
            stored=stored,
            tested=tested,
            seeds=seeds,
            first_seed=first_seed,
            budgets=numbers("budgets", budgets),
            ratios=numbers("ratios", ratios),
            processes=processes,
            overrides=overrides or [],
            progress=progress(),
        )
    except ConfigError as error:
        fail(error.lines)
