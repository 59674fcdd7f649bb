"""The gap of every association solver to a proven bound, and the CPU time that it takes, on the same instances."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

from dtsim.association.instances import LOADS, Loads, instance
from dtsim.association.problem import Association, AssociationProblem, Solver
from dtsim.bench.gaps import figure
from dtsim.bench.output import show, tell, write_csv
from dtsim.core.parts import ConfigError
from dtsim.core.progress import Progress
from dtsim.core.seeding import single_thread
from dtsim.runner.defaults import choices
from dtsim.runner.jobs import plan
from dtsim.runner.parts import Parts

SEARCHES = ("cpsat", "branch_and_bound", "milp")
"""Solvers whose model grows with links times two, and which use their whole time limit in large cells."""

Row = dict[str, Any]


def bench(
    *,
    solvers: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    loads: Sequence[str],
    seeds: int,
    time_limit_s: float,
    exact_links: int,
    overrides: Sequence[str],
    progress: Progress,
) -> Path:
    """Solve the instances of `sizes` x `loads` x seeds with every solver; print a table, write CSV and figure.

    Args:
        solvers: names in conf/solver; empty: all.
        sizes: numbers of MUs and BSs.
        loads: kinds of loads, see `instances`.
        seeds: instances of each size and kind, from seed 0 on.
        time_limit_s: of every solver that has a limit [s, wall time].
        exact_links: `SEARCHES` are left out of instances with more links (MUs times BSs).
        overrides: of the configuration.
        progress: where to report.

    Returns:
        The CSV, with a row for each instance and solver.

    Raises:
        ConfigError: if a value is invalid.
    """
    single_thread()
    _check(sizes, loads, seeds, time_limit_s, exact_links)
    built, outputs = _build(solvers, time_limit_s, overrides)
    _warm(built)
    rows: list[Row] = []
    notes = []
    with progress.phase("instances", len(sizes) * len(loads) * seeds) as phase:
        for users, stations in sizes:
            taken = {name: each for name, each in built.items() if _fits(name, users * stations, exact_links)}
            if left := [name for name in built if name not in taken]:
                notes.append(f"{users}/{stations}: left out {', '.join(left)} (more than {exact_links} links)")
            for kind in loads:
                for seed in range(seeds):
                    rows += _measured(taken, users, stations, kind, seed)
                    phase.advance(1, f"{users}/{stations} {kind} seed {seed}")
    if not rows:
        raise ConfigError([f"exact-links={exact_links}: leaves no solver for any size"])
    path = outputs / "bench" / "association.csv"
    write_csv(path, rows)
    for ending in ("png", "pdf"):
        figure(rows, path.with_suffix(f".{ending}"))
    shown = _medians(rows)
    show(f"Medians over {seeds} seeds: gap to the own and to the best bound, and CPU time", shown)
    tell([*notes, f"written: {path.with_suffix('')}.csv, .png and .pdf"])
    return path


def _check(
    sizes: Sequence[tuple[int, int]], loads: Sequence[str], seeds: int, time_limit_s: float, exact_links: int
) -> None:
    wrong = [f"loads={kind}: must be one of {', '.join(LOADS)}" for kind in loads if kind not in LOADS]
    wrong += [f"sizes={users}/{stations}: must be >= 1/1" for users, stations in sizes if min(users, stations) < 1]
    wrong += [f"{name}: must not be empty" for name, values in (("sizes", sizes), ("loads", loads)) if not values]
    if seeds < 1:
        wrong.append(f"seeds={seeds}: must be >= 1")
    if not 0 < time_limit_s <= 1e6:
        wrong.append(f"time-limit={time_limit_s}: must be > 0 and <= 1e6")
    if exact_links < 0:
        wrong.append(f"exact-links={exact_links}: must be >= 0")
    if wrong:
        raise ConfigError(wrong)


def _build(names: Sequence[str], time_limit_s: float, overrides: Sequence[str]) -> tuple[dict[str, Solver], Path]:
    """The solvers by name, and the folder of outputs."""
    every = choices("solver")
    if wrong := [name for name in names if name not in every]:
        raise ConfigError([f"solvers={name}: must be one of {', '.join(every)}" for name in wrong])
    built: dict[str, Solver] = {}
    outputs = Path()
    for name in names or every:
        config = plan([f"solver={name}", *overrides], runs=False).jobs[0].config
        solver: Any = Parts(config).solver
        values = {each.name: getattr(solver, each.name) for each in fields(solver)}
        built[name] = type(solver)(**{**values, "time_limit_s": time_limit_s}) if "time_limit_s" in values else solver
        outputs = Path(config.outputs)
    return built, outputs


def _fits(name: str, links: int, exact_links: int) -> bool:
    return name not in SEARCHES or links <= exact_links


def _warm(solvers: dict[str, Solver]) -> None:
    """Import libraries and load compiled code, which is not timed."""
    for solver in solvers.values():
        solver.solve(instance(6, 2, "mixed", 0))
    if not all(name in SEARCHES for name in solvers):
        from dtsim.association.greedy import Greedy

        Greedy().solve(instance(500, 5, "mixed", 0))


def _measured(solvers: dict[str, Solver], users: int, stations: int, kind: Loads | str, seed: int) -> list[Row]:
    """A row for each solver. The best bound and the best objective are those of all solvers on the instance."""
    problem = instance(users, stations, kind, seed)  # type: ignore[arg-type]  # it was checked
    solved = {name: _timed(solver, problem) for name, solver in solvers.items()}
    best_bound_s = max((found.bound_s for found, _ in solved.values()), default=0.0)
    return [
        {
            "users": users,
            "stations": stations,
            "loads": kind,
            "seed": seed,
            "solver": name,
            "objective_s": found.objective_s,
            "bound_s": found.bound_s,
            "gap": found.gap,
            "gap_to_best_bound": max(1 - best_bound_s / found.objective_s, 0.0),
            "cpu_s": cpu_s,
            "wall_s": found.solve_time_s,
            "status": found.status,
        }
        for name, (found, cpu_s) in solved.items()
    ]


def _timed(solver: Solver, problem: AssociationProblem) -> tuple[Association, float]:
    start_s = time.process_time()
    found = solver.solve(problem)
    return found, time.process_time() - start_s


def _medians(rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line for each size, kind of loads and solver."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["users"], row["stations"], row["loads"], row["solver"]), []).append(row)
    return [
        {
            "solver": solver,
            "K/M": f"{users}/{stations}",
            "loads": kind,
            "delay (s)": f"{_median(group, 'objective_s'):.5f}",
            "bound (s)": f"{_median(group, 'bound_s'):.5f}",
            "gap": f"{_median(group, 'gap'):.2%}",
            "to best": f"{_median(group, 'gap_to_best_bound'):.2%}",
            "CPU s": f"{_median(group, 'cpu_s'):.3g}",
            "optimal": f"{sum(row['status'] == 'optimal' for row in group)}/{len(group)}",
        }
        for (users, stations, kind, solver), group in groups.items()
    ]


def _median(rows: Sequence[Row], column: str) -> float:
    return float(median(row[column] for row in rows))
