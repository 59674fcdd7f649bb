"""The gap of every allocator to the optimum, and the time that it takes to decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from pydoc import locate
from typing import Any

from dtsim.allocation.allocator import Allocator, prepared
from dtsim.allocation.optimal import gap
from dtsim.allocation.problem import AllocationProblem
from dtsim.bench.curves import figure
from dtsim.bench.output import show, tell, write_csv
from dtsim.bench.timing import Contender, race
from dtsim.core.cache import Cache
from dtsim.core.parts import ConfigError
from dtsim.core.progress import Progress
from dtsim.core.seeding import Streams, single_thread
from dtsim.runner.choices import Conf
from dtsim.runner.config import Config
from dtsim.runner.defaults import choices
from dtsim.runner.jobs import plan
from dtsim.runner.parts import Parts, mirror_of

_ALONE = 20
"""Number of slots decided one at a time in a timed run."""


def bench(
    *,
    allocators: Sequence[str],
    users: Sequence[int],
    slots: int,
    repeats: int,
    overrides: Sequence[str],
    progress: Progress,
) -> Path:
    """Measure `allocators` (names in conf/allocator; empty: all) on held-out slots; print a table, return the CSV.

    All allocators solve the same slots of the twin's copy of the network, for each number of `users`, with and without
    retraining. Learned allocators are loaded, or trained first.

    Raises:
        ConfigError: if a value is invalid.
    """
    single_thread()
    checked = [
        f"{name}={value}: must be >= 1" for name, value in (("slots", slots), ("repeats", repeats)) if value < 1
    ] + [f"users={value}: must be >= 1" for value in users if value < 1]
    if checked:
        raise ConfigError(checked)
    offered = [name for name in choices("allocator") if name != "external"]  # it needs a file
    only = [name for name in allocators or offered if _sees_only_queues(name)]
    if allocators and only:
        raise ConfigError([f"allocator={name}: decides among queues, needs --mode contiguous" for name in only])
    configs = {name: _config(name, overrides) for name in allocators or offered if name not in only}
    config = next(iter(configs.values()))
    mirror = mirror_of(config)
    cache = Cache(config.cache_folder, progress)
    contenders: dict[str, Allocator] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, own in configs.items():
        contenders[name] = Parts(own).allocator
        progress.say(f"allocator {name}")
        if learned := prepared(contenders[name], mirror, cache, progress):
            curves[name] = learned
    rows, notes = [], []
    for retraining, source in ((True, mirror), (False, replace(mirror, retraining_share=0.0))):
        for count in users:
            rng = Streams(0).torch("bench/allocation", count, int(retraining))
            problem = source.sample(slots, count, rng)
            measured, left_out = _measure(contenders, problem, repeats, progress)
            rows += [{"retraining": retraining, "users": count, "slots": slots} | row for row in measured]
            notes += left_out
    folder = Path(config.outputs) / "bench"
    if curves:
        write_csv(folder / "learning_curves.csv", [{"agent": name} | row for name in curves for row in curves[name]])
        for ending in ("png", "pdf"):
            figure(curves, folder / f"learning_curves.{ending}")
        notes.append(f"written: {folder / 'learning_curves'}.csv, .png and .pdf")
    path = folder / "allocation.csv"
    if rows:
        write_csv(path, rows)
        show("Gap to the optimum; CPU time to decide a slot in a batch and alone", [_shown(row) for row in rows])
        tell([*dict.fromkeys(notes), f"written: {path}"])  # without the duplicates of the two loads
    return path


def _sees_only_queues(name: str) -> bool:
    """Whether a choice in conf/allocator has no answer to a slot alone."""
    conf = Conf()
    found = conf.groups["allocator"].get(name)
    target = None if found is None else conf.class_of(found)
    return target is not None and getattr(locate(target), "contiguous_only", False)


def _config(name: str, overrides: Sequence[str]) -> Config:
    return plan([f"allocator={name}", *overrides], runs=False).jobs[0].config


def _measure(
    allocators: dict[str, Allocator], problem: AllocationProblem, repeats: int, progress: Progress
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each allocator, and a line for each allocator that cannot serve these slots."""
    gaps, notes = {}, []
    for name, allocator in allocators.items():
        try:
            allocation = allocator.allocate(problem)
        except ConfigError as error:
            notes += [f"{name} left out at K={problem.station.shape[-1]}: {line}" for line in error.lines]
        else:
            gaps[name] = gap(problem, allocation, "makespan")
    batched = [Contender(name, len(problem.station), _ready(allocators[name], [problem])) for name in gaps]
    few = [problem.slots(index) for index in range(min(_ALONE, len(problem.station)))]
    alone = [Contender(name, len(few), _ready(allocators[name], few)) for name in gaps]
    race([*batched, *alone], repeats, progress, f"timing K={problem.station.shape[-1]}")
    rows = []
    for together, single in zip(batched, alone, strict=True):
        values = gaps[together.name].double()
        rows.append(
            {
                "allocator": together.name,
                "gap_mean": values.mean().item(),
                "gap_p95": values.quantile(0.95).item(),
                "gap_worst": values.max().item(),
                "batched_s_per_slot": together.median_s,
                "single_s_per_slot": single.median_s,
            }
        )
    return rows, notes


def _ready(allocator: Allocator, problems: Sequence[AllocationProblem]) -> Callable[[], Callable[[], object]]:
    return partial(partial, _decide, allocator, problems)


def _decide(allocator: Allocator, problems: Sequence[AllocationProblem]) -> None:
    for problem in problems:
        allocator.allocate(problem)


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        "allocator": row["allocator"],
        "K": str(row["users"]),
        "retrains": "yes" if row["retraining"] else "no",
        "mean gap": _percent(row["gap_mean"]),
        "p95": _percent(row["gap_p95"]),
        "worst": _percent(row["gap_worst"]),
        "µs/slot": f"{1e6 * row['batched_s_per_slot']:.1f}",
        "alone": f"{1e6 * row['single_s_per_slot']:.0f}",
    }


def _percent(fraction: float) -> str:
    return f"{fraction:.2%}" if fraction < 1 else f"{fraction:.0%}"
